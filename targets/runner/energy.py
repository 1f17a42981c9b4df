"""The power that a device takes at rest and while it infers: raw readings, which the host makes energies of.

Rule: devices carry this file: Python 3.8, standard library only. Power is read in phases of its own, never while
latency is sampled: reading it costs time.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Tuple

from targets.runner.sensors import Quantity, Trace, dump_trace, load_trace
from targets.runner.sensors_files import Sensor, Sensors, find_sensors
from targets.runner.sensors_sampler import Sampler
from targets.runner.sensors_tegrastats import Tegrastats, find_tegrastats

INTERVAL_S = 0.05
"""Between two readings of power; an INA3221 of a Jetson has a new value every few milliseconds."""
SOURCES: Tuple[Tuple[Quantity, str], ...] = (("power", "INA3221 (hwmon)"), ("energy", "RAPL"))
"""The best first: rails of the whole board, then the processor's own counter. tegrastats comes last."""


@dataclass(frozen=True)
class EnergyRun:
    """What the power sensors said at rest and while inferring, in one process."""

    source: str
    """Which sensors; empty where `unavailable` says why there are none."""
    idle: Trace = field(default_factory=Trace)
    """The process at rest, the runtime imported, no model loaded."""
    busy: Trace = field(default_factory=Trace)
    """One inference after the other."""
    num_inferences: int = 0
    """Of the busy phase, from its first reading to its last."""
    unavailable: str = ""


class Scale:
    """Weighs the energy of an inference: first the process at rest, later inferring, `seconds` each; 0: not at all."""

    def __init__(self, root: Path, seconds: float) -> None:
        self._root = root
        self._seconds = seconds
        self._source = ""
        self._idle = Trace()

    def rest(self) -> None:
        """Read power while nothing runs; at once over where nothing is there to read."""
        if not self._seconds:
            return
        with open_power(self._root) as (self._source, power):
            self._idle = Trace(unavailable=power.unavailable)
            if self._source:
                start = time.perf_counter()
                with Sampler(power, INTERVAL_S) as sampler:
                    time.sleep(self._seconds)
                self._idle = sampler.trace(start, {}, {})

    def weigh(self, infer: Callable[[], object]) -> Optional[EnergyRun]:
        """Read power over one inference after the other, once at least; None where that was not asked for."""
        if not self._seconds:
            return None
        if not self._source:
            reasons = "; ".join(self._idle.unavailable.values())
            return EnergyRun("", unavailable=reasons)
        num_inferences = 0
        with open_power(self._root) as (source, power):
            start = time.perf_counter()
            with Sampler(power, INTERVAL_S) as sampler:
                while not num_inferences or time.perf_counter() - start < self._seconds:
                    infer()
                    num_inferences += 1
        busy = sampler.trace(start, {}, {})
        if source != self._source:
            return EnergyRun("", unavailable=f"{self._source} answered at rest, but no more behind the inferences")
        return EnergyRun(source, self._idle, busy, num_inferences)


@contextmanager
def open_power(root: Path) -> Iterator[Tuple[str, Sensors]]:
    """Yield the best source of power and its sensors; no source where there is none, with the reasons."""
    sensors = find_sensors(root, [quantity for quantity, _ in SOURCES])
    reasons = dict(sensors.unavailable)
    for quantity, source in SOURCES:
        found = tuple(sensor for sensor in sensors.found if sensor.quantity == quantity)
        if found:
            yield source, Sensors(found)
            return
    program = find_tegrastats(root)
    if program is None:
        reasons["tegrastats"] = "no such program: tegrastats"
        yield "", Sensors((), reasons)
        return
    with Tegrastats(program) as stream:
        rails = stream.find_rails()
        found = tuple(Sensor("power", rail, stream.reader(rail)) for rail in rails)
        reasons["tegrastats"] = stream.reason
        yield ("tegrastats", Sensors(found)) if found else ("", Sensors((), reasons))


def dump_energy(run: EnergyRun) -> Dict[str, object]:
    """Return a run as JSON values."""
    return {
        "source": run.source,
        "idle": dump_trace(run.idle),
        "busy": dump_trace(run.busy),
        "num_inferences": run.num_inferences,
        "unavailable": run.unavailable,
    }


def load_energy(data: object) -> Optional[EnergyRun]:
    """Return the run that `dump_energy` wrote; None where energy was not asked for."""
    if not isinstance(data, dict):
        return None
    return EnergyRun(
        source=data["source"],
        idle=load_trace(data["idle"]),
        busy=load_trace(data["busy"]),
        num_inferences=data["num_inferences"],
        unavailable=data["unavailable"],
    )
