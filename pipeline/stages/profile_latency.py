"""Stage: samples the latency of a model on a device until its budget is decided or time is up.

Rule: a measurement is never served from the store; every block of samples comes from a fresh process.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol as Seam

import numpy as np

from pipeline.artifacts import CompiledModel, LatencyProfile
from pipeline.budget import DEFAULT_PROTOCOL, LatencyBudget, Protocol
from pipeline.errors import UsageError
from pipeline.measuring.sequential import count_above, decide
from pipeline.measuring.verdict import Verdict
from targets.devices.device import ProfileBlock, ProfileRequest
from targets.processing import Processing
from targets.target import RunOptions, Target

SAMPLES_FOR_P99_INTERVAL = 368
"""The fewest with which the two-sided 95 % interval of the p99 has both ends: 0.99**n <= 0.025."""


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
) -> LatencyProfile:
    """Sample block after block; each doubles the total, and after each the budget is looked at.

    Stops as soon as the budget is decided or `protocol.max_seconds` have passed; a slow model gives what it has.
    Without a budget there is one block, large enough for the interval of the p99 where time allows.

    Args:
        model: What to time: a compiled model, or the path of an artifact.
        target: The runtime that it was compiled by.
        device: Where to time it.
        options: Threads and the float type that is pinned.
        budget: What the looks decide; also gives the scope.
        protocol: Size of the first block and the time limit.
        processing: Pre- and post-processing, for the scope `end_to_end`.
        shapes: Input shapes by name, where the model leaves dimensions open.
        on_progress: Called after each block with the number of samples and the seconds so far.

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
        scope=scope, shapes=dict(shapes or {}), processing=processing if scope == "end_to_end" else None
    )
    first_size = protocol.min_samples if budget else max(protocol.min_samples, SAMPLES_FOR_P99_INTERVAL)
    measured_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    blocks: list[ProfileBlock] = []
    remaining_s = protocol.max_seconds
    while remaining_s > 0:
        block_started = time.monotonic()
        sized = replace(request, num_samples=_num_samples(blocks) or first_size, max_seconds=remaining_s)
        blocks.append(device.profile(target, artifact, options, sized))
        now = time.monotonic()
        if on_progress:
            on_progress(_num_samples(blocks), now - started)
        if budget is None or _look(blocks, budget) is not Verdict.UNDECIDED:
            break
        cost_of_a_process_s = now - block_started - float(blocks[-1].samples_ns.sum()) / 1e9
        remaining_s = protocol.max_seconds - (now - started) - cost_of_a_process_s
    seconds = time.monotonic() - started
    return _gather(blocks, options, protocol, scope=scope, seconds=seconds, measured_at=measured_at)


def _num_samples(blocks: list[ProfileBlock]) -> int:
    return sum(block.samples_ns.size for block in blocks)


def _look(blocks: list[ProfileBlock], budget: LatencyBudget) -> Verdict:
    num_above = sum(count_above(block.samples_ns, budget.max_ms) for block in blocks)
    return decide(_num_samples(blocks), num_above, budget.percentile, look=len(blocks))


def _gather(
    blocks: list[ProfileBlock],
    options: RunOptions,
    protocol: Protocol,
    *,
    scope: str,
    seconds: float,
    measured_at: str,
) -> LatencyProfile:
    samples_ns = np.concatenate([block.samples_ns for block in blocks])
    sizes = tuple(block.samples_ns.size for block in blocks)
    context = dict(blocks[0].context)
    if len(blocks) > 1:
        context["last_process"] = blocks[-1].context
    return LatencyProfile(
        scope=scope,
        samples_ns=samples_ns,
        block_sizes=sizes,
        warmup_runs=sum(block.warmup_runs for block in blocks),
        load_ms=tuple(block.load_ms for block in blocks),
        peak_bytes=max(block.peak_bytes for block in blocks),
        baseline_bytes=max(block.baseline_bytes for block in blocks),
        seconds=seconds,
        threads=options.threads,
        protocol=_in_words(options, protocol, scope),
        context=context,
        measured_at=measured_at,
    )


def _in_words(options: RunOptions, protocol: Protocol, scope: str) -> str:
    return (
        f"each inference timed host to host, scope {scope}, {options.threads} thread(s), floats pinned to "
        f"{options.precision}; every block from a fresh process, warmed up until steady; first block "
        f"{protocol.min_samples} samples, then the total doubles until the budget is decided or "
        f"{protocol.max_seconds:g} s have passed"
    )
