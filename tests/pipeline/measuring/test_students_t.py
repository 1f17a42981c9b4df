import math

import pytest

from pipeline.measuring.students_t import quantile, two_sided


@pytest.mark.parametrize(
    ("tail", "freedom", "expected"),
    [(0.025, 1, 12.706), (0.025, 10, 2.228), (0.005, 30, 2.750), (0.025, 120, 1.980)],  # any table of Student's t
)
def test_quantiles_are_those_of_the_tables(tail, freedom, expected):
    assert quantile(tail, freedom) == pytest.approx(expected, abs=5e-4)


def test_one_degree_of_freedom_is_cauchy():
    assert two_sided(3.0, 1) == pytest.approx(1 - 2 * math.atan(3.0) / math.pi)


def test_no_chance_is_left_for_infinity():
    assert two_sided(math.inf, 5) == 0
