"""Where the store keeps what, and what takes room there.

Rule: a folder comes and goes by one rename, so no half of it is ever seen.

entries/<stage>/<key>/      the stage's files, and entry.json, whose modification time says when it was last used
partial/<stage>-<key>/      where a stage writes; survives a crash, so that it can go on from what it kept there
damaged/<stage>-<key>-<n>/  set aside: no longer what was written
locks/<stage>-<key>.lock    held while a result is computed or removed
trash/                      on its way out
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipeline.durable import writing_in
from pipeline.entry import RECORD_NAME, Entry, read_record
from pipeline.locks import held, held_if_free
from pipeline.stage_call import StageCall

State = Literal["entry", "partial", "damaged"]
_FOLDER_NAME = re.compile(r"(?P<stage>.+)-(?P<key>[0-9a-f]{64})(-\d+)?")


@dataclass(frozen=True)
class StoreFolders:
    """The layout under one root."""

    root: Path

    def entry(self, call: StageCall) -> Path:
        """Return where a complete result lies."""
        return self.root / "entries" / call.stage / call.key

    def partial(self, call: StageCall) -> Path:
        """Return where a stage writes its result."""
        return self.root / "partial" / f"{call.stage}-{call.key}"

    def damaged(self, call: StageCall) -> Path:
        """Return where a damaged result is set aside, without its number."""
        return self.root / "damaged" / f"{call.stage}-{call.key}"

    def lock(self, stage: str, key: str) -> Path:
        """Return the lock file of one result."""
        return self.root / "locks" / f"{stage}-{key}.lock"

    def entries(self, stage: str = "*") -> Iterator[Path]:
        """Return the folders of all complete results, or of one stage's."""
        return (folder for folder in (self.root / "entries").glob(f"{stage}/*") if folder.is_dir())


@dataclass(frozen=True)
class StoredResult:
    """One folder of the store, for people; times are in UTC."""

    state: State
    stage: str
    key: str
    size_bytes: int
    created: datetime
    last_used: datetime
    folder: Path


@dataclass(frozen=True)
class Removed:
    """What `prune` and `clear` did; a result that a process is computing now stays."""

    num_results: int
    size_bytes: int
    num_in_use: int


def stored_results(folders: StoreFolders) -> tuple[StoredResult, ...]:
    """Return everything that takes room, the most recently used first."""
    found = [_result("entry", folder.parent.name, folder.name, folder) for folder in folders.entries()]
    found += _named_results(folders.root, "partial")
    found += _named_results(folders.root, "damaged")
    return tuple(sorted(found, key=lambda result: result.last_used, reverse=True))


def unused_results(results: Sequence[StoredResult], unused_days: float) -> tuple[StoredResult, ...]:
    """Return those that were not used for so many days, and all damaged ones."""
    oldest = datetime.now(UTC) - timedelta(days=unused_days)
    return tuple(result for result in results if result.state == "damaged" or result.last_used < oldest)


def remove_results(folders: StoreFolders, results: Sequence[StoredResult]) -> Removed:
    """Remove these results, but for those that a process is computing now."""
    trash = folders.root / "trash"
    if not results and not trash.exists():
        return Removed(0, 0, 0)
    removed: list[StoredResult] = []
    with held(folders.root / "locks" / "removal.lock", "removing results"):
        for result in results:
            with held_if_free(folders.lock(result.stage, result.key), "removing it") as is_free:
                if is_free and result.folder.exists():
                    with writing_in(folders.root, "removing results"):
                        move_to_free_name(result.folder, trash / result.folder.name)
                    removed.append(result)
        with writing_in(folders.root, "removing results"):
            if trash.exists():
                shutil.rmtree(trash)
    return Removed(len(removed), sum(result.size_bytes for result in removed), len(results) - len(removed))


def move_to_free_name(folder: Path, wanted: Path) -> Path:
    """Rename a folder to `wanted`-<n>, the first n that is free; returns the new place."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while (free := wanted.with_name(f"{wanted.name}-{number}")).exists():
        number += 1
    return folder.rename(free)


def holds_something(folder: Path) -> bool:
    """Tell whether a folder is there and not empty."""
    return folder.is_dir() and any(folder.iterdir())


def last_used(folder: Path) -> float:
    """Return when a result was last used, in seconds since the epoch; of one without a record, when it was written."""
    record = folder / RECORD_NAME
    return record.stat().st_mtime if record.is_file() else folder.stat().st_mtime


def _named_results(root: Path, state: State) -> Iterator[StoredResult]:
    for folder in (root / state).glob("*"):
        if name := _FOLDER_NAME.fullmatch(folder.name):
            yield _result(state, name["stage"], name["key"], folder)


def _result(state: State, stage: str, key: str, folder: Path) -> StoredResult:
    used = datetime.fromtimestamp(last_used(folder), UTC)
    record = read_record(folder)
    created = datetime.fromisoformat(record.created_at) if isinstance(record, Entry) else used
    size_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return StoredResult(state, stage, key, size_bytes, created, used, folder)
