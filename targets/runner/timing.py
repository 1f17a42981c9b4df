"""The one timing loop: every runtime's latency is sampled here, and nowhere else.

Rule: devices carry this file: Python 3.8, standard library and NumPy only. Raw samples leave it, never statistics.
"""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

WINDOW = 16
"""Runs in a window of the warm-up."""
MAX_WINDOWS = 64
TOLERANCE = 0.05


@dataclass(frozen=True)
class WarmUp:
    """How long the warm-up took, and whether the latency was steady at its end."""

    runs: int
    is_steady: bool


def warm_up(infer: Callable[[], object], max_seconds: float, clock: Callable[[], int] = time.perf_counter_ns) -> WarmUp:
    """Infer until the latency is steady (`is_steady` over windows of 16 runs).

    At least 1 run; at most 1024, or as many as start within `max_seconds`.
    """
    deadline = clock() + int(max_seconds * 1e9)
    medians: List[float] = []
    window: List[int] = []
    runs = 0
    while len(medians) < MAX_WINDOWS:
        start = clock()
        infer()
        end = clock()
        runs += 1
        window.append(end - start)
        if len(window) == WINDOW:
            medians.append(statistics.median(window))
            window = []
            if is_steady(medians):
                return WarmUp(runs, is_steady=True)
        if end >= deadline:
            break
    return WarmUp(runs, is_steady=False)


def is_steady(medians: Sequence[float]) -> bool:
    """Tell whether the last three windows agree: within 5 % of each other, and not each faster than the one before."""
    if len(medians) < 3:
        return False
    first, second, third = medians[-3:]
    is_falling = first > second > third
    return max(first, second, third) <= (1 + TOLERANCE) * min(first, second, third) and not is_falling


def sample_latency(
    infer: Callable[[], object],
    num_samples: int,
    max_seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> np.ndarray:
    """Return the nanoseconds of each inference, int64, in the order taken.

    Exactly `num_samples`, unless `max_seconds` end first; at least one. The garbage collector rests meanwhile.
    """
    samples_ns = np.empty(num_samples, np.int64)
    deadline = clock() + int(max_seconds * 1e9)
    is_collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(num_samples):
            start = clock()
            infer()
            end = clock()
            samples_ns[index] = end - start
            if end >= deadline:
                return samples_ns[: index + 1].copy()
    finally:
        if is_collecting:
            gc.enable()
    return samples_ns


def sample_streams(
    inferences: Sequence[Callable[[], object]], num_samples: int, max_seconds: float
) -> Tuple[np.ndarray, float]:
    """Return the nanoseconds of each inference while all streams infer at once, and how many ended in a second.

    Each stream is a thread; runtimes give others the interpreter while they compute. The rate is of the time in which
    all streams were at work.
    """
    share = -(-num_samples // len(inferences))
    taken: List[List[int]] = [[] for _ in inferences]
    ends: List[List[int]] = [[] for _ in inferences]
    begin = threading.Barrier(len(inferences))
    failures: List[BaseException] = []

    def infer_on(index: int) -> None:
        begin.wait()
        deadline = time.perf_counter_ns() + int(max_seconds * 1e9)
        try:
            while len(taken[index]) < share:
                start = time.perf_counter_ns()
                inferences[index]()
                end = time.perf_counter_ns()
                taken[index].append(end - start)
                ends[index].append(end)
                if end >= deadline:
                    break
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for this one
            failures.append(error)

    threads = [threading.Thread(target=infer_on, args=(index,), daemon=True) for index in range(len(inferences))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    first = max(stream[0] - samples[0] for stream, samples in zip(ends, taken))
    last = min(stream[-1] for stream in ends)
    ended = sum(first < end <= last for stream in ends for end in stream)
    order = np.argsort(np.concatenate([np.array(stream, np.int64) for stream in ends]), kind="stable")
    samples_ns = np.concatenate([np.array(samples, np.int64) for samples in taken])[order]
    return samples_ns, ended / ((last - first) / 1e9) if last > first else 0.0


def read_age_ns(root: Path = Path("/")) -> Optional[int]:
    """Return the time since this process began, to the kernel's clock tick (10 ms); None elsewhere than on Linux."""
    try:
        fields = (root / "proc/self/stat").read_text().rpartition(")")[2].split()
        began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return int((time.clock_gettime(time.CLOCK_BOOTTIME) - began_s) * 1e9)
    except (AttributeError, OSError, ValueError, IndexError):
        return None
