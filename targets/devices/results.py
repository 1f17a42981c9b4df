"""What actions on a device give back, and what they take.

Rule: values alone; how they come about is the device's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np

from targets.devices.facts import DeviceFacts
from targets.runner.energy import EnergyRun
from targets.runner.sensors import Trace
from targets.target import Layer, RunOptions, TensorSpec


@dataclass(frozen=True)
class Compiled:
    """What compiling found out; the artifact itself is where the caller wanted it."""

    runtime_version: str
    layers: Tuple[Layer, ...]
    """In execution order; empty where `facts.context["layers"]` says why they are unavailable."""
    facts: DeviceFacts


@dataclass(frozen=True)
class ProfileBlock:
    """Raw samples of one fresh process."""

    samples_ns: np.ndarray
    """int64, in the order taken."""
    warmup_runs: int
    load_ms: float
    """From the artifact's file to a session that can infer; the runtime is imported before."""
    peak_bytes: int
    """Largest resident memory of the process."""
    baseline_bytes: int
    """The same with the runtime imported and no model loaded."""
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    context: Dict[str, object]
    """What the device said of itself; `before` and `after` hold the sensors."""
    trace: Trace = field(default_factory=Trace)
    """The sensors while it was timed."""
    energy: Optional[EnergyRun] = None
    """Power at rest and while inferring; None where `request.energy_seconds` did not ask for it."""
    waited_s: float = 0.0
    """For the device to cool down, and to weigh its energy."""
    inferences_per_s: Optional[float] = None
    """Of all streams together, in the mode `throughput`."""


@dataclass(frozen=True)
class Entrant:
    """One of several artifacts whose latencies are compared."""

    artifact: Path
    options: RunOptions


@dataclass(frozen=True)
class Turns:
    """What one of them gave."""

    samples_ns: Tuple[np.ndarray, ...]
    """int64, of each round; none where it was refused."""
    refusal: Optional[str] = None
    """Why the runtime does not run it."""
