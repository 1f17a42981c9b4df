"""Reads sensors again and again while something else runs.

Rule: devices carry this file: Python 3.8, standard library only. It sleeps between readings; what a reading costs is
measured by benchmarks/sensor_cost.py.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, List, Mapping, Optional, Tuple, Type

from targets.runner.sensors import Channel, Quantity, Trace
from targets.runner.sensors_files import FINDERS, Sensor, Sensors, find_sensors
from targets.runner.sensors_settings import read_settings

INTERVAL_S = 0.25
"""While latency is sampled: the sampler's own work then is far below a thousandth of a processor's time."""

WEIGHED: Tuple[Quantity, ...] = ("power", "energy")
WATCHED: Tuple[Quantity, ...] = tuple(quantity for quantity in FINDERS if quantity not in WEIGHED)
READ_LATER = "not read while latency is sampled: see the energy"

Reading = Tuple[Optional[float], ...]


class Sampler:
    """Reads all sensors when entered, every `interval_s` from a thread, and when left."""

    def __init__(
        self, sensors: Sensors, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._sensors = sensors
        self._interval_s = interval_s
        self._clock = clock
        self._times: List[float] = []
        self._readings: List[Reading] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="sensors", daemon=True)

    def __enter__(self) -> Sampler:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._read()

    def trace(self, zero_s: float, settings: Mapping[str, str], settings_after: Mapping[str, str]) -> Trace:
        """Return what was read, its times counted from `zero_s` on the sampler's clock."""
        columns = list(zip(*self._readings))
        channels = [
            Channel(sensor.quantity, sensor.name, tuple(column), sensor.limit)
            for sensor, column in zip(self._sensors.found, columns)
        ]
        times_s = tuple(round(at - zero_s, 6) for at in self._times)
        return Trace(times_s, tuple(channels), settings, settings_after, self._sensors.unavailable)

    def _read_on(self) -> None:
        while not self._is_over.wait(self._interval_s):
            self._read()

    def _read(self) -> None:
        self._times.append(self._clock())
        self._readings.append(tuple(_read_or_none(sensor) for sensor in self._sensors.found))


def _read_or_none(sensor: Sensor) -> Optional[float]:
    try:
        return sensor.read()
    except (OSError, ValueError):
        return None


class Watch:
    """The sensors, and what is set, over one measurement; all but power, which takes too long to read meanwhile."""

    def __init__(self, root: Path) -> None:
        self._root = root
        sensors = find_sensors(root, WATCHED)
        self._sampler = Sampler(Sensors(sensors.found, {**dict.fromkeys(WEIGHED, READ_LATER), **sensors.unavailable}))
        self._settings = read_settings(root)
        self._settings_after = self._settings
        self._zero_s = time.perf_counter()

    def __enter__(self) -> Watch:
        self._sampler.__enter__()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._sampler.__exit__(kind, error, traceback)
        self._settings_after = read_settings(self._root)

    def mark_start(self) -> None:
        """Count the trace's times from now: the first timed inference begins."""
        self._zero_s = time.perf_counter()

    @property
    def trace(self) -> Trace:
        """Return what was read, once it is over."""
        return self._sampler.trace(self._zero_s, self._settings, self._settings_after)
