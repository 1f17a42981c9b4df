"""What is set on a device and decides how fast it runs: governors, clock limits, power mode.

Rule: devices carry this file: Python 3.8, standard library only. Everything is below a `root`; no program is started.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, Iterator, Tuple

from targets.runner.sensors_files import list_gpus, list_policies, read_number, read_setting


def read_settings(root: Path) -> Dict[str, str]:
    """Return what is set, by name: governor.policy0, min_mhz.policy0, max_mhz.policy0, turbo, power_mode, ..."""
    settings: Dict[str, str] = {}
    for name, path in list_policies(root):
        settings.update(_name_limits(name, path, ("scaling_governor", "scaling_min_freq", "scaling_max_freq"), 1e3))
    for path in list_gpus(root):
        settings.update(_name_limits(path.name, path, ("governor", "min_freq", "max_freq"), 1e6))
    settings.update((name, text) for name, text in _read_modes(root) if text)
    return settings


def read_power_mode(root: Path) -> str:
    """Return the power mode that is set on a Jetson, as `2: MODE_15W`; nothing elsewhere.

    nvpmodel keeps its state in a file that everybody may read; asking the program may need root.
    """
    found = re.search(r"pmode:\s*(\d+)", read_setting(root / "var/lib/nvpmodel/status"))
    if found is None:
        return ""
    number = int(found.group(1))
    table = read_setting(root / "etc/nvpmodel.conf")
    names = {int(mode): name for mode, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)", table)}
    return f"{number}: {names[number]}" if number in names else str(number)


def _read_modes(root: Path) -> Iterator[Tuple[str, str]]:
    yield "power_mode", read_power_mode(root) or read_setting(root / "sys/firmware/acpi/platform_profile")
    no_turbo = read_setting(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = read_setting(root / "sys/devices/system/cpu/cpufreq/boost")
    yield "turbo", {"0": "on", "1": "off"}.get(no_turbo, {"1": "on", "0": "off"}.get(boost, ""))
    yield "cores_online", read_setting(root / "sys/devices/system/cpu/online")


def _name_limits(name: str, folder: Path, files: Tuple[str, str, str], per_mhz: float) -> Iterator[Tuple[str, str]]:
    governor, lowest, highest = files
    text = read_setting(folder / governor)
    if text:
        yield f"governor.{name}", text
    for word, file in (("min_mhz", lowest), ("max_mhz", highest)):
        try:
            yield f"{word}.{name}", f"{read_number(folder / file, per_mhz):g}"
        except (OSError, ValueError):
            continue  # a clock without limits


def read_jetson(root: Path) -> Dict[str, str]:
    """Return board and L4T of a Jetson; nothing elsewhere."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", read_setting(root / "etc/nv_tegra_release"))
    if found is None:
        return {}
    named = {"board": read_setting(root / "proc/device-tree/model"), "l4t": f"{found.group(1)}.{found.group(2)}"}
    return {name: text for name, text in named.items() if text}
