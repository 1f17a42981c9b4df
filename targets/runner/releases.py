"""The folder of releases on a device: what is installed, what is current, and how that changes in one step.

    HOME/VERSION-DIGEST/    the files of a release as its manifest lists them
    HOME/current            a link to one of these folders, replaced in one step
    HOME/history.jsonl      one line a switch

Rule: a power cut at any moment leaves `current` at a whole release. Devices carry this file: Python 3.8, standard
library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator, List, Optional

from targets.errors import DeviceError
from targets.runner.workplace import digest

MANIFEST = "manifest.json"
CURRENT = "current"
HISTORY = "history.jsonl"
INCOMING = ".incoming-"
"""Begins the name of a folder that is being filled."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Switch:
    """One line of the history."""

    action: str
    """install or rollback."""
    version: str
    """Folder that is current since."""
    before: Optional[str]
    """The one before; None at first."""
    time: float
    """Unix seconds, by the device's clock."""


@contextmanager
def holding(home: Path) -> Iterator[None]:
    """Hold the lock of a folder of releases, which the kernel frees with the process; remove what power cuts left.

    Raises:
        DeviceError: another process holds it, or it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(str(home / ".lock"), os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise DeviceError(
            f"{home}: expected a folder that can be written; got {error.strerror}; allow it, or set another work_folder"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceError(
                f"{home}: expected nobody else to install there; got another install under way; try again after it"
            ) from error
        for left in home.glob(f"{INCOMING}*"):
            shutil.rmtree(str(left), ignore_errors=True)
        yield
    finally:
        os.close(lock)


def unpack(archive: Path, sha256: str, incoming: Path) -> None:
    """Write the files of a release, each verified, and synced so that a power cut leaves whole ones.

    Raises:
        DeviceError: the archive or a file is not what it should be.
        OSError: no room, or it may not be written.
    """
    found = digest(archive)
    if found != sha256:
        raise DeviceError(f"release: expected sha256 {sha256}; got {found}; push it again")
    incoming.mkdir()
    with zipfile.ZipFile(str(archive)) as packed:
        for entry in packed.infolist():
            if not _SAFE_NAME.fullmatch(entry.filename) or entry.compress_type != zipfile.ZIP_STORED:
                raise DeviceError(f"release: expected plain stored files; got {entry.filename!r}; package it again")
            path = incoming / entry.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, open(str(path), "wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
    verify(incoming)


def verify(folder: Path) -> None:
    """Compare every file with the manifest; raises DeviceError that names the first which differs."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(f"{folder.name}/{MANIFEST}: expected a manifest; got {error}; deploy it again") from error
    for name, expected in files.items():
        found = digest(folder / name) if (folder / name).is_file() else "no such file"
        if found != expected:
            raise DeviceError(f"{folder.name}/{name}: expected sha256 {expected}; got {found}; deploy it again")


def put_in_place(incoming: Path, final: Path) -> None:
    """Give a filled folder its name; one of that name, which the same release left earlier, goes."""
    if final.exists():
        aside = incoming.with_name(f"{incoming.name}-old")
        final.rename(aside)
        incoming.rename(final)
        shutil.rmtree(str(aside), ignore_errors=True)
    else:
        incoming.rename(final)
    sync(final.parent)


def switch_to(home: Path, version: str, action: str) -> Switch:
    """Make a version current in one step, and note it."""
    switch = Switch(action, version, current_of(home), time.time())
    link = home / f"{INCOMING}link"
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(version)
    os.replace(str(link), str(home / CURRENT))
    sync(home)
    with open(str(home / HISTORY), "a", encoding="utf-8") as file:
        file.write("\n" * _is_torn(home / HISTORY) + json.dumps(asdict(switch)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return switch


def prune(home: Path, keep: int) -> None:
    """Remove the oldest versions beyond `keep`; never the current one."""
    stack = [version for version in replaced_by(home) if version != current_of(home)]
    strangers = [version for version in versions_of(home) if version not in stack and version != current_of(home)]
    for version in [*strangers, *stack][: -max(keep - 1, 1)]:
        shutil.rmtree(str(home / version), ignore_errors=True)


def current_of(home: Path) -> Optional[str]:
    """Return the current version; None where there is none."""
    link = home / CURRENT
    return os.readlink(str(link)) if link.is_symlink() else None


def versions_of(home: Path) -> List[str]:
    """Return what is installed, in order of names."""
    if not home.is_dir():
        return []
    return sorted(
        path.name for path in home.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."
    )


def replaced_by(home: Path) -> List[str]:
    """Return the versions that lie under each other: the last is current, the one before it is what it replaced."""
    stack: List[str] = []
    for switch in history_of(home):
        if switch.version in stack:  # a way back, or installed again: what came after it no longer counts
            del stack[stack.index(switch.version) + 1 :]
        else:
            stack.append(switch.version)
    installed = versions_of(home)
    return [version for version in stack if version in installed]


def history_of(home: Path) -> List[Switch]:
    """Return all switches, oldest first; a last line that a power cut left unfinished is none."""
    path = home / HISTORY
    switches = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(ValueError, TypeError):
            switches.append(Switch(**json.loads(line)))
    return switches


def _is_torn(history: Path) -> bool:
    """Tell whether a power cut left the last line unfinished."""
    return history.is_file() and not history.read_bytes().endswith(b"\n") and history.stat().st_size > 0


def sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
