"""What a device is and has, before anything is pushed: system, board, L4T and JetPack, runtimes, power mode.

Rule: Python 3.8, standard library only, nothing of this project: it reaches the device as source text. What does not
apply is left out; nothing here is ever zero for unknown.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

JETPACK_BY_L4T = {
    **{"32.4": "4.4", "32.5": "4.5", "32.6": "4.6", "32.7": "4.6.1 or newer"},
    **{"34.1": "5.0", "35.1": "5.0.2", "35.2": "5.1", "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3"},
    **{"35.6": "5.1.4", "36.2": "6.0 DP", "36.3": "6.0", "36.4": "6.1 or newer", "38.2": "7.0"},
}
"""NVIDIA's table, for systems whose package nvidia-jetpack is not installed."""
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
SECONDS = 10.0


def describe(modules: Sequence[str]) -> Dict[str, object]:
    """Return what this device says of itself, and which of these modules its Python finds, with their versions."""
    versions = {module: _find_version(module) for module in modules}
    found: Dict[str, Optional[str]] = {
        "arch": platform.machine(),
        "os": _read_os(),
        "kernel": platform.release(),
        "board": _read_text("/proc/device-tree/model"),
        "l4t": read_l4t(_read_text("/etc/nv_tegra_release") or ""),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "numpy": _find_version("numpy"),
        "trtexec": shutil.which("trtexec") or (TRTEXEC if os.access(TRTEXEC, os.X_OK) else None),
        "power_mode": _ask_power_mode(),
        "uptime_s": (_read_text("/proc/uptime") or "").split(" ")[0] or None,
    }
    found["jetpack"] = _ask_jetpack() or _guess_jetpack(found["l4t"])
    told: Dict[str, object] = {name: value for name, value in found.items() if value is not None}
    told["runtimes"] = {module: version for module, version in versions.items() if version is not None}
    return told


def read_l4t(text: str) -> Optional[str]:
    """Return the release in the first line of /etc/nv_tegra_release: `# R36 (release), REVISION: 4.3, ...`."""
    match = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return "{}.{}".format(*match.groups()) if match else None


def read_power_mode(text: str) -> Optional[str]:
    """Return the mode's name in what `nvpmodel -q` prints: `NV Power Mode: MAXN`, then its number."""
    match = re.search(r"NV Power Mode(?:\[\d+\])?:\s*(\S+)", text)
    return match[1] if match else None


def _guess_jetpack(l4t: Optional[str]) -> Optional[str]:
    if l4t is None:
        return None
    known = JETPACK_BY_L4T.get(".".join(l4t.split(".")[:2]))
    return "{} (by its L4T)".format(known) if known else None


def _ask_jetpack() -> Optional[str]:
    return _ask(["dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"])


def _ask_power_mode() -> Optional[str]:
    said = _ask(["nvpmodel", "-q"])
    return read_power_mode(said) if said else None


def _ask(command: List[str]) -> Optional[str]:
    """Return what a command prints; None where it is not there, fails, or says nothing in time."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() or None if done.returncode == 0 else None


def _find_version(module: str) -> Optional[str]:
    """Return the version of the distribution that brings a module: of its own name, or beginning with it and a dash."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ImportError, ValueError):
        return None
    from importlib import metadata

    named: Mapping[str, str] = {
        str(found.metadata["Name"]).lower().replace("_", "-"): str(found.version) for found in metadata.distributions()
    }
    names = sorted(name for name in named if name == module or name.startswith(module + "-"))
    return named[names[0]] if names else "unknown version"


def _read_os() -> str:
    for line in (_read_text("/etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip("\"' ")
    return platform.system()


def _read_text(path: str) -> Optional[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
