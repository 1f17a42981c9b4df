"""The content-addressed store: `run(stage, *inputs)` computes a result once and serves it while nothing changed.

Rule: what lies under entries/ is complete, verified on every use and never written again.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast

from pipeline.durable import stage_writing_in, sync, temporary_name, write_durably, writing_in
from pipeline.entry import (
    RECORD_NAME,
    Damage,
    Entry,
    artifact_from_json,
    artifact_to_json,
    files_of,
    read_record,
    read_verified,
    require_storable,
    require_true_digest,
)
from pipeline.locks import held
from pipeline.stage_call import StageCall, changes, describe_call, installed_version, returned_type
from pipeline.store_folders import (
    Removed,
    StoredResult,
    StoreFolders,
    holds_something,
    last_used,
    move_to_free_name,
    remove_results,
    stored_results,
    unused_results,
)

Inputs = ParamSpec("Inputs")
Artifact = TypeVar("Artifact")
Stage = Callable[Concatenate[Path, Inputs], Artifact]
"""A plain function `stage(out_dir, /, *inputs) -> artifact`; its module declares STAGE_VERSION and TOOLCHAIN."""

_LOG = logging.getLogger(__name__)
_COMPARED_ENTRIES = 20
_SHOWN_CHANGES = 3


@dataclass(frozen=True)
class StageStarted:
    """A stage begins to compute; `resumes` where an interrupted run left something."""

    name: str
    key: str
    resumes: bool


@dataclass(frozen=True)
class StageWaits:
    """Another process computes the same result; `holder` says in words who."""

    name: str
    key: str
    holder: str


@dataclass(frozen=True)
class StageRun:
    """A stage has its result: computed, or from the store (then `seconds` is the time to verify it)."""

    name: str
    seconds: float
    cached: bool
    key: str


StageEvent = StageStarted | StageWaits | StageRun


@dataclass(frozen=True)
class Planned(Generic[Artifact]):
    """What `run` would do."""

    name: str
    key: str
    reason: str
    """Why it would be computed, in words; "cached" where it would not."""
    artifact: Artifact | None
    """The result where it is in the store; what a later stage needs to be planned."""

    @property
    def cached(self) -> bool:
        """Whether the result is in the store."""
        return self.artifact is not None


@dataclass(frozen=True)
class _Kept:
    artifact: object
    is_new: bool = False


class Store:
    """Results on disk under `root`, by content; any number of processes may share it.

    `runs` lists what this object served or computed, in order. `on_stage` hears of every step as it happens.
    `version_of` looks up the installed version of a distribution.
    """

    def __init__(
        self,
        root: Path,
        *,
        on_stage: Callable[[StageEvent], None] | None = None,
        version_of: Callable[[str], str] = installed_version,
    ) -> None:
        self.root = root.resolve()
        self._folders = StoreFolders(self.root)
        self.runs: list[StageRun] = []
        self._on_stage = on_stage
        self._version_of = version_of

    def run(self, stage: Stage[Inputs, Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs) -> Artifact:
        """Return the stage's artifact: from the store where the same call is there and undamaged, else computed.

        Keyword-only callbacks (`on_...`) reach the stage and do not count. A stage that finds files in its out_dir
        was interrupted there, with the same inputs, and may go on from them.

        Raises StoreError where the store cannot be written, TypeError for a stage or an input that has no key, and
        whatever the stage raises.
        """
        started = time.perf_counter()
        call, returns = self._described(stage, args, kwargs)
        kept = self._load(self._folders.entry(call), call, returns)
        if not isinstance(kept, _Kept):
            kept = self._compute_unless_done(call, returns, lambda out_dir: stage(out_dir, *args, **kwargs))
        self._touch(call)
        finished = StageRun(call.stage, time.perf_counter() - started, not kept.is_new, call.key)
        self.runs.append(finished)
        self._tell(finished)
        return cast(Artifact, kept.artifact)  # decoded by the stage's own annotation

    def lookup(
        self, stage: Stage[Inputs, Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs
    ) -> Planned[Artifact]:
        """Say what `run` would do with the same arguments, and why; writes nothing."""
        call, returns = self._described(stage, args, kwargs)
        kept = self._load(self._folders.entry(call), call, returns)
        if isinstance(kept, _Kept):
            return Planned(call.stage, call.key, "cached", cast(Artifact, kept.artifact))
        if isinstance(kept, Damage):
            return Planned(call.stage, call.key, f"damaged: {kept.reason}", None)
        if holds_something(self._folders.partial(call)):
            return Planned(call.stage, call.key, "interrupted, resumes", None)
        return Planned(call.stage, call.key, self._why_stale(call), None)

    def unfinished(self, stage: Stage[Inputs, Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs) -> Path:
        """Return the folder in which `run` computes, and which an interrupted one leaves behind."""
        return self._folders.partial(self._described(stage, args, kwargs)[0])

    def entries(self) -> tuple[StoredResult, ...]:
        """Return everything that takes room, the most recently used first."""
        return stored_results(self._folders)

    def size_bytes(self) -> int:
        """Return the bytes that all results take."""
        return sum(result.size_bytes for result in self.entries())

    def prune(self, unused_days: float) -> Removed:
        """Remove results, also interrupted ones, that were not used for so many days, and all damaged ones."""
        return remove_results(self._folders, unused_results(self.entries(), unused_days))

    def clear(self) -> Removed:
        """Remove every result."""
        return remove_results(self._folders, self.entries())

    def _described(
        self, stage: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[StageCall, type]:
        if not isinstance(stage, FunctionType):
            raise TypeError(f"expected a plain function as a stage; got {stage!r}")
        returns = returned_type(stage)
        require_storable(returns, stage.__name__)
        return describe_call(stage, args, kwargs, self._version_of), returns

    def _load(self, folder: Path, call: StageCall, returns: type) -> _Kept | Damage | None:
        with writing_in(self.root, f"reading {call.stage}"):
            if not folder.is_dir():
                return None
            entry = read_verified(folder, call.key)
        if isinstance(entry, Damage):
            return entry
        try:
            return _Kept(artifact_from_json(returns, entry.artifact, folder))
        except ValueError as error:
            return Damage(f"its artifact is not what {call.stage} returns today: {error}")

    def _compute_unless_done(self, call: StageCall, returns: type, work: Callable[[Path], object]) -> _Kept:
        def tell_who_holds_it(holder: str) -> None:
            self._tell(StageWaits(call.stage, call.key, holder))

        with held(self._folders.lock(call.stage, call.key), f"computing {call.stage}", tell_who_holds_it):
            kept = self._load(self._folders.entry(call), call, returns)  # another process may have finished it
            if isinstance(kept, _Kept):
                return kept
            if isinstance(kept, Damage):
                self._set_aside(call, kept)
            return self._compute(call, returns, work)

    def _compute(self, call: StageCall, returns: type, work: Callable[[Path], object]) -> _Kept:
        partial = self._folders.partial(call)
        purpose = f"the results of {call.stage}"
        if not isinstance(self._load(partial, call, returns), _Kept):  # else it was complete but for its new place
            self._tell(StageStarted(call.stage, call.key, holds_something(partial)))
            with writing_in(self.root, purpose):
                partial.mkdir(parents=True, exist_ok=True)
                for leftover in (partial / RECORD_NAME, temporary_name(partial / RECORD_NAME)):
                    leftover.unlink(missing_ok=True)
            started = time.perf_counter()
            with stage_writing_in(self.root, purpose):
                artifact = work(partial)
            seconds = time.perf_counter() - started
            with writing_in(self.root, purpose):
                self._record(call, returns, artifact, seconds)
        with writing_in(self.root, purpose):
            folder = self._move_into_place(call)
        kept = self._load(folder, call, returns)
        if not isinstance(kept, _Kept):
            raise ValueError(f"{folder}: expected what was just written; got {kept}")
        return replace(kept, is_new=True)

    def _record(self, call: StageCall, returns: type, artifact: object, seconds: float) -> None:
        partial = self._folders.partial(call)
        form = artifact_to_json(artifact, partial)
        if artifact_from_json(returns, form, partial) != artifact:
            raise TypeError(f"{call.stage}: expected an artifact that equals its copy from JSON; got {artifact!r}")
        if (partial / RECORD_NAME).exists():
            raise ValueError(f"{call.stage}: expected any file name but {RECORD_NAME}, which is the store's own")
        files = files_of(partial)
        require_true_digest(artifact, files, partial)
        entry = Entry(
            stage=call.stage,
            key=call.key,
            version=call.version,
            toolchain=call.toolchain,
            inputs=call.inputs,
            artifact_type=type(artifact).__qualname__,
            artifact=form,
            files=files,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
        )
        for path in partial.rglob("*"):
            sync(path)
        write_durably(partial / RECORD_NAME, entry.sealed().model_dump_json(indent=2).encode())

    def _move_into_place(self, call: StageCall) -> Path:
        folder = self._folders.entry(call)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folders.partial(call).rename(folder)
        for parent in (folder.parent, folder.parent.parent, self.root):
            sync(parent)
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        return folder

    def _set_aside(self, call: StageCall, damage: Damage) -> None:
        with writing_in(self.root, f"setting aside a damaged result of {call.stage}"):
            kept_at = move_to_free_name(self._folders.entry(call), self._folders.damaged(call))
        _LOG.warning(
            "%s: stored result is damaged (%s); kept in %s, computing anew", call.stage, damage.reason, kept_at
        )

    def _why_stale(self, call: StageCall) -> str:
        folders = sorted(self._folders.entries(call.stage), key=last_used, reverse=True)[:_COMPARED_ENTRIES]
        records = [record for record in map(read_record, folders) if isinstance(record, Entry)]
        if not records:
            return "never run"
        found = min((changes(record.call, call) for record in records), key=len)  # of equals, the latest used
        more = f"; and {len(found) - _SHOWN_CHANGES} more" if len(found) > _SHOWN_CHANGES else ""
        return "; ".join(found[:_SHOWN_CHANGES]) + more

    def _touch(self, call: StageCall) -> None:
        with suppress(OSError):  # a store that can only be read still serves
            os.utime(self._folders.entry(call) / RECORD_NAME)

    def _tell(self, event: StageEvent) -> None:
        if self._on_stage:
            self._on_stage(event)
