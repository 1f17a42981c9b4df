import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from targets.runner.timing import is_steady, read_age_ns, sample_latency, sample_streams, warm_up


def ticking_clock(durations_ns: Iterator[int]) -> tuple[Callable[[], object], Callable[[], int]]:
    """Return an inference that takes these times, and the clock on which it does."""
    now = [0]

    def infer() -> None:
        now[0] += next(durations_ns)

    return infer, lambda: now[0]


def test_samples_are_the_raw_times_in_order() -> None:
    infer, clock = ticking_clock(iter([5, 3, 9, 1]))
    samples_ns = sample_latency(infer, 4, max_seconds=1, clock=clock)
    assert samples_ns.dtype == np.int64
    assert samples_ns.tolist() == [5, 3, 9, 1]


def test_sampling_stops_at_its_time_limit_with_one_sample_at_least() -> None:
    infer, clock = ticking_clock(repeat(2_000_000_000))
    assert sample_latency(infer, 100, max_seconds=5, clock=clock).tolist() == [2_000_000_000] * 3
    assert len(sample_latency(infer, 100, max_seconds=0.001, clock=clock)) == 1


def test_the_garbage_collector_rests_while_sampling_and_works_again_after() -> None:
    seen = []
    sample_latency(lambda: seen.append(gc.isenabled()), 3, max_seconds=60)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_a_constant_latency_is_steady_after_three_windows_of_16() -> None:
    infer, clock = ticking_clock(repeat(1000))
    warm = warm_up(infer, max_seconds=1, clock=clock)
    assert (warm.runs, warm.is_steady) == (48, True)


def test_slow_first_runs_are_warmed_away() -> None:
    # Window medians 9000, 3000, then 1000: the first three that agree are windows 3, 4, 5.
    infer, clock = ticking_clock(chain(repeat(9000, 16), repeat(3000, 16), repeat(1000)))
    assert warm_up(infer, max_seconds=1, clock=clock).runs == 5 * 16


def test_a_latency_that_keeps_falling_slowly_is_not_steady() -> None:
    assert not is_steady([100.0, 99.0, 98.0])
    assert is_steady([99.0, 100.0, 98.0])
    assert not is_steady([100.0, 106.0, 100.0])


def test_a_warm_up_that_is_never_steady_ends_and_says_so() -> None:
    infer, clock = ticking_clock(1000 * 2 ** (i // 16) for i in range(10_000))
    warm = warm_up(infer, max_seconds=0.01, clock=clock)
    assert not warm.is_steady
    assert 1 <= warm.runs <= 1024


def test_streams_infer_at_once_and_share_the_samples() -> None:
    samples_ns, rate = sample_streams([lambda: time.sleep(0.01)] * 4, 40, max_seconds=60)
    assert samples_ns.size == 40
    assert samples_ns.min() >= 10_000_000
    assert 100 < rate <= 400  # one stream alone would reach 100


def test_a_stream_that_fails_fails_the_measurement() -> None:
    def refuse() -> None:
        raise ValueError("no more memory")

    with pytest.raises(ValueError, match="no more memory"):
        sample_streams([lambda: None, refuse], 10, max_seconds=1)


def test_the_age_of_a_process_counts_from_its_start() -> None:
    source = "import time; from targets.runner.timing import read_age_ns; time.sleep(0.3); print(read_age_ns())"
    started = time.monotonic()
    printed = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert 0.3e9 <= int(printed) <= (time.monotonic() - started) * 1e9 + 1e7  # one tick of the kernel's clock


def test_where_the_kernel_does_not_tell_the_age_is_unknown(tmp_path: Path) -> None:
    assert read_age_ns(tmp_path) is None
