from dataclasses import replace

import numpy as np
import pytest

from pipeline.measuring.validity import BOTH, SLOWED, Flag, find_flags
from targets.runner.sensors import Channel, Trace

STEADY = np.random.default_rng(0).lognormal(0, 0.1, 1000) * 1e6
QUIET = Trace(
    times_s=(-1.0, 0.0, 5.0, 10.0),
    channels=(
        Channel("clock", "policy0", (600.0, 1800.0, 1800.0, 1790.0)),
        Channel("temperature", "cpu", (40.0, 41.0, 43.0, 44.0)),
        Channel("cooling", "cpufreq", (0.0, 0.0, 0.0, 0.0)),
        Channel("throttling", "core", (7.0, 7.0, 7.0, 7.0)),
        Channel("pressure", "cpu", (0.0, 1e4, 2e4, 3e4)),
    ),
    settings={"power_mode": "MAXN"},
    settings_after={"power_mode": "MAXN"},
)


def flags_of(*traces: Trace, **context: object) -> dict[str, Flag]:
    return {flag.name: flag for flag in find_flags([STEADY], traces, context)}


def reading(quantity: str, *values: float) -> Trace:
    others = tuple(channel for channel in QUIET.channels if channel.quantity != quantity)
    return replace(QUIET, channels=(*others, Channel(quantity, "x", values)))  # type: ignore[arg-type]


def test_a_quiet_device_and_one_without_sensors_have_no_flag():
    assert flags_of(QUIET) == {}
    assert flags_of(Trace()) == {}


@pytest.mark.parametrize(
    ("trace", "name", "evidence", "forbids"),
    [
        (reading("clock", 600, 1800, 1300, 1200), "clock_change", "went between", BOTH),
        (reading("throttling", 7, 7, 8, 9), "throttling", "2 throttling event(s)", BOTH),
        (reading("cooling", 0, 0, 2, 0), "throttling", "held back by x", BOTH),
        (reading("temperature", 40, 41, 50, 55), "temperature_drift", "from 40 to 55 C", BOTH),
        (replace(QUIET, settings_after={"power_mode": "15W"}), "settings_changed", "from MAXN to 15W", BOTH),
        (reading("pressure", 0, 1e6, 3e6, 5.5e6), "cpu_pressure", "50 % of the time", SLOWED),
        (reading("other_load", 0, 1, 6, 11), "other_load", "1.0 processors", SLOWED),
        (reading("steal", 0, 0, 1, 2), "steal", "18 % of a processor", SLOWED),
        (reading("swapping", 5, 5, 105, 105), "swapping", "100 pages", SLOWED),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_each_doubt_has_its_evidence(trace, name, evidence, forbids):
    (flag,) = flags_of(trace).values()
    assert (flag.name, flag.forbids) == (name, forbids)
    assert evidence in flag.evidence
    assert flag.advice


def test_a_mode_that_changed_between_processes_is_found():
    other = replace(QUIET, settings={"power_mode": "15W"}, settings_after={"power_mode": "15W"})
    assert flags_of(QUIET, other)["settings_changed"].evidence == "power_mode from MAXN to 15W"


def test_an_emulated_device_decides_no_latency():
    assert flags_of(emulated="the inventory says so")["emulated"].forbids == BOTH


def test_two_modes_are_told_and_forbid_nothing():
    both = np.random.default_rng(1).permutation(np.concatenate([STEADY, 2 * STEADY[:300]]))
    (flag,) = find_flags([both], (), {})
    assert (flag.name, flag.forbids) == ("bimodal", ())
    assert "23 % slow" in flag.evidence
