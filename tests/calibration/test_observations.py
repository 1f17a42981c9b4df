"""Many tensors in one stream: ranges by name, facts, and the curve that says how many samples are enough."""

import numpy as np
import pytest

from calibration.curve import CurvePoint, RangeCurve, find_enough
from calibration.observations import Observations
from calibration.ranges import Entropy, MinMax, Percentile


def test_ranges_and_facts_are_by_name_and_the_worst_first() -> None:
    seen = Observations(Entropy(), 127)
    random = np.random.default_rng(0)
    for _ in range(4):
        seen.observe("conv", random.normal(size=(8, 4, 5, 5)).astype(np.float32))
        seen.observe("linear", random.laplace(size=(8, 400)).astype(np.float32) ** 5)
        seen.end_batch(8)
    expected = Entropy().start(127)
    random = np.random.default_rng(0)
    for _ in range(4):
        expected.observe(random.normal(size=(8, 4, 5, 5)).astype(np.float32))
        random.laplace(size=(8, 400))
    assert list(seen.ranges()) == ["conv", "linear"]
    assert seen.ranges()["conv"] == expected.range()
    assert [facts.name for facts in seen.facts()] == ["linear", "conv"]


def test_the_tensor_with_bad_values_or_none_is_named() -> None:
    seen = Observations(MinMax(), 255)
    with pytest.raises(ValueError, match="block/Add: expected finite values; got 1 NaN"):
        seen.observe("block/Add", np.array([[1, np.nan]]))
    seen.observe("empty", np.zeros((0, 3)))
    with pytest.raises(ValueError, match="block/Add: expected at least one value"):
        seen.ranges()


def test_the_curve_compares_doublings_to_all_samples() -> None:
    seen = Observations(MinMax(), 255)
    for a, b in [(1, 4), (2, 4), (2, 1), (2.5, 0), (1, 5), (1, 1)]:
        seen.observe("a", np.array([float(a)]))
        seen.observe("b", np.array([-float(b), 0.5]))
        seen.end_batch(1)
    assert seen.curve() == (
        CurvePoint(1, pytest.approx(0.6), pytest.approx((0.6 + 0.2) / 2)),
        CurvePoint(2, pytest.approx(0.2), pytest.approx((0.2 + 0.2) / 2)),
        CurvePoint(4, pytest.approx(0.2), pytest.approx((0.0 + 0.2) / 2)),
        CurvePoint(6, 0, 0),
    )


def test_a_tensor_without_a_range_yet_has_changed_by_all_of_it() -> None:
    seen = Observations(Percentile(percentile=60), 255)
    seen.observe("sparse", np.array([0, 0, 0, 1.0]))
    seen.end_batch(1)
    seen.observe("sparse", np.full(100, 2.0))
    seen.end_batch(1)
    assert [point.largest_change for point in seen.curve()] == [1.0, 0.0]


def test_enough_is_where_no_range_moves_any_more() -> None:
    curve = RangeCurve()
    for num, size in ((1, 3.0), (2, 3.99), (4, 3.5), (8, 3.97), (16, 4.01)):
        curve.record(num, {"a": (-size, 0.0)})
    points = curve.points(20, {"a": (-4.0, 0.0)})
    assert find_enough(points) == 8
    assert find_enough(points, tolerance=0.3) == 1
    assert find_enough(points, tolerance=0.001) is None
