"""A small part of benchmarks/measuring_simulation.py, which judges 200 repetitions of each distribution."""

import pytest

from benchmarks.measuring_simulation import DRIFTING, STATIONARY, judge, repeat
from pipeline.measuring.verdict import Verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["independent", "AR(1) 0.9", "bimodal", "bimodal, stays 200", "processes differ, 5 %", "spikes, 1.5 %"]
)
def test_limits_5_percent_off_are_decided_wrongly_in_at_most_5_percent_and_intervals_hold(name: str) -> None:
    row = judge(name, repetitions=20, seed=1000)
    assert row.wrong <= 0.05
    assert row.given >= 20  # of 40
    assert row.covered is not None
    assert row.covered >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIFTING)
def test_what_drifts_ends_undecided_and_without_an_interval(name: str) -> None:
    row = judge(name, repetitions=10, seed=1000)
    assert (row.undecided, row.given) == (1.0, 0)


def test_a_clear_limit_takes_a_fraction_of_a_fixed_minute() -> None:
    outcome = repeat(STATIONARY["independent"], limit_ms=4.0, seed=0)
    assert outcome.verdict is Verdict.PASS
    assert outcome.seconds < 20
