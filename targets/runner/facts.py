"""What a device says of itself: identity (what a result depends on) and sensors (what a measurement depends on).

Rule: devices carry this file: Python 3.8, standard library only. A sensor that is missing is the string
`unavailable: <reason>`, never zero. No host name leaves the device.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Callable, Dict, List, Union

import numpy as np

ISA_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
"""Instruction sets that decide which kernels a runtime picks."""

Sensor = Union[str, float, int, List[float], List[int]]


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


def read_sensors() -> Dict[str, object]:
    """Return the state that disturbs a measurement, now."""
    return {
        "governor": _sense(_read_governor),
        "clocks_mhz": _sense(_read_clocks_mhz),
        "load_average": _sense(lambda: list(os.getloadavg())),
        "psi_cpu_some_avg10": _sense(_read_cpu_pressure),
    }


def read_peak_bytes() -> int:
    """Return the largest resident memory that this process ever had.

    From VmHWM, which starts anew with each program; `ru_maxrss` (elsewhere than on Linux) is inherited from the parent.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
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


def _sense(read: Callable[[], Sensor]) -> Sensor:
    try:
        return read()
    except (OSError, ValueError, IndexError) as error:
        return f"unavailable: {type(error).__name__}: {error}"


def _read_governor() -> str:
    return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()


def _read_clocks_mhz() -> Sensor:
    files = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return [int(file.read_text()) / 1000 for file in files]
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return clocks or "unavailable: neither cpufreq nor /proc/cpuinfo tells"


def _read_cpu_pressure() -> float:
    line = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    fields = dict(field.split("=") for field in line.split()[1:])
    return float(fields["avg10"])
