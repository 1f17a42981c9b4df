"""Waits until a device is cool enough to begin.

Rule: devices carry this file: Python 3.8, standard library only. Without a sensor nothing is waited for, which is said.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Dict, Optional, Union

from targets.runner.sensors_files import find_sensors

INTERVAL_S = 2.0


def cool_down(
    root: Path,
    below_c: Optional[float],
    max_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Dict[str, object]:
    """Wait until every sensor of temperature is below `below_c`, at most `max_seconds`.

    Returns `start_temperature_c`, or why it is unavailable, and `is_cool`; nothing where `below_c` is None.
    """
    if below_c is None:
        return {}
    deadline = clock() + max_seconds
    while True:
        hottest = _read_hottest(root)
        if isinstance(hottest, str):
            return {"start_temperature_c": f"unavailable: {hottest}", "is_cool": False}
        if hottest < below_c or clock() >= deadline:
            return {"start_temperature_c": hottest, "is_cool": hottest < below_c}
        sleep(INTERVAL_S)


def _read_hottest(root: Path) -> Union[float, str]:
    sensors = find_sensors(root, ("temperature",))
    readings = []
    for sensor in sensors.found:
        try:
            readings.append(sensor.read())
        except (OSError, ValueError):
            continue  # one of several that does not answer now
    return max(readings) if readings else sensors.unavailable.get("temperature", "no sensor answered")
