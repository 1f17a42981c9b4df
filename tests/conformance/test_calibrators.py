"""What every range method must hold, and what theory says of each: the union times distributions with closed forms.

Samples are the quantiles of a distribution at (i + 1/2) / n: its shape without the noise of a draw.
"""

from typing import get_args

import numpy as np
import pytest
from scipy import optimize, stats

from calibration.clipping import find_least_divergence
from calibration.histogram import Histogram
from calibration.ranges import AnyRange, Entropy, MeanSquaredError, MinMax, MovingAverage, Percentile

METHODS: list[AnyRange] = [method() for method in get_args(AnyRange)]
CUTTING = [method for method in METHODS if not isinstance(method, MinMax | MovingAverage)]
NUM = 1_000_000


def quantiles(distribution: stats.rv_continuous) -> np.ndarray:
    shares = (np.arange(NUM) + 0.5) / NUM
    return np.random.default_rng(0).permutation(distribution.ppf(shares)).astype(np.float32)


GAUSS, LAPLACE = quantiles(stats.norm), quantiles(stats.laplace)
UNIFORM, POSITIVE = quantiles(stats.uniform(-1, 2)), quantiles(stats.uniform(0, 3))
RELU, ONE_OUTLIER = np.maximum(GAUSS, 0), np.append(GAUSS, np.float32(50))
SKEWED = np.where(GAUSS < 0, GAUSS / 10, GAUSS)
DATA = {"gauss": GAUSS, "laplace": LAPLACE, "uniform": UNIFORM, "positive": POSITIVE, "relu": RELU} | {
    "one outlier": ONE_OUTLIER,
    "skewed": SKEWED,
    "hardswish": (GAUSS * np.clip(GAUSS / 6 + 0.5, 0, 1)).astype(np.float32),
    "far from zero": GAUSS[:1000] + np.float32(50),
    "negative": -RELU[:5000],
}


def range_of(method: AnyRange, *batches: np.ndarray, codes: int = 255, asymmetric: bool = False) -> tuple[float, float]:
    observer = method.start(codes, asymmetric=asymmetric)
    for batch in batches:
        observer.observe(batch)
    return observer.range()


def squared_error(values: np.ndarray, covered: tuple[float, float], codes: int = 255) -> float:
    """Return the mean of (x - Q(x))^2 on the grid that a range gives, in float64."""
    steps = codes if covered[0] >= 0 else 127
    scale = max(abs(covered[0]), abs(covered[1])) / steps
    rounded = scale * np.clip(np.rint(values.astype(np.float64) / scale), 0 if covered[0] >= 0 else -127, steps)
    return float(((values - rounded) ** 2).mean())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("name", DATA)
def test_a_range_is_inside_what_was_seen_and_below_zero_only_if_values_were(method: AnyRange, name: str) -> None:
    low, high = range_of(method, *np.array_split(DATA[name], 3))
    assert DATA[name].min() <= low <= high <= DATA[name].max()
    assert (low < 0) == bool(DATA[name].min() < 0)
    assert max(-low, high) > 0


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("name", DATA)
def test_an_asymmetric_range_is_inside_what_was_seen_and_that_of_any_grid_if_never_negative(
    method: AnyRange, name: str
) -> None:
    batches = np.array_split(DATA[name], 3)
    low, high = range_of(method, *batches, asymmetric=True)
    assert DATA[name].min() <= low <= high <= DATA[name].max()
    assert max(-low, high) > 0
    if DATA[name].min() >= 0:
        assert (low, high) == range_of(method, *batches)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("name", ["hardswish", "skewed", "far from zero"])
def test_an_asymmetric_grid_is_never_worse_and_gains_up_to_a_bit_where_values_are_skewed(
    method: AnyRange, name: str
) -> None:
    """A bit is a quarter of the error: hardswish lies in [-0.38, 5], so all but a 14th of the codes serve one side."""
    data = DATA[name]
    symmetric = squared_error(data, range_of(method, data))
    asymmetric = squared_error_asymmetric(data, range_of(method, data, asymmetric=True))
    assert asymmetric < (1.01 if data.min() >= 0 else 0.6) * symmetric


@pytest.mark.parametrize("method", CUTTING, ids=lambda method: method.kind)
def test_either_tail_of_an_asymmetric_range_is_cut(method: AnyRange) -> None:
    for outliers in ([50], [-50], [-50, 30]):
        data = np.append(SKEWED, np.array(outliers, np.float32))
        low, high = range_of(method, data, asymmetric=True)
        assert (low, high) > (-50, 0)
        assert squared_error_asymmetric(data, (low, high)) < 0.8 * squared_error_asymmetric(
            data, range_of(MinMax(), data)
        )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_constants_keep_their_value_and_zeros_are_a_range(method: AnyRange) -> None:
    for value in (0.0, 5.0, -0.3, 1e-30):
        seen = float(np.float32(value))
        assert range_of(method, np.full(1000, value, np.float32)) == (seen, seen)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_nothing_seen_and_values_that_are_not_finite_are_refused(method: AnyRange) -> None:
    with pytest.raises(ValueError, match=r"expected at least one value; got none: .* no sample"):
        range_of(method, np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="expected finite values; got 1 NaN and 2 infinite ones among 4"):
        range_of(method, np.array([np.nan, np.inf, -np.inf, 1], np.float32))


def squared_error_asymmetric(values: np.ndarray, covered: tuple[float, float]) -> float:
    """Return the mean of (x - Q(x))^2 on 256 codes over a range that holds zero."""
    low, high = min(covered[0], 0.0), max(covered[1], 0.0)
    step = (high - low) / 255
    center = np.rint(-low / step)
    rounded = step * (np.clip(np.rint(values.astype(np.float64) / step) + center, 0, 255) - center)
    return float(((values - rounded) ** 2).mean())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("data", [UNIFORM, POSITIVE], ids=["signed", "never negative"])
def test_nothing_is_lost_to_min_max_where_that_is_best(method: AnyRange, data: np.ndarray) -> None:
    best = squared_error(data, range_of(MinMax(), data))
    assert squared_error(data, range_of(method, data)) < 1.03 * best


@pytest.mark.parametrize("method", CUTTING, ids=lambda method: method.kind)
def test_long_tails_are_cut_to_gain(method: AnyRange) -> None:
    """One outlier of 50 among a million costs at most 50^2 / 10^6 if cut, and 50^2 / (12 x 127^2) if not: 5 times."""
    for data in (LAPLACE, ONE_OUTLIER):
        assert squared_error(data, range_of(method, data)) < 0.8 * squared_error(data, range_of(MinMax(), data))


def test_the_moving_average_forgets_an_outlier() -> None:
    batches = [GAUSS[:1000]] * 5 + [ONE_OUTLIER[-1000:]] + [GAUSS[:1000]] * 20
    size = float(np.abs(GAUSS[:1000]).max())
    expected = size + 0.1 * 0.9**20 * (50 - size)
    assert max(np.abs(range_of(MovingAverage(), *batches))) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("codes", [7, 15, 127, 255])
@pytest.mark.parametrize("density", [stats.norm, stats.laplace], ids=["gauss", "laplace"])
def test_the_least_squared_error_is_that_of_quadrature(density: stats.rv_continuous, codes: int) -> None:
    """The expected error of |x|, integrated over the density at 200,000 points, and minimised; tails end at 1e-6."""
    end = density.ppf(1 - 0.5e-6)
    x = (np.arange(200_000) + 0.5) * (end / 200_000)

    def expected_error(size: float) -> float:
        step = size / codes
        return float(((x - step * np.minimum(np.rint(x / step), codes)) ** 2 * density.pdf(x)).sum())

    best = optimize.minimize_scalar(expected_error, bounds=(0.5, end), method="bounded")
    found = range_of(MeanSquaredError(), np.abs(quantiles(density)), codes=codes)[1]
    assert found == pytest.approx(best.x, rel=0.03)  # the error is flat at its least
    assert expected_error(found) < 1.005 * best.fun  # the last samples stand for tails


@pytest.mark.parametrize(
    ("data", "bits", "published"),
    [(GAUSS, 3, 2.15), (GAUSS, 4, 2.55), (LAPLACE, 3, 3.89), (LAPLACE, 4, 5.03)],
)
def test_cuts_of_few_bits_are_those_of_aciq(data: np.ndarray, bits: int, published: float) -> None:
    """Banner et al. 2019, section 2: a step is 2 c / 2^bits; they round 4 % apart, having no code at zero."""
    size = range_of(MeanSquaredError(), np.abs(data), codes=2 ** (bits - 1))[1]
    assert size == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99, 100.0])
@pytest.mark.parametrize("name", ["gauss", "laplace", "uniform", "relu"])
def test_percentiles_are_those_of_numpy(name: str, percentile: float) -> None:
    sizes = np.abs(DATA[name])
    size = max(np.abs(range_of(Percentile(percentile=percentile), DATA[name])))
    assert size == pytest.approx(np.percentile(sizes, percentile), abs=float(sizes.max()) / 16_384)


def test_a_percentile_of_an_asymmetric_range_cuts_half_at_either_tail() -> None:
    low, high = range_of(Percentile(percentile=98.0), SKEWED, asymmetric=True)
    assert (low, high) == pytest.approx(tuple(np.percentile(SKEWED, [1, 99])), abs=float(SKEWED.max()) / 16_384)


def test_the_least_squared_error_of_an_asymmetric_grid_is_that_of_a_search_by_brute_force() -> None:
    data = np.append(SKEWED[:100_000], np.float32([12, -3]))
    tried = [
        squared_error_asymmetric(data, (-low, high))
        for low in np.linspace(0.1, 1, 19)
        for high in np.linspace(2, 8, 25)
    ]
    found = squared_error_asymmetric(data, range_of(MeanSquaredError(), data, asymmetric=True))
    assert found < 1.02 * min(tried)


def test_a_percentile_of_mostly_zeros_says_what_to_do() -> None:
    values = np.zeros(100_000, np.float32)
    values[7] = 1
    with pytest.raises(ValueError, match=r"wider than zero; .*nearly all of them zero: use min_max, or a higher"):
        range_of(Percentile(), values)


def migacz(counts: np.ndarray, num_levels: int) -> int:
    """Return the best number of bins by the pseudo-code of the talk, with 1e-4 for an empty bin that P needs."""
    divergences = {}
    for end in range(num_levels, len(counts) + 1):
        reference = counts[:end].astype(float)
        reference[-1] += counts[end:].sum()
        candidate = np.zeros(end)
        for level in range(num_levels):
            part = slice(end * level // num_levels, end * (level + 1) // num_levels)
            filled = counts[part] > 0
            if filled.any():
                candidate[part][filled] = counts[part].sum() / filled.sum()
        candidate[(candidate == 0) & (reference > 0)] = 1e-4
        divergences[end] = stats.entropy(reference, candidate)
    return min(divergences, key=lambda end: (divergences[end], -end))


@pytest.mark.parametrize("name", ["gauss", "laplace", "uniform", "relu", "hardswish", "one outlier"])
def test_entropy_is_the_search_of_the_talk(name: str) -> None:
    histogram = Histogram(256)
    histogram.add(DATA[name][:20_000] if name != "one outlier" else np.append(GAUSS[:20_000], np.float32(40)))
    expected = migacz(histogram.counts[: histogram.num_used], 16) * histogram.width
    assert find_least_divergence(histogram, 15) == min(expected, histogram.extremes.largest)


@pytest.mark.parametrize("name", ["gauss", "laplace", "relu", "hardswish", "one outlier"])
def test_entropy_differs_from_min_max_and_refuses_too_few_bins_to_search(name: str) -> None:
    found, whole = range_of(Entropy(), DATA[name]), range_of(MinMax(), DATA[name])
    assert max(np.abs(found)) < 0.99 * max(np.abs(whole))
    with pytest.raises(ValueError, match="bins: expected a power of two from 1024; got 256"):
        Entropy(bins=256)


def test_a_grid_with_fewer_codes_is_cut_sooner() -> None:
    for method in (Entropy(), MeanSquaredError()):
        assert range_of(method, RELU, codes=127)[1] < range_of(method, RELU, codes=255)[1]
