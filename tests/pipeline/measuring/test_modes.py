import numpy as np
import pytest

from pipeline.measuring.modes import find_modes


@pytest.mark.parametrize("slow_share", [0.1, 0.5])
def test_two_modes_are_found_with_their_shares(slow_share):
    rng = np.random.default_rng(0)
    samples = 1e6 * np.where(rng.random(8000) < slow_share, 1.5, 1.0) * rng.lognormal(0, 0.05, 8000)
    modes = find_modes(samples)
    assert modes is not None
    assert (modes.fast, modes.slow) == pytest.approx((1e6, 1.5e6), rel=0.03)
    assert modes.slow_share == pytest.approx(slow_share, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_one_mode_with_a_long_tail_is_one(seed):
    rng = np.random.default_rng(seed)
    assert find_modes(1e6 * rng.lognormal(0, 0.3, 4000)) is None
    assert find_modes(1e6 * (1 + 0.1 * rng.pareto(2, 4000))) is None


def test_constant_samples_have_no_two_modes():
    assert find_modes(np.full(1000, 5)) is None
