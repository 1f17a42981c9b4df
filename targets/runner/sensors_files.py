"""Which sensors a Linux device has, as files of /sys and /proc, and how each is read.

Rule: devices carry this file: Python 3.8, standard library only. Everything is below a `root`, so that a tree of files
can stand for a device. A sensor that does not answer at once is left out, with its reason; garbage counts as no answer.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from targets.runner.sensors import Quantity

GPU = re.compile(r"gpu|gm20b|gp10b|gv11b|ga10b|gb10b|mali", re.IGNORECASE)
"""Names of graphics processors among the devices of /sys/class/devfreq; Jetsons have theirs by the chip."""
HOLDS_BACK = re.compile(r"cpufreq|devfreq|^processor$|cpu|gpu", re.IGNORECASE)
"""Cooling devices that lower a clock; the others are fans."""
CHIPS_WITH_CPU_TEMPERATURE = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
PLAUSIBLE: Dict[str, Tuple[float, float]] = {
    "clock": (0.0, 20_000.0),
    "temperature": (-60.0, 200.0),
    "power": (-1e6, 1e7),
    "cooling": (0.0, 1e4),
}
"""Readings beyond are garbage: a zone that is switched off says -256 C."""
CPU_TIMES_WITH_OTHERS = (0, 1, 2, 5, 6)
"""Fields of /proc/stat in which a processor works: user, nice, system, irq, softirq."""
STEAL = 7


@dataclass(frozen=True)
class Sensor:
    """One source of readings; `read` raises OSError or ValueError where it does not answer."""

    quantity: Quantity
    name: str
    read: Callable[[], float]
    limit: Optional[float] = None


@dataclass(frozen=True)
class Sensors:
    """Those of a device that answer, and why the other quantities are not there."""

    found: Tuple[Sensor, ...] = ()
    unavailable: Dict[str, str] = field(default_factory=dict)


def find_sensors(root: Path, quantities: Sequence[Quantity] = ()) -> Sensors:
    """Return the sensors that answer, of all quantities or of those that are named."""
    found: List[Sensor] = []
    unavailable: Dict[str, str] = {}
    for quantity in quantities or tuple(FINDERS):
        find, looked_for = FINDERS[quantity]
        reasons = []
        for sensor in find(root):
            try:
                sensor.read()
            except (OSError, ValueError) as error:
                reasons.append(f"{sensor.name}: {getattr(error, 'strerror', None) or error}")
            else:
                found.append(sensor)
        if not any(sensor.quantity == quantity for sensor in found):
            unavailable[quantity] = reasons[0] if reasons else f"no {looked_for}"
    return Sensors(tuple(found), unavailable)


def read_text(path: Path) -> str:
    """Return a small file's text; raises OSError. One read, as /sys and /proc want it."""
    handle = os.open(str(path), os.O_RDONLY)
    try:
        return os.read(handle, 65536).decode("utf-8", "replace").strip("\0 \n")
    finally:
        os.close(handle)


def read_setting(path: Path) -> str:
    """Return a small file's text, or nothing where it cannot be read."""
    try:
        return read_text(path)
    except OSError:
        return ""


def read_number(path: Path, divisor: float = 1.0) -> float:
    """Return the number in a file; raises OSError and ValueError, which name it."""
    text = read_text(path)
    try:
        return float(text) / divisor
    except ValueError as error:
        raise ValueError(f"{path}: expected a number; got {text[:40]!r}") from error


def list_policies(root: Path) -> List[Tuple[str, Path]]:
    """Return the name and the folder of each processor clock: cores of one policy share theirs."""
    cpus = root / "sys/devices/system/cpu"
    policies = _sorted(cpus / "cpufreq", "policy[0-9]*")
    if policies:
        return [(path.name, path) for path in policies]
    return [(path.parent.name, path) for path in _sorted(cpus, "cpu[0-9]*/cpufreq")]


def list_gpus(root: Path) -> List[Path]:
    """Return the folders of graphics processors whose clock Linux scales."""
    return [path for path in _sorted(root / "sys/class/devfreq", "*") if GPU.search(path.name)]


def _checked(quantity: Quantity, name: str, read: Callable[[], float], limit: Optional[float] = None) -> Sensor:
    low, high = PLAUSIBLE[quantity]

    def read_plausible() -> float:
        value = read()
        if not low <= value <= high:
            raise ValueError(f"expected {low:g} to {high:g}; got {value:g}")
        return value

    return Sensor(quantity, name, read_plausible, limit)


def _find_clocks(root: Path) -> Iterator[Sensor]:
    for name, path in list_policies(root):
        limit = _limit(path / "scaling_max_freq", 1e3) or _limit(path / "cpuinfo_max_freq", 1e3)
        yield _checked("clock", name, _reader(path / "scaling_cur_freq", 1e3), limit)
    for path in list_gpus(root):
        yield _checked("clock", path.name, _reader(path / "cur_freq", 1e6), _limit(path / "max_freq", 1e6))


def _find_temperatures(root: Path) -> Iterator[Sensor]:
    for zone in _sorted(root / "sys/class/thermal", "thermal_zone*"):
        name = read_setting(zone / "type") or zone.name
        if name.startswith("PMIC"):
            continue  # Jetsons: always 100 C
        yield _checked("temperature", name, _reader(zone / "temp", 1e3), _find_trip(zone))
    for chip in _sorted(root / "sys/class/hwmon", "hwmon*"):
        if read_setting(chip / "name") in CHIPS_WITH_CPU_TEMPERATURE:
            for path in _sorted(chip, "temp*_input"):
                number = path.name.split("_")[0]
                name = read_setting(chip / f"{number}_label") or f"{read_setting(chip / 'name')} {number}"
                yield _checked("temperature", name, _reader(path, 1e3), _limit(chip / f"{number}_crit", 1e3))


def _find_trip(zone: Path) -> Optional[float]:
    """Return the lowest temperature at which a zone holds clocks back."""
    trips = []
    for path in _sorted(zone, "trip_point_*_type"):
        if read_setting(path) in ("passive", "hot", "critical"):
            temperature = _limit(Path(str(path)[: -len("type")] + "temp"), 1e3)
            trips += [temperature] if temperature is not None and temperature > 0 else []
    return min(trips) if trips else None


def _find_rails(root: Path) -> Iterator[Sensor]:
    """Yield the rails of INA3221 chips: three each, volt times ampere; further inputs are shunts and sums."""
    for chip in _sorted(root / "sys/class/hwmon", "hwmon*"):
        if not read_setting(chip / "name").startswith("ina3221"):
            continue
        for number in (1, 2, 3):
            label = read_setting(chip / f"in{number}_label") or f"{chip.name} channel {number}"
            is_there = (chip / f"in{number}_input").exists() and read_setting(chip / f"in{number}_enable") != "0"
            if is_there and label != "NC":
                yield _checked("power", label, _read_rail(chip, number))


def _read_rail(chip: Path, number: int) -> Callable[[], float]:
    volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
    return lambda: read_number(volts) * read_number(amperes) / 1e3


def _find_energy(root: Path) -> Iterator[Sensor]:
    """Yield RAPL's counters: the platform's, else each package's and its memory's."""
    zones = _sorted(root / "sys/class/powercap", "intel-rapl:*")
    named = [(read_setting(zone / "name"), zone) for zone in zones]
    platform = [(name, zone) for name, zone in named if name == "psys"]
    for name, zone in platform or [(n, z) for n, z in named if n.startswith("package") or n == "dram"]:
        shown = name if name != "dram" else f"dram of {zone.name}"
        yield Sensor("energy", shown, _Unwrapped(zone / "energy_uj", _limit(zone / "max_energy_range_uj", 1.0)))


class _Unwrapped:
    """A counter that starts anew at its range, made to go on."""

    def __init__(self, path: Path, highest: Optional[float]) -> None:
        self._path = path
        self._range = highest
        self._before: Optional[float] = None
        self._turns = 0

    def __call__(self) -> float:
        now = read_number(self._path)
        if self._before is not None and now < self._before:
            self._turns += 1
        self._before = now
        return now + self._turns * (self._range or 0.0)


def _find_cooling(root: Path) -> Iterator[Sensor]:
    for path in _sorted(root / "sys/class/thermal", "cooling_device*"):
        kind = read_setting(path / "type")
        if HOLDS_BACK.search(kind) and "fan" not in kind.lower():
            yield _checked("cooling", f"{kind} ({path.name})", _reader(path / "cur_state", 1.0))
    raspberry = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    if raspberry.exists():  # bits of now: too little voltage, clock capped, throttled, soft temperature limit
        yield _checked("cooling", "get_throttled", lambda: float(int(read_text(raspberry), 16) & 0xF))


def _find_throttling(root: Path) -> Iterator[Sensor]:
    cores = _sorted(root / "sys/devices/system/cpu", "cpu[0-9]*/thermal_throttle/core_throttle_count")
    if cores:
        yield Sensor("throttling", "core_throttle_count", lambda: sum(read_number(path) for path in cores))
    for path in _sorted(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt"):  # Jetson: over-current
        yield Sensor("throttling", path.name, _reader(path, 1.0))


def _find_pressure(root: Path) -> Iterator[Sensor]:
    path = root / "proc/pressure/cpu"
    if path.exists():
        yield Sensor("pressure", "cpu some", lambda: read_pressure(root)["total"])


def read_pressure(root: Path) -> Dict[str, float]:
    """Return how long some task waited for a processor: avg10, avg60, avg300 in percent, total in us."""
    line = read_text(root / "proc/pressure/cpu").splitlines()[:1]
    fields = dict(word.split("=", 1) for word in "".join(line).split()[1:] if "=" in word)
    if "total" not in fields or "avg10" not in fields:
        raise ValueError(f"proc/pressure/cpu: expected a line with avg10 and total; got {''.join(line)[:40]!r}")
    return {name: float(value) for name, value in fields.items()}


def _find_load(root: Path) -> Iterator[Sensor]:
    path = root / "proc/loadavg"
    if path.exists():
        yield Sensor("load", "1 min", lambda: float(read_text(path).split(" ")[0]))


def _find_other_load(root: Path) -> Iterator[Sensor]:
    path = root / "proc/stat"
    if path.exists():
        yield Sensor("other_load", "other processes", lambda: _sum_times(path, CPU_TIMES_WITH_OTHERS) - _own_seconds())


def _find_steal(root: Path) -> Iterator[Sensor]:
    path = root / "proc/stat"
    if path.exists():
        yield Sensor("steal", "other virtual machines", lambda: _sum_times(path, (STEAL,)))


def _sum_times(path: Path, indices: Sequence[int]) -> float:
    fields = read_text(path).split("\n", 1)[0].split()[1:]
    if len(fields) <= max(indices):
        raise ValueError(f"{path}: expected {max(indices) + 1} times of all processors; got {len(fields)}")
    return sum(float(fields[index]) for index in indices) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _find_swapping(root: Path) -> Iterator[Sensor]:
    path = root / "proc/vmstat"
    if path.exists():
        yield Sensor("swapping", "in and out", lambda: _count_swapped(path))


def _count_swapped(path: Path) -> float:
    fields = dict(line.split(" ", 1) for line in read_text(path).splitlines() if " " in line)
    if "pswpin" not in fields or "pswpout" not in fields:
        raise ValueError(f"{path}: expected pswpin and pswpout; got neither")
    return float(fields["pswpin"]) + float(fields["pswpout"])


def _reader(path: Path, divisor: float) -> Callable[[], float]:
    return lambda: read_number(path, divisor)


def _limit(path: Path, divisor: float) -> Optional[float]:
    try:
        return read_number(path, divisor)
    except (OSError, ValueError):
        return None


def _sorted(folder: Path, pattern: str) -> List[Path]:
    """Return what matches, by number: cpu2 before cpu10."""

    def key(path: Path) -> List[Tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]

    return sorted(folder.glob(pattern), key=key)


FINDERS: Dict[Quantity, Tuple[Callable[[Path], Iterator[Sensor]], str]] = {
    "clock": (_find_clocks, "/sys/devices/system/cpu/cpufreq, as in most virtual machines"),
    "temperature": (_find_temperatures, "/sys/class/thermal/thermal_zone*"),
    "power": (_find_rails, "INA3221 under /sys/class/hwmon"),
    "energy": (_find_energy, "/sys/class/powercap/intel-rapl:*"),
    "cooling": (_find_cooling, "/sys/class/thermal/cooling_device* of a clock"),
    "throttling": (_find_throttling, "core_throttle_count of a processor, nor oc*_event_cnt of a Jetson"),
    "pressure": (_find_pressure, "/proc/pressure/cpu: the kernel has it from 4.20 on, where it is switched on"),
    "load": (_find_load, "/proc/loadavg"),
    "other_load": (_find_other_load, "/proc/stat"),
    "steal": (_find_steal, "/proc/stat"),
    "swapping": (_find_swapping, "/proc/vmstat"),
}
"""How each quantity's sensors are found, and what was looked for, to stand behind "no"."""
