"""The streaming histogram against NumPy's, whatever the order and the batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.histogram import Histogram

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


def counted(*batches: np.ndarray, num_bins: int = 64) -> Histogram:
    histogram = Histogram(num_bins)
    for batch in batches:
        histogram.add(batch)
    return histogram


@given(st.lists(FLOATS, min_size=1, max_size=60), st.integers(0, 60), st.randoms())
@settings(deadline=None)
def test_counts_do_not_depend_on_order_or_batches(values: list[float], cut: int, random: object) -> None:
    whole = np.array(values, np.float32)
    shuffled = np.random.default_rng(len(values)).permutation(whole)
    one, other = counted(whole), counted(shuffled[:cut], shuffled[cut:])
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.limit, one.zeros, one.extremes.low, one.extremes.high) == (
        other.limit,
        other.zeros,
        other.extremes.low,
        other.extremes.high,
    )


def test_counts_are_those_of_numpy_over_the_same_edges() -> None:
    batches = [np.random.default_rng(i).normal(0, 2.0**i, (50, 7, 3)).astype(np.float32) for i in range(6)]
    batches[2][:5] = 0
    histogram = counted(*(batch.transpose(2, 0, 1) for batch in batches))
    sizes = np.abs(np.concatenate([batch.ravel() for batch in batches]))
    expected, _ = np.histogram(sizes[sizes > 0], bins=64, range=(0, histogram.limit))
    np.testing.assert_array_equal(histogram.counts, expected)
    assert (histogram.zeros, histogram.extremes.count) == (5 * 21, len(sizes))
    assert histogram.limit / 2 <= sizes.max() < histogram.limit


def test_shares_above_a_size_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    histogram = counted(values, num_bins=4096)
    for size in (0.0, 0.5, 2.0, 3.5):
        assert histogram.share_above(size) == pytest.approx((np.abs(values) > size).mean(), abs=5e-4)
    assert histogram.share_above(histogram.extremes.largest) == 0


@pytest.mark.parametrize("num_bins", [0, 1, 48])
def test_bins_that_cannot_merge_are_refused(num_bins: int) -> None:
    with pytest.raises(ValueError, match=f"bins: expected a power of two, .*; got {num_bins}"):
        Histogram(num_bins)
