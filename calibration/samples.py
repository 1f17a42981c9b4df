"""Which images calibrate: rows of a data set, seeded. NumPy, Python 3.8.

Rule: a choice is an order. Fewer samples are the beginning of more, and each beginning is a sound choice itself, so
that a curve over the number of samples means something.
"""

from __future__ import annotations

from typing import Literal, Optional

import numpy as np

Choice = Literal["first", "random", "balanced", "diverse"]
"""How samples are chosen."""


def choose_samples(
    choice: Choice,
    num_samples: int,
    num_available: int,
    *,
    seed: int,
    labels: Optional[np.ndarray] = None,
    features: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Return int64[min(num_samples, num_available)] different rows.

    Args:
        choice: `first` rows; `random` ones; `balanced`: equally many of each class, as far as it has them; `diverse`:
            each the farthest from those before.
        num_samples: how many are wanted.
        num_available: how many rows there are.
        seed: of everything that is drawn.
        labels: classes int64[num_available], for `balanced`.
        features: float[num_available, D], for `diverse`.

    Raises:
        ValueError: the choice needs labels or features, and they are missing or not one a row.
    """
    num = min(num_samples, num_available)
    random = np.random.default_rng(seed)
    if choice == "first":
        return np.arange(num)
    if choice == "random":
        return random.permutation(num_available)[:num]
    if choice == "balanced":
        return _take_turns(_one_a_row("labels", choice, labels, num_available), random)[:num]
    return _spread_out(_one_a_row("features", choice, features, num_available), num, random)


def _one_a_row(name: str, choice: str, values: Optional[np.ndarray], num_available: int) -> np.ndarray:
    if values is None or len(values) != num_available:
        got = "none" if values is None else str(len(values))
        raise ValueError(
            "{}: expected {} for {} images; got {}: give them, or choose random".format(
                choice, name, num_available, got
            )
        )
    return values


def _take_turns(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return all rows, classes taking turns, within a turn and a class in random order."""
    rows = random.permutation(len(labels))
    shuffled = labels[rows]
    by_class = np.argsort(shuffled, kind="stable")
    _, starts, sizes = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    turns = np.empty(len(rows), np.int64)
    turns[by_class] = np.arange(len(rows)) - np.repeat(starts, sizes)
    result: np.ndarray = rows[np.argsort(turns, kind="stable")]
    return result


def _spread_out(features: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
    """Return `num` rows by k-centre greedy (Sener and Savarese 2018, arXiv 1708.00489, algorithm 1).

    The first is drawn; every other has the largest Euclidean distance to its nearest among those before, so that the
    largest distance of any row to the chosen is at most twice the least possible.
    """
    points = np.asarray(features, np.float64).reshape(len(features), -1)
    chosen = np.empty(num, np.int64)
    nearest = np.full(len(points), np.inf)
    row = int(random.integers(len(points)))
    for place in range(num):
        chosen[place] = row
        nearest = np.minimum(nearest, ((points - points[row]) ** 2).sum(axis=1))
        nearest[row] = -1.0  # never twice, even where rows are equal
        row = int(np.argmax(nearest))
    return chosen
