"""Which rows calibrate: each choice does what its name says, the same for the same seed."""

import numpy as np
import pytest

from calibration.samples import Choice, choose_samples

LABELS = np.repeat([0, 1, 2, 3], [70, 20, 7, 3])
FEATURES = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)


def chosen(choice: Choice, num: int, seed: int = 0) -> list[int]:
    return choose_samples(choice, num, 100, seed=seed, labels=LABELS, features=FEATURES).tolist()


@pytest.mark.parametrize("choice", ["first", "random", "balanced", "diverse"])
def test_rows_are_different_repeatable_and_fewer_begin_more(choice: Choice) -> None:
    assert sorted(chosen(choice, 1000)) == list(range(100))
    assert chosen(choice, 30) == chosen(choice, 60)[:30]
    assert (chosen(choice, 30) == chosen(choice, 30, seed=1)) == (choice == "first")


def test_first_is_the_beginning() -> None:
    assert chosen("first", 4) == [0, 1, 2, 3]


def test_balanced_takes_equally_many_of_each_class_as_far_as_it_has_them() -> None:
    assert np.bincount(LABELS[chosen("balanced", 12)]).tolist() == [3, 3, 3, 3]
    assert np.bincount(LABELS[chosen("balanced", 40)]).tolist() == [15, 15, 7, 3]


def test_diverse_covers_within_twice_the_best_radius() -> None:
    """Four tight clusters far apart: four samples must take one of each."""
    centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], np.float32)
    points = centres[LABELS] + np.random.default_rng(1).uniform(-0.1, 0.1, (100, 2)).astype(np.float32)
    rows = choose_samples("diverse", 4, 100, seed=3, features=points)
    assert sorted(LABELS[rows].tolist()) == [0, 1, 2, 3]


def test_what_a_choice_needs_is_named() -> None:
    with pytest.raises(ValueError, match="balanced: expected labels for 9 images; got none: give them, or choose rand"):
        choose_samples("balanced", 3, 9, seed=0)
    with pytest.raises(ValueError, match="diverse: expected features for 9 images; got 100"):
        choose_samples("diverse", 3, 9, seed=0, features=FEATURES)
