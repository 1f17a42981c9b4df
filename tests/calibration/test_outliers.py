"""Facts of tensors against closed forms, and what is said of them."""

import numpy as np
import pytest
from scipy import stats

from calibration.cautions import check_normalization, describe_images, describe_tensors
from calibration.outliers import Moments, TensorFacts, TensorStatistics, sort_worst_first

RANDOM = np.random.default_rng(0)


def facts_of(*batches: np.ndarray, covered: tuple[float, float] = (-1, 1), name: str = "conv") -> TensorFacts:
    statistics = TensorStatistics()
    for batch in batches:
        statistics.observe(batch.astype(np.float32))
    return statistics.describe(name, covered)


def test_the_kurtosis_of_a_stream_is_that_of_the_whole() -> None:
    values = RANDOM.gamma(2, 3, 300_000) + 100
    moments = Moments()
    for part in np.array_split(values, [10, 1000, 170_000]):
        moments.add(part)
    assert moments.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-9)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)


@pytest.mark.parametrize(("density", "kurtosis"), [(stats.uniform, 1.8), (stats.norm, 3.0), (stats.laplace, 6.0)])
def test_facts_of_distributions_are_their_closed_forms(density: stats.rv_continuous, kurtosis: float) -> None:
    values = density.ppf((np.arange(200_000) + 0.5) / 200_000)
    facts = facts_of(*np.array_split(values, 7), covered=(-0.6, 0.8))
    assert facts.kurtosis == pytest.approx(kurtosis, rel=0.01)  # tails end at 1 / 200,000
    assert facts.clipped_share == pytest.approx((np.abs(values) > 0.8).mean(), abs=1e-4)
    common = np.percentile(np.abs(values), 99.99)
    assert facts.outlier_ratio == pytest.approx(np.abs(values).max() / common, rel=2e-3)


def test_channels_that_are_always_zero_are_found_over_all_batches() -> None:
    batches = [RANDOM.normal(size=(4, 5, 3, 3)) for _ in range(2)]
    for batch, dead in zip(batches, ([0, 2, 4], [2, 3, 4]), strict=True):
        batch[:, dead] = 0
    facts = facts_of(*batches)
    assert (facts.zero_channels, facts.num_channels) == ((2, 4), 5)


def test_the_worst_tensor_comes_first() -> None:
    gauss, laplace = RANDOM.normal(size=50_000), RANDOM.laplace(size=50_000)
    found = sort_worst_first(
        [
            facts_of(gauss, name="gauss"),
            facts_of(np.append(gauss, 900), name="outlier"),
            facts_of(np.full(9, 3.5), name="constant"),
            facts_of(laplace, name="laplace"),
        ]
    )
    assert [tensor.name for tensor in found] == ["constant", "outlier", "laplace", "gauss"]


def test_cautions_name_tensors_and_what_to_do() -> None:
    dead = RANDOM.normal(size=(4, 5, 9))
    dead[:, 1] = 0
    tensors = [facts_of(np.full(9, 3.5), name="a"), facts_of(np.append(RANDOM.normal(size=50_000), 900), name="b")]
    constant, far, zero = describe_tensors([*tensors, facts_of(dead, name="c")])
    assert "the same value everywhere in a = 3.5: expected activations that depend on the image" in constant
    assert "far beyond the 99.99th percentile in b (" in far
    assert "Try the method mean_squared_error" in far
    assert "zero for every image in c (1 of 5)" in zero
    assert describe_tensors([facts_of(RANDOM.normal(size=(9, 4)))]) == []


def test_few_images_and_one_class_are_told() -> None:
    assert describe_images(64, np.arange(64) % 3) == []
    assert "1 image: expected at least 16" in describe_images(1)[0]
    assert "all 20 images are of one class (7)" in describe_images(20, np.full(20, 7))[0]


def images(num: int, seed: int) -> np.ndarray:
    """Return images whose brightness and contrast differ as photographs' do: normalized, of mean 0 and variance 1."""
    random = np.random.default_rng(seed)
    pixels = random.normal(0, 1, (num, 3, 12, 12)) * random.uniform(0.5, 1.3, (num, 1, 1, 1))
    return pixels * (0.7 / np.sqrt(0.9**2 + 0.8**2 / 12)) + random.normal(0, np.sqrt(1 - 0.49), (num, 3, 1, 1))


@pytest.mark.parametrize("num", [1, 4, 8, 16, 100])
def test_the_right_normalization_is_never_doubted(num: int) -> None:
    assert [check_normalization(images(num, seed), np.zeros(3), np.ones(3)) for seed in range(30)] == [[]] * 30


@pytest.mark.parametrize("num", [16, 200])
def test_wrong_normalization_is_told_with_both_figures(num: int) -> None:
    """Pixels 0..1 not normalized at all, pixels 0..255, and one channel with another's mean."""
    right = images(num, 1)
    for wrong in (right * 0.25 + 0.47, right * 64 + 120):
        text = " ".join(check_normalization(wrong, np.zeros(3), np.ones(3)))
        assert "mean of the normalized images, channels [0, 1, 2]: expected [0, 0, 0] as in training" in text
        assert "variance of" in text
    assert "variance" in check_normalization(right * 3, np.zeros(3), np.ones(3))[0]


def test_bytes_given_as_they_are_show_even_in_one_image() -> None:
    assert "got [1" in check_normalization(images(1, 0) * 64 + 130, np.zeros(3), np.ones(3))[0]
