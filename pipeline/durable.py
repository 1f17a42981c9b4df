"""Writing that survives a crash, and what to tell users where a folder cannot be written.

Rule: a file is either absent, or old, or new, but never half-written.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole: written beside it, synced, renamed, and the folder synced."""
    beside = temporary_name(path)
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def temporary_name(path: Path) -> Path:
    """Return where `write_durably` writes before it renames; a crash can leave it behind."""
    return path.with_name(f".{path.name}.tmp")


def sync(path: Path) -> None:
    """Have the kernel write a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing_in(folder: Path, purpose: str) -> Iterator[None]:
    """Turn a full disk, a used-up quota or a folder that cannot be written into a StoreError; pass on other errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _REFUSED:
            raise
        raise StoreError(_cannot_write(folder, purpose, error)) from error


@contextmanager
def stage_writing_in(folder: Path, purpose: str) -> Iterator[None]:
    """As `writing_in`, around code that also reads elsewhere: only what concerns `folder`, or a disk without a name."""
    try:
        yield
    except OSError as error:
        inside = isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(folder)
        nameless_full_disk = error.filename is None and error.errno in _FULL
        if not nameless_full_disk and not (inside and error.errno in _FULL | _REFUSED):
            raise
        raise StoreError(_cannot_write(folder, purpose, error)) from error


def _cannot_write(folder: Path, purpose: str, error: OSError) -> str:
    cause = error.strerror or str(error)
    at = f" at {error.filename}" if error.filename and str(error.filename) != str(folder) else ""
    if error.errno in _FULL:
        return (
            f'{folder}: expected room to write ({purpose}); got "{cause}"{at}, {_free_bytes(folder):,} bytes free; '
            "make room (`edgeproof store prune` and `edgeproof store clear` do) or choose another folder with --build"
        )
    return (
        f'{folder}: expected a folder that this user can write ({purpose}); got "{cause}"{at}; '
        "change its owner or permissions, or choose another folder with --build"
    )


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return shutil.disk_usage(existing).free
