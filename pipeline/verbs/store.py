"""`edgeproof store`: what is kept between runs, and how to be rid of it."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from pipeline.report.wording import byte_words, second_words
from pipeline.store import Store
from pipeline.store_folders import Removed, StoredResult
from pipeline.training.outputs_folder import TEACHER_OUTPUTS, OutputsFolder
from pipeline.verbs.output import console_for_people, write_json

STORE_FOLDER = "store"
"""In the build folder."""
_SHOWN_KEY = 12


def open_store(build: Path) -> Store:
    """Return the store of a build folder."""
    return Store(build / STORE_FOLDER)


def run_show(build: Path, *, as_json: bool) -> int:
    """List what is kept."""
    results = open_store(build).entries()
    if as_json:
        write_json([_as_json(result) for result in results])
        return 0
    console = console_for_people(as_json=False)
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("stage", "state", "key", "size", "age", "last used"):
        table.add_column(column, justify="right" if column in ("size", "age", "last used") else "left")
    for result in results:
        ages = (f"{second_words((now - then).total_seconds())} ago" for then in (result.created, result.last_used))
        table.add_row(result.stage, result.state, result.key[:_SHOWN_KEY], byte_words(result.size_bytes), *ages)
    if results:
        console.print(table)
    total = byte_words(sum(result.size_bytes for result in results))
    console.print(Text(f"{build / STORE_FOLDER}: {len(results)} results, {total}"), soft_wrap=True)
    outputs = _teacher_outputs(build)
    console.print(Text(f"{outputs.path}: teacher outputs, {byte_words(outputs.size_bytes())}"), soft_wrap=True)
    return 0


def run_prune(build: Path, days: int) -> int:
    """Remove what was not used for so many days, and what is damaged."""
    return _tell(build, open_store(build).prune(days), _teacher_outputs(build).prune(days))


def run_clear(build: Path) -> int:
    """Remove everything."""
    return _tell(build, open_store(build).clear(), _teacher_outputs(build).prune(0))


def _teacher_outputs(build: Path) -> OutputsFolder:
    return OutputsFolder(build / TEACHER_OUTPUTS)


def _tell(build: Path, removed: Removed, outputs_bytes: int) -> int:
    in_use = f"; {removed.num_in_use} in use by a running process stay" if removed.num_in_use else ""
    results = f"{removed.num_results} results, {byte_words(removed.size_bytes)}{in_use}"
    text = f"{build / STORE_FOLDER}: removed {results}, and {byte_words(outputs_bytes)} of teacher outputs"
    console_for_people(as_json=False).print(Text(text), soft_wrap=True)
    return 0


def _as_json(result: StoredResult) -> JsonValue:
    return {
        "state": result.state,
        "stage": result.stage,
        "key": result.key,
        "size_bytes": result.size_bytes,
        "created": result.created.isoformat(),
        "last_used": result.last_used.isoformat(),
        "folder": str(result.folder),
    }
