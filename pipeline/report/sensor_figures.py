"""What the device's sensors said, summed up for the report. Rule: what is not known is null beside its reason."""

import json
import math
from collections.abc import Sequence

from pipeline.artifacts import LatencyProfile
from pipeline.measuring.energy import Energy, Unavailable, energy_per_inference
from pipeline.report.part import ReportPart
from targets.runner.energy import dump_energy
from targets.runner.sensors import COUNTERS, UNITS, Channel, Trace, dump_trace

TRACE_FILE = "sensor_trace.json"


class ChannelFigures(ReportPart):
    """One sensor while latency was sampled, over all processes."""

    quantity: str
    name: str
    unit: str
    lowest: float
    mean: float
    highest: float
    increase: float | None
    """By how much a counter grew; null for what is no counter."""
    limit: float | None
    """The most that the device's own tables name."""


class SensorFigures(ReportPart):
    """The device's sensors while latency was sampled."""

    channels: tuple[ChannelFigures, ...]
    settings: dict[str, str]
    """What was set at the start: governors, clock limits, power mode."""
    changed: dict[str, str]
    """What was set otherwise at the end of a process: before and after."""
    unavailable: dict[str, str]
    """Why a quantity is not known, by its name."""
    num_readings: int
    trace: str | None
    """File of all readings, relative to the report's folder."""


class EnergyFigures(ReportPart):
    """Energy of one inference, in a phase of its own behind the latency's."""

    above_idle_mj: float | None
    """What an inference adds to the device at rest; null where `unavailable` says why."""
    interval_mj: tuple[float, float] | None
    """Two-sided 95 %, of how readings vary; a sensor's own error is not in it."""
    total_mj: float | None
    """With what the device takes at rest meanwhile."""
    idle_mw: float | None
    busy_mw: float | None
    seconds: float | None
    num_inferences: int | None
    source: str | None
    rails: tuple[str, ...]
    """Whose sum it is."""
    note: str
    unavailable: str | None


def sensor_figures(traces: Sequence[Trace], trace_file: str | None) -> SensorFigures:
    """Sum the traces of all processes up, channel by channel."""
    keys = dict.fromkeys((each.quantity, each.name) for trace in traces for each in trace.channels)
    changed = {name: f"{old} -> {new}" for trace in traces for name, (old, new) in trace.changed.items()}
    known: set[str] = {quantity for quantity, _ in keys}
    known |= {"power", "energy"}  # not read while latency is sampled
    reasons = {name: why for trace in traces for name, why in trace.unavailable.items() if name not in known}
    channels = [
        [each for trace in traces for each in trace.channels if (each.quantity, each.name) == key] for key in keys
    ]
    return SensorFigures(
        channels=tuple(_sum_up(same) for same in channels if any(each.known for each in same)),
        settings=dict(traces[0].settings) if traces else {},
        changed=changed,
        unavailable=reasons,
        num_readings=sum(len(trace.times_s) for trace in traces),
        trace=trace_file if traces else None,
    )


def energy_figures(profile: LatencyProfile) -> EnergyFigures:
    """Return the energy of one inference, or why it is not known."""
    energy = energy_per_inference(profile.energy)
    known = energy if isinstance(energy, Energy) else None
    return EnergyFigures(
        above_idle_mj=known.above_idle_mj if known else None,
        interval_mj=known.interval_mj if known else None,
        total_mj=known.total_mj if known else None,
        idle_mw=known.idle_mw if known else None,
        busy_mw=known.busy_mw if known else None,
        seconds=known.seconds if known else None,
        num_inferences=known.num_inferences if known else None,
        source=known.source if known else None,
        rails=known.rails if known else (),
        note=known.note if known else "",
        unavailable=energy.reason if isinstance(energy, Unavailable) else None,
    )


def trace_json(profile: LatencyProfile) -> str:
    """Return every reading of every process as JSON, for the file beside the report."""
    processes = [dump_trace(trace) for trace in profile.traces]
    return json.dumps({"processes": processes, "energy": [dump_energy(run) for run in profile.energy]}) + "\n"


def _sum_up(same: Sequence[Channel]) -> ChannelFigures:
    values = [value for channel in same for value in channel.known]
    first = same[0]
    return ChannelFigures(
        quantity=first.quantity,
        name=first.name,
        unit=UNITS[first.quantity],
        lowest=min(values),
        mean=math.fsum(values) / len(values),
        highest=max(values),
        increase=math.fsum(channel.increase for channel in same) if first.quantity in COUNTERS else None,
        limit=first.limit,
    )
