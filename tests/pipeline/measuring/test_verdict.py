import math

import pytest

from pipeline.measuring.verdict import Limit, Verdict, combine, judged, undecided

PASS, FAIL, UNDECIDED = Verdict


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([PASS, PASS], PASS),
        ([PASS, UNDECIDED], UNDECIDED),
        ([UNDECIDED, FAIL, PASS], FAIL),
        ([], UNDECIDED),
    ],
)
def test_one_failure_fails_and_nothing_shown_is_undecided(verdicts, together):
    assert combine(verdicts) is together


@pytest.mark.parametrize(
    ("bound", "measured", "verdict"),
    [("max", 1.0, PASS), ("max", 1.1, FAIL), ("min", 1.0, PASS), ("min", 0.9, FAIL)],
)
def test_the_limit_itself_is_allowed(bound, measured, verdict):
    assert judged(Limit("size", 1.0, "bytes", bound), measured, "").verdict is verdict


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", ["max", "min"])
def test_what_is_not_finite_never_passes(bound, measured):
    check = judged(Limit("parity_max_abs_diff", 1.0, "logit", bound), measured, "of two hops")
    assert (check.verdict, check.measured, check.note) == (FAIL, None, f"measured {measured}; of two hops")


def test_what_was_not_measured_is_undecided_with_the_reason():
    check = undecided(Limit("latency", 1.0, "ms"), "the model was not profiled")
    assert (check.verdict, check.measured, check.note) == (UNDECIDED, None, "the model was not profiled")
