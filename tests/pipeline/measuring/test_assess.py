import numpy as np
import pytest

from pipeline.measuring.assess import assess
from pipeline.measuring.verdict import Verdict

P99_MS = float(np.exp(0.1 * 2.3263478740408408))


def processes(number: int, size: int = 683, spread: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """Return lognormal latencies of median 1 ms, in ns."""
    rng = np.random.default_rng(seed)
    return [1e6 * rng.lognormal(0, spread) * rng.lognormal(0, 0.1, size) for _ in range(number)]


def test_twelve_processes_give_an_interval_that_holds_the_truth():
    found = assess(processes(12), 99, limit_ms=1.05 * P99_MS, look=1)
    assert found.verdict is Verdict.PASS
    assert found.interval_ms is not None
    assert found.interval_ms[0] < P99_MS < found.interval_ms[1]


def test_a_few_processes_decide_what_is_far_and_give_no_interval():
    assert assess(processes(4, size=1000), 99, limit_ms=2.0, look=1).verdict is Verdict.PASS  # 4000 in bursts of 10
    assert assess(processes(4), 99, limit_ms=0.5, look=1).verdict is Verdict.FAIL
    near = assess(processes(4), 99, limit_ms=1.1 * P99_MS, look=1)
    assert (near.verdict, near.interval_ms) == (Verdict.UNDECIDED, None)
    assert near.margin == pytest.approx(1.25, abs=0.01)  # 1 + 1/4: the stretches differ by less


def test_processes_that_differ_are_worth_fewer_samples():
    alike, unlike = assess(processes(24), 99), assess(processes(24, spread=0.1), 99)
    assert unlike.effective_samples < alike.effective_samples / 5


def test_a_drift_leaves_everything_open_but_what_is_ten_times_as_far():
    drifting = [block * (1 + 0.01 * index) for index, block in enumerate(processes(12))]
    for limit_ms in (0.8, 1.5):
        found = assess(drifting, 99, limit_ms=limit_ms)
        assert (found.verdict, found.interval_ms) == (Verdict.UNDECIDED, None)
        assert found.drift is not None
    assert assess(drifting, 99, limit_ms=10).verdict is Verdict.PASS


def test_one_slow_process_in_four_fails_nothing_and_passes_nothing():
    blocks = [*processes(3), 3 * processes(1)[0]]
    assert assess(blocks, 99, limit_ms=2.5).verdict is Verdict.UNDECIDED


def test_a_single_sample_says_nothing():
    found = assess([np.array([1_000_000])], 99, limit_ms=5)
    assert (found.verdict, found.interval_ms, found.measured_ns) == (Verdict.UNDECIDED, None, 1_000_000)


def test_a_median_needs_few_samples():
    found = assess(processes(12, size=50), 50, limit_ms=1.1)
    assert found.verdict is Verdict.PASS
    assert found.interval_ms == pytest.approx((1.0, 1.0), abs=0.05)
