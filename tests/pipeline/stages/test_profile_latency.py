import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import LatencyProfile
from pipeline.budget import LatencyBudget, Protocol
from pipeline.errors import UsageError
from pipeline.stages.profile_latency import profile_latency
from targets import Null
from targets.devices.device import ProfileBlock, ProfileRequest
from targets.target import RunOptions, Target


@dataclass
class Lognormal:
    """A device whose latencies are drawn: median 1 ms, p99 2.01 ms; each sample really takes `seconds_each`."""

    seconds_each: float = 0.0
    requests: list[ProfileRequest] = field(default_factory=list)

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        self.requests.append(request)
        size = request.num_samples
        if self.seconds_each:
            size = max(1, min(size, int(request.max_seconds / self.seconds_each)))
        time.sleep(size * self.seconds_each)
        rng = np.random.default_rng(len(self.requests))
        samples_ns = (rng.lognormal(0, 0.3, size) * 1e6).astype(np.int64)
        if self.seconds_each:
            samples_ns = np.full(size, int(self.seconds_each * 1e9))
        process = len(self.requests)
        return ProfileBlock(samples_ns, 10, 30.0 + process, 9000 + process, 4000, (), (), {"process": process})


def profile(device: Lognormal, budget: LatencyBudget | None, **protocol: float) -> LatencyProfile:
    settings = Protocol.model_validate(protocol)
    return profile_latency(Path("model.onnx"), Null(), device, RunOptions(), budget=budget, protocol=settings)


def test_a_clear_budget_is_decided_by_the_first_block():
    assert profile(Lognormal(), LatencyBudget(max_ms=4)).block_sizes == (512,)
    assert profile(Lognormal(), LatencyBudget(max_ms=0.0001)).block_sizes == (512,)


def test_a_close_budget_doubles_the_total_block_by_block():
    sizes = profile(Lognormal(), LatencyBudget(max_ms=2.1), min_samples=256).block_sizes
    assert sizes[:4] == (256, 256, 512, 1024)


def test_a_slow_model_ends_in_time_and_gives_what_it_has():
    started = time.monotonic()
    found = profile(Lognormal(seconds_each=0.02), LatencyBudget(max_ms=20), max_seconds=0.3)
    assert 1 <= found.samples_ns.size <= 15
    assert time.monotonic() - started < 0.6  # 0.3 s and what a busy machine adds


def test_later_blocks_are_asked_to_end_in_the_time_that_is_left():
    device = Lognormal(seconds_each=0.001)
    profile(device, LatencyBudget(max_ms=1.0, percentile=50), max_seconds=0.2, min_samples=50)
    limits = [request.max_seconds for request in device.requests]
    assert limits[0] == 0.2
    assert limits == sorted(limits, reverse=True)


def test_without_a_budget_one_block_is_enough_for_the_interval_of_the_p99():
    assert profile(Lognormal(), None, min_samples=10).block_sizes == (368,)


def test_facts_of_every_process_are_kept():
    found = profile(Lognormal(), LatencyBudget(max_ms=2.1), min_samples=256)
    num_processes = len(found.block_sizes)
    assert found.load_ms == tuple(30.0 + process for process in range(1, num_processes + 1))
    assert (found.peak_bytes, found.warmup_runs) == (9000 + num_processes, 10 * num_processes)
    assert found.context == {"process": 1, "last_process": {"process": num_processes}}


def test_progress_tells_samples_and_seconds():
    told = []
    profile_latency(
        Path("m"),
        Null(),
        Lognormal(),
        RunOptions(),
        on_progress=lambda samples, seconds: told.append((samples, seconds)),
    )
    assert [samples for samples, _ in told] == [512]


def test_end_to_end_needs_processing():
    with pytest.raises(UsageError, match="scope end_to_end: expected the model's pre- and post-processing; got none"):
        profile(Lognormal(), LatencyBudget(max_ms=1, scope="end_to_end"))
