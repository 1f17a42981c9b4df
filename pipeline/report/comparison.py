"""Two profiles side by side: what became slower, larger or less accurate, with intervals.

Rule: only what was measured under the same conditions is compared, unless the user says so; an interval that holds no
change is no change.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import JsonValue

from pipeline.measuring import quantiles
from pipeline.measuring.proportions import wilson_interval
from pipeline.report.report import AccuracyFigures, Report

Change = Literal["better", "worse", "same", "unknown"]
JOINT = 0.975
"""Confidence of each of two intervals whose ratio then has one of at least 95 % (Bonferroni)."""
HARDWARE = ("arch", "cpu", "logical_cores")
CONDITIONS = ("threads", "scope")
NS_PER_MS = 1e6
MEMORY_SPREAD, LOAD_SPREAD = 0.05, 0.5
"""Changes of what has no interval that are none."""


@dataclass(frozen=True)
class Compared:
    """One figure of both profiles."""

    name: str
    before: float
    after: float
    unit: str
    interval: tuple[float, float] | None
    """Of after / before, or of after - before where `unit` is a share; at least 95 %. None where there is none."""
    change: Change


def differences(before: Report, after: Report, *, of_one_precision: bool = True) -> list[str]:
    """Return what keeps two profiles from being compared: another device, power mode, precision or protocol."""
    pairs = [(name, before.context.get(name), after.context.get(name)) for name in HARDWARE + CONDITIONS]
    if of_one_precision:
        pairs.append(("precision", before.context.get("precision"), after.context.get("precision")))
        pairs.append(("precision of the deployment", before.precision, after.precision))
    pairs.append(("settings", _settings(before), _settings(after)))
    if before.latency and after.latency:
        pairs.append(("protocol", _protocol_of(before), _protocol_of(after)))
    return [f"{name}: {_brief(one)} against {_brief(other)}" for name, one, other in pairs if one != other]


def compare(
    before: Report, after: Report, samples_before_ns: np.ndarray, samples_after_ns: np.ndarray
) -> Iterator[Compared]:
    """Yield the figures that both have."""
    if samples_before_ns.size and samples_after_ns.size:
        for percentile in (50, 99):
            yield _latency(f"p{percentile}", percentile, samples_before_ns, samples_after_ns)
    if before.accuracy and after.accuracy:
        yield compare_accuracy(before.accuracy, after.accuracy)
    yield compare_plain("size", before.artifact.size_bytes, after.artifact.size_bytes, "bytes")
    if before.memory and after.memory:
        yield compare_plain(
            "peak memory", before.memory.peak_bytes, after.memory.peak_bytes, "bytes", spread=MEMORY_SPREAD
        )
    if before.load and after.load:
        yield compare_plain("load", before.load.median_ms, after.load.median_ms, "ms", spread=LOAD_SPREAD)


def _latency(name: str, percentile: float, before_ns: np.ndarray, after_ns: np.ndarray) -> Compared:
    """Compare a percentile by the interval of its ratio: the ends of both intervals divided crosswise."""
    one, other = (quantiles.percentile_of(samples, percentile) for samples in (before_ns, after_ns))
    bounds = [quantiles.interval(samples, percentile, JOINT) for samples in (before_ns, after_ns)]
    interval = None
    if bounds[0] is not None and bounds[1] is not None:
        interval = (bounds[1][0] / bounds[0][1], bounds[1][1] / bounds[0][0])
    return Compared(name, one / NS_PER_MS, other / NS_PER_MS, "ms", interval, change_of(interval, 1.0))


def compare_accuracy(one: AccuracyFigures, other: AccuracyFigures) -> Compared:
    """Compare shares by Newcombe's score interval of a difference (Statistics in Medicine 17, 1998, method 10)."""
    low_one, high_one = wilson_interval(one.on_device * one.num_samples, one.num_samples)
    low_other, high_other = wilson_interval(other.on_device * other.num_samples, other.num_samples)
    gained = other.on_device - one.on_device
    below = float(np.hypot(other.on_device - low_other, high_one - one.on_device))
    above = float(np.hypot(high_other - other.on_device, one.on_device - low_one))
    interval = (gained - below, gained + above)
    loss = (-interval[1], -interval[0])
    return Compared("accuracy", one.on_device, other.on_device, "share", interval, change_of(loss, 0.0))


def compare_plain(name: str, before: float, after: float, unit: str, spread: float = 0.0) -> Compared:
    """Compare a figure without an interval; less than `spread` of a change is none."""
    ratio = after / before if before else 1.0
    change: Change = "same" if abs(ratio - 1) <= spread else "worse" if ratio > 1 else "better"
    return Compared(name, before, after, unit, None, change)


def change_of(interval: tuple[float, float] | None, none: float) -> Change:
    """Return what an interval says of a figure of which less is better."""
    if interval is None:
        return "unknown"
    if interval[0] <= none <= interval[1]:
        return "same"
    return "worse" if interval[0] > none else "better"


def _settings(report: Report) -> JsonValue:
    said = report.context.get("before")
    return said.get("settings") if isinstance(said, dict) else None


def _protocol_of(report: Report) -> str | None:
    return report.latency.protocol.split(":", 1)[0] if report.latency else None


def _brief(value: JsonValue) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
