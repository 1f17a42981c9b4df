"""What a benchmark tool's log says. Rule: its statistics stay its own, by its own definition of a percentile.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple

import numpy as np

from targets.target import Layer


@dataclass(frozen=True)
class ToolLog:
    """One run of a tool; what its log does not say is absent."""

    tool: str
    version: str = ""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Statistics by name: min, max, mean, median, p90, p95, p99, ..."""
    parts_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same of parts of an inference or of what precedes it: GPU Compute Time, H2D Latency, first inference, ..."""
    samples_ms: Optional[np.ndarray] = None
    """Each inference, in order, where the log holds them."""
    num_inferences: Optional[int] = None
    throughput_per_s: Optional[float] = None
    layers: Tuple[Layer, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the run was asked for, in the tool's words."""
    cautions: Tuple[str, ...] = ()
    """What the tool itself warns of, and what else makes its figures differ from others."""
