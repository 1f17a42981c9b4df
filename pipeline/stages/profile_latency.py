"""Stage: samples the latency of a model on a device until its budget is decided or time is up.

Rule: a measurement is never served from the store; every block of samples comes from a fresh process.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from statistics import median
from typing import Protocol as Seam

import numpy as np

from pipeline.artifacts import CompiledModel, LatencyProfile
from pipeline.budget import DEFAULT_PROTOCOL, LatencyBudget, Protocol
from pipeline.errors import UsageError
from pipeline.measuring.assess import assess
from pipeline.measuring.verdict import Verdict
from targets.devices.device import ProfileBlock, ProfileRequest
from targets.processing import Processing
from targets.target import RunOptions, Target

EARLIEST_LOOK = 3
"""Part of a protocol's processes after which a budget can fail; to pass takes all of them."""
LARGEST_GROWTH = 16
"""How much larger than the first blocks later ones may be: they sample about as long as a process takes to start."""
MOST_SAMPLES = 2_000_000
"""More would decide nothing that these leave open."""
WORTH_STARTING = 1.5
"""How much of what a process takes to start must be left of the time for another one."""
SAMPLING_SHARE = 0.8
"""Of a process's time; the rest is its warm-up's, which may take a quarter of the sampling's."""


class Profiler(Seam):
    """The part of a device that this stage needs."""

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        """Time a model in one fresh process."""
        ...


def profile_latency(
    model: CompiledModel | Path,
    target: Target,
    device: Profiler,
    options: RunOptions,
    *,
    budget: LatencyBudget | None = None,
    protocol: Protocol = DEFAULT_PROTOCOL,
    processing: Processing | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LatencyProfile:
    """Sample process after process; the budget is looked at after a third of the protocol's, all, twice as many, ...

    Stops as soon as the budget is decided or `protocol.max_seconds` have passed; a slow model gives what it has. The
    first look can only fail a budget, since what is rare takes samples to be seen. Without a budget there are the
    protocol's processes. The mode `sustained` takes all of its time.

    Args:
        model: What to time: a compiled model, or the path of an artifact.
        target: The runtime that it was compiled by.
        device: Where to time it.
        options: Threads and the float type that is pinned.
        budget: What the looks decide; also gives the scope.
        protocol: The mode, how many samples and processes are enough, and the time limit.
        processing: Pre- and post-processing, for the scope `end_to_end`.
        shapes: Input shapes by name, where the model leaves dimensions open.
        on_progress: Called after each process with the number of samples and the seconds so far.
        clock: Tells the seconds; another one than the host's in simulations.

    Raises:
        UsageError: The scope is `end_to_end`, and no processing was given.
        DeviceError: As the device raises.
    """
    scope = budget.scope if budget else "model"
    if scope == "end_to_end" and processing is None:
        raise UsageError(
            "profile_latency: scope end_to_end: expected the model's pre- and post-processing; got none; "
            'give it, or set the budget\'s scope to "model"'
        )
    artifact = model.path if isinstance(model, CompiledModel) else model
    request = ProfileRequest(
        scope=scope,
        shapes=dict(shapes or {}),
        processing=processing if scope == "end_to_end" else None,
        mode=protocol.mode,
        streams=protocol.streams,
    )
    measured_at, started = datetime.now(UTC).isoformat(timespec="seconds"), clock()
    sampling = _Sampling(protocol, budget)
    while sampling.goes_on():
        block_started = clock()
        block = device.profile(target, artifact, options, sampling.next_request(request))
        sampling.add(block, clock() - block_started)
        if on_progress:
            on_progress(sampling.num_samples, clock() - started)
    return _gather(sampling, options, scope=scope, seconds=clock() - started, measured_at=measured_at)


@dataclass
class _Sampling:
    """What has been sampled, and what to sample next."""

    protocol: Protocol
    budget: LatencyBudget | None
    blocks: list[ProfileBlock] = field(default_factory=list)
    spent_s: float = 0.0
    """Of the protocol's time: without cooling down and reading power."""
    cost_s: float = 0.0
    """What a process took beside its samples."""
    looks: int = 0
    looked_at: int = 0
    """Processes at the last look."""
    is_decided: bool = False

    @property
    def num_samples(self) -> int:
        return sum(block.samples_ns.size for block in self.blocks)

    def goes_on(self) -> bool:
        if not self.blocks:
            return True
        if self.is_decided or self.num_samples >= MOST_SAMPLES:
            return False
        if self.budget is None and self.protocol.mode != "sustained" and len(self.blocks) >= self.protocol.processes:
            return False
        return self.protocol.max_seconds - self.spent_s > WORTH_STARTING * self.cost_s

    def next_request(self, request: ProfileRequest) -> ProfileRequest:
        """Return the request of the next process: those of a round have the same share of the time."""
        is_first, left_s = not self.blocks, self.protocol.max_seconds - self.spent_s
        in_first_round = len(self.blocks) < self.protocol.processes
        left = (self.protocol.processes if in_first_round else self._next_look()) - len(self.blocks)
        affordable = int(left_s / (2 * self.cost_s)) if self.cost_s else left  # half of the time for sampling
        share_s = left_s / max(1, min(left, affordable)) - self.cost_s
        return replace(
            request,
            num_samples=self._size(),
            max_seconds=max(SAMPLING_SHARE * share_s, 1e-3),
            energy_seconds=self.protocol.energy_seconds if is_first else 0.0,
            start_below_c=self.protocol.start_below_c if is_first else None,
            cool_down_seconds=self.protocol.cool_down_seconds,
        )

    def add(self, block: ProfileBlock, seconds: float) -> None:
        """Count a process, and look where it is time to."""
        sampled_s = float(block.samples_ns.sum()) / 1e9 / self.protocol.streams
        self.blocks.append(block)
        self.spent_s += seconds - block.waited_s
        self.cost_s = max(0.0, seconds - block.waited_s - sampled_s)
        if len(self.blocks) == self._next_look() and self.budget is not None and self.protocol.mode != "sustained":
            self.looks, self.looked_at = self.looks + 1, len(self.blocks)
            self.is_decided = self._is_decided(self.budget)

    def _is_decided(self, budget: LatencyBudget) -> bool:
        blocks = [block.samples_ns for block in self.blocks]
        found = assess(blocks, budget.percentile, limit_ms=budget.max_ms, look=self.looks)
        has_enough = len(blocks) >= self.protocol.processes and self.num_samples >= self.protocol.min_samples
        return found.verdict is Verdict.FAIL or (found.verdict is Verdict.PASS and has_enough)

    def _next_look(self) -> int:
        if self.looks == 0:
            return max(1, self.protocol.processes // EARLIEST_LOOK)
        return max(self.protocol.processes, 2 * self.looked_at if self.looks > 1 else 0, self.looked_at + 1)

    def _size(self) -> int:
        """Return how many samples: the first processes share `min_samples`, later ones sample as long as they start."""
        first = ceil(self.protocol.min_samples / self.protocol.processes)
        if self.protocol.mode == "cold_start":
            return 1
        if len(self.blocks) < self.protocol.processes:
            return first
        latency_s = float(np.median(self.blocks[-1].samples_ns)) / 1e9
        return int(min(max(self.cost_s / max(latency_s, 1e-9), first), LARGEST_GROWTH * first))


def _gather(
    sampling: _Sampling, options: RunOptions, *, scope: str, seconds: float, measured_at: str
) -> LatencyProfile:
    blocks, protocol = sampling.blocks, sampling.protocol
    context = dict(blocks[0].context)
    if len(blocks) > 1:
        context["last_process"] = blocks[-1].context
    rates = [block.inferences_per_s for block in blocks if block.inferences_per_s is not None]
    return LatencyProfile(
        scope=scope,
        samples_ns=np.concatenate([block.samples_ns for block in blocks]),
        block_sizes=tuple(block.samples_ns.size for block in blocks),
        warmup_runs=sum(block.warmup_runs for block in blocks),
        load_ms=tuple(block.load_ms for block in blocks),
        peak_bytes=max(block.peak_bytes for block in blocks),
        baseline_bytes=max(block.baseline_bytes for block in blocks),
        seconds=seconds,
        threads=options.threads,
        protocol=_in_words(options, protocol, scope),
        context=context,
        measured_at=measured_at,
        traces=tuple(block.trace for block in blocks),
        energy=tuple(block.energy for block in blocks if block.energy is not None),
        looks=sampling.looks + (sampling.looked_at < len(blocks)),
        mode=protocol.mode,
        inferences_per_s=median(rates) if rates else None,
    )


def _in_words(options: RunOptions, protocol: Protocol, scope: str) -> str:
    timed = {
        "cold_start": "timed from the start of a process to the end of its first inference",
        "throughput": f"each inference timed host to host while {protocol.streams} stream(s) infer at once",
    }.get(protocol.mode, "each inference timed host to host")
    ends = (
        f"for {protocol.max_seconds:g} s"
        if protocol.mode == "sustained"
        else f"until the budget is decided or {protocol.max_seconds:g} s have passed"
    )
    gate = "" if protocol.start_below_c is None else f", begun below {protocol.start_below_c:g} C"
    shared = f"warmed up until steady, that share {protocol.min_samples:,} samples among the first {protocol.processes}"
    return (
        f"{protocol.mode.replace('_', ' ')}: {timed}, scope {scope}, {options.threads} thread(s), floats pinned to "
        f"{options.precision}; fresh processes, {'one sample each' if protocol.mode == 'cold_start' else shared}; "
        f"{ends}{gate}"
    )
