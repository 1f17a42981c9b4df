import numpy as np
import pytest

from pipeline.measuring.proportions import paired_drop, paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("num_correct", "num_samples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_newcombes_table(num_correct, num_samples, low, high):
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson_interval(num_correct, num_samples) == pytest.approx((low, high), abs=5e-5)


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, True, False, False], [both, lost, gained, neither])
    after = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return before, after


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((36, 14, 0, 0), 0.1528, 0.4167)]
)
def test_paired_interval_equals_newcombes_method_10(counts, low, high):
    # Newcombe, Statistics in Medicine 17 (1998) 2635-2650, table II.
    assert paired_interval(*pairs(*counts)) == pytest.approx((low, high), abs=5e-5)


def test_paired_interval_holds_the_true_drop_in_about_95_of_100_test_sets():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):  # 90 % before, 2 points lost and 1 gained: a drop of 1 point
        kind = rng.choice(4, size=2000, p=[0.88, 0.02, 0.01, 0.09])
        low, high = paired_interval(kind <= 1, (kind == 0) | (kind == 2))
        covered += low <= 0.01 <= high
    assert covered >= 930  # 0.95 less 3 standard errors


def test_equal_answers_drop_nothing():
    correct = np.array([True, False, True])
    assert paired_drop(correct, correct) == 0


def test_a_gain_is_a_negative_drop():
    assert paired_drop(np.array([True, False]), np.array([True, True])) == -0.5


def test_no_samples_have_no_interval():
    with pytest.raises(ValueError, match="at least one sample"):
        wilson_interval(0, 0)
