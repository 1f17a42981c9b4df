"""Who works on a device: told to others, and recognised when it is gone."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, Mapping


def describe_myself() -> Dict[str, object]:
    """Return who this process is, so that others know whom to wait for, and this machine knows when it is dead."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = str(os.getuid())
    return {
        "user": user,
        "host": platform.node(),
        "pid": os.getpid(),
        "ticks": _read_ticks(os.getpid()),
        "machine": _identify_machine(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def in_words(owner: Mapping[str, object]) -> str:
    """Return who it is, for people."""
    if not owner:
        return "somebody who has only just begun"
    return "{user}@{host}, process {pid}, since {since}".format(**owner)


def owner_of(said: Mapping[str, object]) -> Mapping[str, object]:
    """Return the owner in what an agent says of a device that is held; empty where it is not known yet."""
    found = said.get("holder")
    owner = found.get("owner") if isinstance(found, dict) else None
    return owner if isinstance(owner, dict) else {}


def is_dead(owner: Mapping[str, object]) -> bool:
    """Tell whether it was a process of this machine that has ended; False where that cannot be known."""
    if owner.get("machine") != _identify_machine() or not owner.get("ticks"):
        return False
    return _read_ticks(int(str(owner["pid"]))) != owner["ticks"]


def _identify_machine() -> str:
    """Return what is one for all processes that see each other: system start and process namespace."""
    parts = [platform.node()]
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            parts.append(Path(path).read_text().strip())
        except OSError:
            parts.append("")
    try:
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_ticks(process: int) -> str:
    """Return when a process was started; empty where there is none, or the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
