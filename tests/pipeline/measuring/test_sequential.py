import numpy as np
import pytest

from pipeline.measuring.sequential import decide
from pipeline.measuring.verdict import Verdict


def test_first_look_passes_a_p99_with_none_above_from_368_samples_on():
    # alpha_1 = 0.05 / 2, and 0.99**367 > 0.025 >= 0.99**368.
    assert decide(367, 0, 99, look=1) is Verdict.UNDECIDED
    assert decide(368, 0, 99, look=1) is Verdict.PASS


def test_all_above_fails_at_once():
    assert decide(2, 2, 99, look=1) is Verdict.FAIL  # 0.01**2 <= 0.025


def test_a_later_look_asks_for_more():
    assert decide(368, 0, 99, look=2) is Verdict.UNDECIDED  # alpha_2 = 0.05 / 6


def test_exactly_the_allowed_share_is_undecided():
    assert decide(100_000, 1_000, 99, look=1) is Verdict.UNDECIDED


def test_no_samples_decide_nothing():
    assert decide(0, 0, 99, look=1) is Verdict.UNDECIDED


@pytest.mark.parametrize(("num_above", "look"), [(11, 1), (-1, 1), (3, 0)])
def test_impossible_counts_are_refused(num_above, look):
    with pytest.raises(ValueError, match="expected"):
        decide(10, num_above, 99, look)


def judge_by_doubling(samples: np.ndarray, limit: float) -> Verdict:
    size, look = 256, 1
    while (verdict := decide(size, int((samples[:size] > limit).sum()), 99, look)) is Verdict.UNDECIDED:
        if size == samples.size:
            break
        size, look = 2 * size, look + 1
    return verdict


@pytest.mark.parametrize("wrong", [Verdict.PASS, Verdict.FAIL])
def test_repeated_looks_are_wrong_in_at_most_5_of_100_runs(wrong):
    rng = np.random.default_rng(0)
    p99 = np.exp(0.3 * 2.3263478740408408)
    limit = p99 * (1 - 1e-9 if wrong is Verdict.PASS else 1)  # the hardest truths: just beyond, just within
    verdicts = [judge_by_doubling(rng.lognormal(0, 0.3, 16_384), limit) for _ in range(1000)]
    assert verdicts.count(wrong) / 1000 <= 0.05


@pytest.mark.parametrize(("factor", "right"), [(1.05, Verdict.PASS), (0.95, Verdict.FAIL)])
def test_limits_5_percent_away_are_decided_rightly(factor, right):
    rng = np.random.default_rng(1)
    limit = factor * np.exp(0.3 * 2.3263478740408408)
    verdicts = [judge_by_doubling(rng.lognormal(0, 0.3, 65_536), limit) for _ in range(100)]
    assert verdicts.count(right) >= 95
