"""Throttling as a board's files tell it, through the very sensors that a device reads."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.measuring.validity import Flag, find_flags
from pipeline.measuring.verdict import Verdict
from targets.runner.sensors_sampler import Watch
from tests.targets.board_files import ORIN_NANO, write_board

POLICY = "sys/devices/system/cpu/cpufreq/policy0"
ZONE = "sys/class/thermal/thermal_zone0"


def throttling_of(root: Path) -> list[Flag]:
    with Watch(root) as watch:
        watch.mark_start()
    return [flag for flag in find_flags([np.full(99, 1_000)], [watch.trace], {}) if flag.name == "throttling"]


def test_a_board_at_its_highest_clock_and_cool_is_not_throttled(tmp_path: Path) -> None:
    assert throttling_of(write_board(tmp_path, ORIN_NANO)) == []


@pytest.mark.parametrize(
    ("file", "text", "evidence", "forbids"),
    [
        (f"{ZONE}/temp", "99500", "cpu-thermal at 99.5 C, throttled from 99 C on", {Verdict.PASS, Verdict.FAIL}),
        (
            f"{POLICY}/scaling_cur_freq",
            "729600",
            "no core ran faster than policy0 at 48 % of its 1,510 MHz",
            {Verdict.FAIL},
        ),
        ("sys/class/thermal/cooling_device0/cur_state", "2", "cpufreq-cpu0", {Verdict.PASS, Verdict.FAIL}),
    ],
)
def test_each_sign_of_throttling_is_a_flag(
    file: str, text: str, evidence: str, forbids: set[Verdict], tmp_path: Path
) -> None:
    (flag,) = throttling_of(write_board(tmp_path, {**ORIN_NANO, file: text}))
    assert evidence in flag.evidence
    assert set(flag.forbids) == forbids


def test_a_clock_that_is_set_low_on_purpose_is_at_its_limit(tmp_path: Path) -> None:
    low = {f"{POLICY}/scaling_cur_freq": "729600", f"{POLICY}/scaling_max_freq": "729600"}
    assert throttling_of(write_board(tmp_path, {**ORIN_NANO, **low})) == []
