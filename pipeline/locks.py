"""Locks between processes, and who holds them.

Rule: the kernel holds the lock, so it dies with its process; the holder file beside it only informs people, and a
stale one is harmless.
"""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pipeline.durable import write_durably, writing_in

_UNREPORTED_WAIT_S = 0.2
"""Shorter waits are not worth a word, and a holder needs a moment to say who it is."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, since when (UTC, ISO 8601) and what for."""

    pid: int
    user: str
    since: str
    purpose: str

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.user}, since {self.since}: {self.purpose}"


@contextmanager
def held(path: Path, purpose: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`; where another process has it, tell `on_wait` in words who does, and wait for ever.

    Raises StoreError where the lock's folder cannot be written.
    """
    lock = FileLock(path, thread_local=False)
    if not _acquired(lock, path, purpose, _UNREPORTED_WAIT_S):
        if on_wait:
            on_wait(holder_in_words(path))
        with writing_in(path.parent, purpose):
            lock.acquire(poll_interval=0.1)
    with _released_at_the_end(lock, path):
        with writing_in(path.parent, purpose):
            write_durably(_holder_file(path), json.dumps(asdict(_myself(purpose))).encode())
        yield


@contextmanager
def held_if_free(path: Path, purpose: str) -> Iterator[bool]:
    """As `held`, but where another process has the lock, yield False at once."""
    lock = FileLock(path, thread_local=False)
    if _acquired(lock, path, purpose, timeout_s=0):
        with _released_at_the_end(lock, path):
            yield True
    else:
        yield False


def holder_in_words(path: Path) -> str:
    """Return who holds the lock file `path`, as far as is known."""
    try:
        return str(Holder(**json.loads(_holder_file(path).read_bytes())))
    except (OSError, ValueError, TypeError):
        return "another process"  # it has only just taken the lock, or was killed while it wrote


def _acquired(lock: BaseFileLock, path: Path, purpose: str, timeout_s: float) -> bool:
    with writing_in(path.parent, purpose):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            return False
        return True


@contextmanager
def _released_at_the_end(lock: BaseFileLock, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)  # before the release: afterwards it is the next holder's
        lock.release()


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _myself(purpose: str) -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = str(os.getuid())
    return Holder(os.getpid(), user, datetime.now(UTC).isoformat(timespec="seconds"), purpose)
