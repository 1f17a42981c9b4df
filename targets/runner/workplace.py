"""The work folder on a device: its lock, a folder for each job, and files that are kept by their digest.

    lock            held by whoever works on the device: a host's agent, and the job that it started
    holder.json     who that is; it only informs, the kernel holds the lock
    files/SHA256    what is not sent twice: the runner, models
    jobs/ID/        one job; removed by its host, or by the next one where its host is gone

Rule: Python 3.8, standard library only, nothing of this project but its neighbour: both reach the device as source.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, Optional

from targets.runner import supervisor

KEPT_S = 7 * 24 * 3600.0
"""Files that no job used for so long are removed."""
KEPT_BYTES = 2 << 30
"""The most that is kept, the latest used first."""
MARGIN_BYTES = 1 << 20
"""Room that must stay free beside a pushed file, for the job's own."""

Holder = Dict[str, object]


class Workplace:
    """The work folder, and this process's hold on the device."""

    def __init__(self, work: str, lease_s: float) -> None:
        self.root = Path(work).expanduser()
        self._lease_s = lease_s
        self._lock: Optional[int] = None

    def prepare(self) -> None:
        """Make the folder, and see that it can be written; raises OSError."""
        for folder in (self.root, self._files, self._jobs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = self.root / f"trial-{os.getpid()}"
        trial.write_bytes(b"1")
        trial.unlink()

    def acquire(self, holder: Holder) -> bool:
        """Take the device where it is free; then what earlier hosts left is removed."""
        if self._lock is None:
            lock = os.open(str(self.root / "lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        partial = self.root / "holder.json.part"
        partial.write_text(json.dumps(holder), encoding="utf-8")
        os.replace(str(partial), str(self.root / "holder.json"))
        self._sweep(str(holder.get("job")))
        return True

    @property
    def lock(self) -> int:
        """The open file that is locked, for a job to inherit."""
        assert self._lock is not None
        return self._lock

    def release(self) -> None:
        """Leave the device to others; a job that inherited the lock keeps it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_holder(self) -> Holder:
        """Return who has the device, as far as is known."""
        try:
            found = json.loads((self.root / "holder.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_held(self) -> bool:
        """Tell whether somebody works on the device."""
        lock = os.open(str(self.root / "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def locate_job(self, job: str) -> Path:
        """Return a job's folder."""
        return self._jobs / plain(job)

    def locate_kept(self, sha256: str) -> Path:
        """Return where a file of this digest is kept."""
        return self._files / plain(sha256)

    def require_room(self, num_bytes: int) -> None:
        """Raise OSError where a file of that size does not fit; what is kept makes room for it first."""
        if self.free_bytes() < num_bytes + MARGIN_BYTES:
            self._prune(0)
        if self.free_bytes() < num_bytes + MARGIN_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.root))

    def free_bytes(self) -> int:
        """Return what this user may still write."""
        space = os.statvfs(str(self.root))
        return space.f_bavail * space.f_frsize

    def remove(self, job: str) -> None:
        """End a job where it still runs, and remove its folder."""
        folder = self.locate_job(job)
        supervisor.stop(folder)
        shutil.rmtree(str(folder), ignore_errors=True)

    def clear(self) -> None:
        """Remove all that is kept, and what other hosts left; the folder too where nothing else lies in it."""
        shutil.rmtree(str(self._files), ignore_errors=True)
        shutil.rmtree(str(self._jobs), ignore_errors=True)
        for name in ("holder.json", "lock"):
            (self.root / name).unlink()
        with suppress(OSError):  # releases are installed there
            self.root.rmdir()

    def _sweep(self, job: str) -> None:
        """Remove the folders of jobs whose hosts have not been heard of, and files that nobody needed lately."""
        for folder in self._jobs.iterdir():
            if folder.name == job or supervisor.is_alive(folder):
                continue
            if supervisor.unattended_s(folder) > self._lease_s or supervisor.was_rebooted(folder):
                shutil.rmtree(str(folder), ignore_errors=True)
        self._prune(KEPT_BYTES)

    def _prune(self, most_bytes: int) -> None:
        files = {path: path.stat() for path in self._files.iterdir() if path.is_file()}
        total = 0
        for path, facts in sorted(files.items(), key=lambda item: -item[1].st_mtime):
            total += facts.st_size
            if total > most_bytes or abs(time.time() - facts.st_mtime) > KEPT_S:
                path.unlink()

    @property
    def _files(self) -> Path:
        return self.root / "files"

    @property
    def _jobs(self) -> Path:
        return self.root / "jobs"


def plain(name: str) -> str:
    """Return a name that is one file in its folder; raises OSError for others."""
    if not name or "/" in name or name.startswith("."):
        raise OSError(errno.EINVAL, "expected the name of one file", name)
    return name


def digest(path: Path) -> str:
    """Return the sha256 of a file as it lies on the disk."""
    found = hashlib.sha256()
    with open(str(path), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()
