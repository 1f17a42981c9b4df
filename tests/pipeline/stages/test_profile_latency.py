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
    """A device with a clock of its own: median 1 ms, p99 2.01 ms, 0.5 s to start a process."""

    median_ms: float = 1.0
    start_s: float = 0.5
    requests: list[ProfileRequest] = field(default_factory=list)
    now_s: float = 0.0

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        self.requests.append(request)
        process = len(self.requests)
        samples_ms = self.median_ms * np.random.default_rng(process).lognormal(0, 0.3, request.num_samples)
        ends_s = np.cumsum(samples_ms) / 1e3
        size = max(1, int(np.searchsorted(ends_s, request.max_seconds)))
        self.now_s += self.start_s + float(ends_s[size - 1])
        samples_ns = (samples_ms[:size] * 1e6).astype(np.int64)
        return ProfileBlock(samples_ns, 10, 30.0 + process, 9000 + process, 4000, (), (), {"process": process})


def profile(device: Lognormal, budget: LatencyBudget | None, **protocol: float | str) -> LatencyProfile:
    settings = Protocol.model_validate(protocol)
    return profile_latency(
        Path("model.onnx"),
        Null(),
        device,
        RunOptions(),
        budget=budget,
        protocol=settings,
        clock=lambda: device.now_s,
    )


def test_a_budget_far_below_fails_after_a_third_of_the_processes():
    assert profile(Lognormal(), LatencyBudget(max_ms=0.1)).block_sizes == (683,) * 4


def test_a_budget_far_above_passes_after_all_of_them():
    found = profile(Lognormal(), LatencyBudget(max_ms=8))
    assert (found.block_sizes, found.looks) == ((683,) * 12, 2)  # 12 * 683 is the first number above 8192
    assert 12 * (0.5 + 0.6) < found.seconds < 12 * (0.5 + 0.8)


def test_a_close_budget_takes_twice_as_many_processes_at_each_look():
    found = profile(Lognormal(), LatencyBudget(max_ms=2.06))
    assert len(found.block_sizes) in (24, 48)
    assert found.looks == {24: 3, 48: 4}[len(found.block_sizes)]


def test_later_processes_sample_as_long_as_they_take_to_start():
    sizes = profile(Lognormal(start_s=2), LatencyBudget(max_ms=2.01)).block_sizes
    assert sizes[:12] == (683,) * 12
    assert all(size == pytest.approx(2000, rel=0.1) for size in sizes[12:-1])  # of 1 ms, in 2 s


def test_a_slow_model_ends_in_time_and_shares_it_among_processes():
    found = profile(Lognormal(median_ms=20), LatencyBudget(max_ms=100), max_seconds=60)
    assert found.seconds < 60
    assert len(found.block_sizes) >= 12
    assert min(found.block_sizes[:12]) > 150


def test_one_process_is_sampled_however_little_time_there_is():
    assert len(profile(Lognormal(), LatencyBudget(max_ms=2), max_seconds=0.1).block_sizes) == 1


def test_without_a_budget_the_processes_of_the_protocol_are_enough():
    found = profile(Lognormal(), None, min_samples=1200)
    assert (found.block_sizes, found.looks) == ((100,) * 12, 1)


def test_sustained_takes_all_of_its_time():
    assert 58 < profile(Lognormal(), LatencyBudget(max_ms=8), mode="sustained").seconds <= 61


def test_a_cold_start_is_one_sample_a_process():
    found = profile(Lognormal(), LatencyBudget(max_ms=8, percentile=50), mode="cold_start")
    assert found.block_sizes == (1,) * len(found.block_sizes)


def test_only_the_first_process_cools_down_and_weighs_energy():
    device = Lognormal()
    profile(device, LatencyBudget(max_ms=8), start_below_c=50)
    gates = [(request.start_below_c, request.energy_seconds) for request in device.requests]
    assert gates == [(50, 3), *[(None, 0)] * 11]


def test_facts_of_every_process_are_kept():
    found = profile(Lognormal(), LatencyBudget(max_ms=8))
    assert found.load_ms == tuple(30.0 + process for process in range(1, 13))
    assert (found.peak_bytes, found.warmup_runs) == (9012, 120)
    assert found.context == {"process": 1, "last_process": {"process": 12}}


def test_progress_tells_samples_and_seconds():
    told = []
    device = Lognormal()
    profile_latency(
        Path("m"),
        Null(),
        device,
        RunOptions(),
        on_progress=lambda samples, seconds: told.append((samples, seconds)),
        clock=lambda: device.now_s,
    )
    assert [samples for samples, _ in told] == [683 * process for process in range(1, 13)]
    assert told[-1][1] == device.now_s


def test_end_to_end_needs_processing():
    with pytest.raises(UsageError, match="scope end_to_end: expected the model's pre- and post-processing; got none"):
        profile(Lognormal(), LatencyBudget(max_ms=1, scope="end_to_end"))
