import numpy as np
import pytest

from pipeline.measuring.ratio import speedup
from pipeline.measuring.verdict import Verdict


def rounds(*medians: float) -> list[np.ndarray]:
    return [np.full(5, median) for median in medians]


def test_a_machine_that_slows_down_does_not_move_the_ratio():
    load = np.array([1.0, 1.5, 3.0, 2.0, 5.0, 1.0, 1.2])
    found = speedup(rounds(*(2 * load)), rounds(*load))
    assert (found.ratio, found.interval, found.verdict) == (2.0, (2.0, 2.0), Verdict.PASS)


def test_slower_fails_and_what_may_be_either_is_undecided():
    assert speedup(rounds(*[1] * 6), rounds(*[2] * 6)).verdict is Verdict.FAIL
    assert speedup(rounds(*[1] * 6), rounds(*[1] * 6)).verdict is Verdict.UNDECIDED


def test_the_interval_needs_six_rounds():
    # 2 * 0.5**5 > 0.05 >= 2 * 0.5**6: the outermost order statistics bound the median with 95 % from six on
    assert speedup(rounds(*[2] * 5), rounds(*[1] * 5)).interval is None
    assert speedup(rounds(*[2] * 6), rounds(*[1] * 6)).interval == pytest.approx((2, 2))
