"""The energy of an inference, from power at rest and power while inferring. Rule: raw readings in, one estimate out.

Mean power is the integral over a phase (trapezoids, or a counter's difference) over its time. What an inference takes
above rest is (mean power while inferring - mean power at rest) * time / inferences. Readings that follow each other
depend on each other, so each phase is cut into ten batches whose means vary as the phase's mean does (batch means; Law,
Simulation Modeling and Analysis, section 9.5.3). The interval covers that variation, not a sensor's own error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targets.runner.energy import EnergyRun
from targets.runner.sensors import Channel, Trace

NUM_BATCHES = 10
STUDENT_T = 2.262
"""97.5 % quantile with 9 degrees of freedom: the fewest that a difference of two phases can have."""
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN", "5V_IN", "psys")
"""Rails that carry all others, by the names that boards give them."""
WITHIN_OTHERS = ("VDDQ_VDD2_1V8AO",)
"""Rails behind another rail of the same board, where none carries all."""


@dataclass(frozen=True)
class Unavailable:
    """A figure that could not be measured."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What one inference takes."""

    above_idle_mj: float
    """What it adds to a device that is on anyway."""
    interval_mj: tuple[float, float] | None
    """Two-sided 95 % of `above_idle_mj`; None below 20 readings a phase."""
    total_mj: float
    """With the power that the device takes at rest, for as long as an inference takes."""
    idle_mw: float
    busy_mw: float
    seconds: float
    """Of inferring."""
    num_inferences: int
    source: str
    rails: tuple[str, ...]
    """Whose sum it is."""
    note: str
    """What to know of it; empty where there is nothing."""


@dataclass(frozen=True)
class _Phase:
    """Mean power between each two readings."""

    power_mw: np.ndarray
    seconds: np.ndarray

    @property
    def mean_mw(self) -> float:
        first = self.power_mw[0]  # subtracted, so that equal readings have exactly their value as mean
        return float(first + (self.power_mw - first) @ self.seconds / self.seconds.sum())

    @property
    def variance(self) -> float | None:
        """Return the variance of the mean, or None: too few readings."""
        if self.power_mw.size < 2 * NUM_BATCHES:
            return None
        batches = zip(
            np.array_split(self.power_mw - self.power_mw[0], NUM_BATCHES),
            np.array_split(self.seconds, NUM_BATCHES),
            strict=True,
        )
        means = [float(power @ seconds / seconds.sum()) for power, seconds in batches]
        return float(np.var(means, ddof=1)) / NUM_BATCHES


def energy_per_inference(runs: Sequence[EnergyRun]) -> Energy | Unavailable:
    """Return what one inference takes, over all runs together, or why that is not known."""
    weighed = [run for run in runs if run.source]
    if not weighed:
        reasons = dict.fromkeys(run.unavailable for run in runs)
        return Unavailable("; ".join(reasons) or "it was not asked for")
    rails = choose_rails([channel.name for channel in _weights(weighed[0].busy)])
    pairs = [(_phase(run.idle, rails), _phase(run.busy, rails)) for run in weighed]
    if any(idle is None or busy is None for idle, busy in pairs):
        return Unavailable(f"{weighed[0].source}: fewer than two readings of {', '.join(rails)} succeeded")
    phases = [(idle, busy) for idle, busy in pairs if idle is not None and busy is not None]
    num_inferences = sum(run.num_inferences for run in weighed)
    seconds = [float(busy.seconds.sum()) for _, busy in phases]
    above = [(busy.mean_mw - idle.mean_mw) * time for (idle, busy), time in zip(phases, seconds, strict=True)]
    total = math.fsum(busy.mean_mw * time for (_, busy), time in zip(phases, seconds, strict=True))
    above_idle_mj = math.fsum(above) / num_inferences
    half_mj = _half_width(phases, seconds, num_inferences)
    return Energy(
        above_idle_mj=above_idle_mj,
        interval_mj=None if half_mj is None else (above_idle_mj - half_mj, above_idle_mj + half_mj),
        total_mj=total / num_inferences,
        idle_mw=math.fsum(idle.mean_mw for idle, _ in phases) / len(phases),
        busy_mw=total / math.fsum(seconds),
        seconds=math.fsum(seconds),
        num_inferences=num_inferences,
        source=weighed[0].source,
        rails=rails,
        note=_note(phases, rails),
    )


def choose_rails(names: Sequence[str]) -> tuple[str, ...]:
    """Return the rails whose sum is a board's power: the one that carries all, else all that no other carries."""
    for whole in WHOLE_BOARD:
        if whole in names:
            return (whole,)
    return tuple(name for name in names if name not in WITHIN_OTHERS)


def _weights(trace: Trace) -> tuple[Channel, ...]:
    return trace.of("power") or trace.of("energy")


def _phase(trace: Trace, rails: Sequence[str]) -> _Phase | None:
    channels = [channel for channel in _weights(trace) if channel.name in rails]
    if len(channels) != len(rails):
        return None
    readings = np.array([channel.values for channel in channels], dtype=float)  # None becomes nan
    is_whole = ~np.isnan(readings).any(axis=0)
    times_s, sums = np.array(trace.times_s)[is_whole], readings.sum(axis=0)[is_whole]
    seconds = np.diff(times_s)
    if not seconds.size or not (seconds > 0).all():
        return None
    if channels[0].quantity == "energy":
        return _Phase(np.diff(sums) / 1e3 / seconds, seconds)  # uJ/s are uW
    return _Phase((sums[1:] + sums[:-1]) / 2, seconds)


def _half_width(phases: Sequence[tuple[_Phase, _Phase]], seconds: Sequence[float], num_inferences: int) -> float | None:
    variances = [(idle.variance, busy.variance, time) for (idle, busy), time in zip(phases, seconds, strict=True)]
    known = [(idle + busy) * time**2 for idle, busy, time in variances if idle is not None and busy is not None]
    if len(known) < len(phases):
        return None
    return STUDENT_T * math.sqrt(math.fsum(known)) / num_inferences


def _note(phases: Sequence[tuple[_Phase, _Phase]], rails: Sequence[str]) -> str:
    power_mw = np.concatenate([phase.power_mw for pair in phases for phase in pair])
    if np.ptp(power_mw) == 0:
        return (
            f"every reading was {power_mw[0]:g} mW, at rest and while inferring: the sensor may be stuck, or too slow"
        )
    if not set(rails) & set(WHOLE_BOARD):
        return f"the sum of {', '.join(rails)}: what the rest of the board takes is not in it"
    return ""
