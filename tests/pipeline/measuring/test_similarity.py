import math

import numpy as np
import pytest

from pipeline.measuring.similarity import Similarity


def compared(expected: list[float], found: list[float]) -> Similarity:
    similarity = Similarity()
    similarity.add(np.array(expected, np.float32), np.array(found, np.float32))
    return similarity


def test_noise_of_a_tenth_of_the_amplitude_is_20_db():
    assert compared([1, -1, 1, -1], [1.1, -0.9, 1.1, -0.9]).snr_db == pytest.approx(20, abs=1e-4)


def test_parts_add_up_to_the_whole():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 100))
    parts = Similarity()
    for start in (0, 30):
        stop = 30 if start == 0 else 100
        parts.add(first[start:stop], second[start:stop])
    assert parts.cosine == pytest.approx(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    assert parts.max_abs_diff == np.abs(first - second).max()
    assert parts.num_values == 100


def test_equal_tensors_are_exact_and_zeros_have_no_signal():
    assert compared([1, 2], [1, 2]).snr_db == math.inf
    assert compared([0, 0], [0, 0]).cosine == 1
    assert compared([0, 0], [0, 1]).snr_db == -math.inf
    assert compared([0, 0], [0, 1]).cosine == 0
