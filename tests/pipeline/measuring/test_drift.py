import numpy as np
import pytest

from pipeline.measuring.drift import find_drift


def sample(num_processes: int, shape=lambda share: np.ones_like(share), spread: float = 0.0) -> list[np.ndarray]:
    """Return lognormal processes of 500 samples, times a function of the share of the run that is over."""
    rng = np.random.default_rng(0)
    over = np.linspace(0, 1, 500 * num_processes).reshape(num_processes, -1)
    return [1e6 * shape(each) * rng.lognormal(0, 0.1, each.size) * rng.lognormal(0, spread) for each in over]


@pytest.mark.parametrize(
    ("shape", "share"),
    [(lambda t: 1 + 0.1 * t, 0.1), (lambda t: 1 - 0.1 * t, -0.1), (lambda t: 1 + 0.1 * (t > 0.3), 0.1)],
    ids=["ramp", "ramp down", "step"],
)
@pytest.mark.parametrize("num_processes", [1, 4, 12, 40])
def test_what_goes_somewhere_is_found_with_its_size(shape, share, num_processes):
    drift = find_drift(sample(num_processes, shape))
    assert drift is not None
    assert drift.share == pytest.approx(share, abs=0.05)


def test_what_each_process_does_anew_is_found():
    drift = find_drift(sample(12, lambda t: 1 + 0.1 * (12 * t % 1)))
    assert drift is not None
    assert drift.what == "median, within a process" or drift.what == "p90, within a process"
    assert drift.share == pytest.approx(0.1, abs=0.03)


def test_processes_that_differ_do_not_drift():
    assert find_drift(sample(12, spread=0.1)) is None


def test_a_process_that_ended_early_is_no_witness():
    steady = sample(12)
    assert find_drift([*steady, 3 * steady[0][:20]]) == find_drift(steady)
