"""Ratios of scales at which no sum of codes is near a border between two codes."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibration.ties import DENOMINATOR, LARGEST_DENOMINATOR, count_steps, raise_ratios


def distance_to_tie(ratio: Fraction) -> Fraction:
    """Return how near an integer multiple of p / q comes to half of an odd number: 0 or 1/2q, by the parity of q."""
    return Fraction(1, 2 * ratio.denominator) if ratio.denominator % 2 else Fraction(0)


@given(st.floats(1 / LARGEST_DENOMINATOR, 4.0))
def test_a_raised_ratio_keeps_every_sum_away_from_borders_and_is_hardly_larger(ratio: float) -> None:
    raised = float(raise_ratios(np.array([ratio]))[0])
    exact = Fraction(raised).limit_denominator(LARGEST_DENOMINATOR)
    assert abs(float(exact) - raised) < 1e-12
    assert distance_to_tie(exact) >= Fraction(1, 2 * LARGEST_DENOMINATOR)
    assert ratio * (1 - 1e-12) <= raised <= ratio * 1.004


def test_some_sums_are_on_a_border_where_the_ratio_is_any_number() -> None:
    sums = np.arange(20_000)
    halves = np.abs(np.abs(sums * 0.0125 % 1) - 0.5) < 1e-9
    assert halves.any()
    assert not (np.abs(np.abs(sums * raise_ratios(np.array([0.0125])) % 1) - 0.5) < 1e-5).any()


def test_a_ratio_too_small_for_a_safe_denominator_stays() -> None:
    np.testing.assert_array_equal(raise_ratios(np.array([1e-9])), [1e-9])


@given(st.floats(0, 8))
def test_steps_of_the_common_denominator_are_next_to_the_ratio(ratio: float) -> None:
    assert abs(count_steps(ratio) / DENOMINATOR - ratio) <= 1 / DENOMINATOR
    assert count_steps(ratio) >= 1
    assert DENOMINATOR % 2 == 1
