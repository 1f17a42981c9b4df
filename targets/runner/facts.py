"""What a device says of itself: identity (what a result depends on) and sensors (what a measurement depends on).

Rule: devices carry this file: Python 3.8, standard library only. A sensor that is missing is the string
`unavailable: <reason>`, never zero. No host name leaves the device. Sensors are looked for below a root.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Tuple, Union

import numpy as np

from targets.runner.sensors import COUNTERS, Quantity
from targets.runner.sensors_files import FINDERS, find_sensors, read_pressure, read_text
from targets.runner.sensors_settings import read_settings
from targets.runner.sensors_tegrastats import find_tegrastats

STATUS = Path("/proc/self/status")
NO_SETTINGS = "no governor, clock limit or power mode in /sys, as in most virtual machines"

ISA_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
"""Instruction sets that decide which kernels a runtime picks."""

LEVELS: Tuple[Tuple[str, Quantity], ...] = (
    ("clocks_mhz", "clock"),
    ("temperatures_c", "temperature"),
    ("power_mw", "power"),
    ("cooling_steps", "cooling"),
)
"""Quantities that a single reading tells something of, by their names in a context."""

Sensor = Union[str, float, int, List[float], List[int], Dict[str, float], Dict[str, str]]


def read_identity(runtime: str, runtime_version: str) -> Dict[str, str]:
    """Return what results on this device depend on."""
    return {
        "arch": platform.machine(),
        "cpu": read_cpu_model(),
        "cpu_features": " ".join(read_cpu_features()) or "unavailable: not in /proc/cpuinfo",
        "logical_cores": str(os.cpu_count() or "unavailable: os.cpu_count"),
        "os": _read_os(),
        "runtime": runtime,
        "runtime_version": runtime_version,
    }


def read_versions() -> Dict[str, object]:
    """Return what surrounds the runtime."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernel": platform.release(),
        "affinity": _affinity(),
    }


def read_sensors(root: Path = Path("/")) -> Dict[str, object]:
    """Return the state that disturbs a measurement, now: what is set, and one reading of each level."""
    sensors = find_sensors(root, [quantity for _, quantity in LEVELS])
    said: Dict[str, object] = {"settings": read_settings(root) or f"unavailable: {NO_SETTINGS}"}
    for name, quantity in LEVELS:
        reads = {sensor.name: sensor.read for sensor in sensors.found if sensor.quantity == quantity}
        reason = f"unavailable: {sensors.unavailable.get(quantity)}"
        said[name] = _sense(partial(_read_all, reads)) if reads else reason
    said["load_average"] = _sense(lambda: [float(word) for word in read_text(root / "proc/loadavg").split()[:3]])
    said["psi_cpu_some_avg10"] = _sense(lambda: read_pressure(root)["avg10"])
    return said


def list_counters(root: Path = Path("/")) -> Dict[str, str]:
    """Return the names of the sensors that count, by quantity, or why there are none; one reading tells nothing."""
    sensors = find_sensors(root, [quantity for quantity in FINDERS if quantity in COUNTERS])
    program = find_tegrastats(root)
    names: Dict[str, str] = {
        quantity: ", ".join(sensor.name for sensor in sensors.found if sensor.quantity == quantity)
        for quantity in FINDERS
        if quantity in COUNTERS
    }
    listed = {quantity: text or f"unavailable: {sensors.unavailable[quantity]}" for quantity, text in names.items()}
    return {**listed, "tegrastats": "unavailable: no such program" if program is None else str(program)}


def read_swapped_bytes() -> Sensor:
    """Return how much of this process is swapped out, which its peak of resident memory then lacks."""
    return _sense(lambda: int(_read_field(STATUS, "VmSwap")) * 1024)


def read_available_bytes() -> Sensor:
    """Return how much memory the device can still give."""
    return _sense(lambda: int(_read_field(Path("/proc/meminfo"), "MemAvailable")) * 1024)


def read_peak_bytes() -> int:
    """Return the largest resident memory that this process ever had.

    From VmHWM, which starts anew with each program; `ru_maxrss` (elsewhere than on Linux) is inherited from the parent.
    """
    try:
        return int(_read_field(STATUS, "VmHWM")) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_cpu_model() -> str:
    """Return the processor's name, or on ARM boards the board's."""
    fields = _read_cpuinfo()
    if "model name" in fields:
        return fields["model name"]
    board = Path("/proc/device-tree/model")
    if board.exists():
        return board.read_text().strip("\0\n ")
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return platform.processor() or "unavailable: neither /proc/cpuinfo nor the platform names it"


def _read_cpuinfo() -> Dict[str, str]:
    """Return the first value of each field."""
    path = Path("/proc/cpuinfo")
    fields: Dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def read_cpu_features() -> List[str]:
    """Return which of ISA_FEATURES the processor has; none where only /proc/cpuinfo would tell and is not there."""
    fields = _read_cpuinfo()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    return [feature for feature in ISA_FEATURES if feature in present]


def _read_os() -> str:
    path = Path("/etc/os-release")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip("\"' ")
    return f"{platform.system()} {platform.release()}"


def _affinity() -> Sensor:
    if not hasattr(os, "sched_getaffinity"):
        return f"unavailable: {platform.system()} does not tell"
    return sorted(os.sched_getaffinity(0))


def _read_all(reads: Dict[str, Callable[[], float]]) -> Dict[str, float]:
    return {sensor: round(read(), 3) for sensor, read in reads.items()}


def _sense(read: Callable[[], Sensor]) -> Sensor:
    try:
        return read()
    except (OSError, ValueError, IndexError) as error:
        return f"unavailable: {type(error).__name__}: {error}"


def _read_field(path: Path, name: str) -> str:
    """Return the number in a line such as `VmHWM:  1024 kB`."""
    for line in read_text(path).splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise ValueError(f"{path}: expected a line {name}; got none")
