import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measuring import binomial, quantiles


def exact_tails(successes: int, trials: int, chance: Fraction) -> tuple[float, float]:
    """P(X <= successes) and P(X >= successes) in rational arithmetic."""
    mass = [math.comb(trials, i) * chance**i * (1 - chance) ** (trials - i) for i in range(trials + 1)]
    return float(sum(mass[: successes + 1])), float(sum(mass[successes:]))


@pytest.mark.parametrize("trials", [1, 2, 7, 100, 301])
@pytest.mark.parametrize("chance", [Fraction(1, 100), Fraction(1, 2), Fraction(999, 1000)])
def test_binomial_tails_equal_rational_arithmetic(trials, chance):
    for successes in range(0, trials + 1, max(1, trials // 20)):
        at_most, at_least = exact_tails(successes, trials, chance)
        # 12 digits: log-gamma of 300 keeps 13; tails below 1e-300 are zero in floats.
        assert binomial.at_most(successes, trials, float(chance)) == pytest.approx(at_most, rel=1e-12, abs=1e-300)
        assert binomial.at_least(successes, trials, float(chance)) == pytest.approx(at_least, rel=1e-12, abs=1e-300)


def test_binomial_tail_of_a_million_trials_is_the_normal_one():
    # Central limit with continuity correction: error below 1e-3 at n = 1e6, p = 1/2.
    deviations = (500_500 + 0.5 - 500_000) / 500
    assert binomial.at_most(500_500, 1_000_000, 0.5) == pytest.approx(
        0.5 * math.erfc(-deviations / math.sqrt(2)), abs=1e-3
    )


@pytest.mark.parametrize(
    ("num_samples", "percentile", "rank"),
    [(100, 99, 99), (100, 99.9, 100), (1000, 99.9, 999), (10, 30, 3), (100, 55, 55), (100, 7, 7), (1, 50, 1)],
)
def test_rank_is_exact_where_floats_are_not(num_samples, percentile, rank):
    # In floats 0.55 * 100 and 0.07 * 100 lie above 55 and 7, and ceil would give 56 and 8.
    assert quantiles.percentile_rank(num_samples, percentile) == rank


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.sampled_from([1, 25, 50, 90, 99, 99.9]))
def test_percentile_equals_numpys_inverted_cdf(values, percentile):
    samples = np.array(values)
    # NumPy multiplies floats: where n*p is a whole number it may be off by one rank, so exact n*p are left out.
    if (len(values) * Fraction(str(percentile)) / 100).denominator == 1:
        return
    assert quantiles.percentile_of(samples, percentile) == np.percentile(samples, percentile, method="inverted_cdf")


def test_p99_upper_bound_needs_299_samples():
    # 0.99**298 > 0.05 >= 0.99**299.
    assert quantiles.upper_bound(np.arange(298), 99) is None
    assert quantiles.upper_bound(np.arange(299), 99) == 298


def test_p99_interval_needs_368_samples():
    # 0.99**367 > 0.025 >= 0.99**368.
    assert quantiles.interval(np.arange(367), 99) is None
    assert quantiles.interval(np.arange(368), 99) is not None


def test_median_interval_of_ten_is_the_second_and_ninth():
    # Published table of the sign test (Conover, Practical Nonparametric Statistics): 97.9 % for n = 10.
    assert quantiles.interval(np.arange(1, 11), 50) == (2, 9)


def test_p99_interval_holds_the_truth_in_95_of_100_samplings():
    rng = np.random.default_rng(0)
    truth = math.exp(0.5 * 2.3263478740408408)  # lognormal(0, 0.5): exp of the normal's 0.99-quantile
    intervals = [quantiles.interval(rng.lognormal(0, 0.5, 600), 99) for _ in range(2000)]
    covered = sum(1 for found in intervals if found and found[0] <= truth <= found[1]) / len(intervals)
    assert covered >= 0.95 - 0.015  # 3 standard errors of 2000 samplings


def test_samples_that_are_all_equal_are_their_own_bounds():
    assert quantiles.interval(np.full(500, 7), 99) == (7.0, 7.0)


def test_no_samples_have_no_percentile():
    with pytest.raises(ValueError, match="at least one sample"):
        quantiles.percentile_of(np.array([]), 99)


@pytest.mark.parametrize("percentile", [0, 100, -1, 101])
def test_a_percentile_lies_between_0_and_100(percentile):
    with pytest.raises(ValueError, match="expected 0 < percentile < 100"):
        quantiles.percentile_rank(10, percentile)
