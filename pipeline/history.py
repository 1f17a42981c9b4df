"""Every profile that was taken: one SQLite file beside the results, so that figures of different days can be compared.

Rule: a row is a report as it was written, with its raw samples; nothing is computed here, and nothing is ever changed.
"""

import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError, UsageError
from pipeline.report.report import Report, read_report, report_json

HISTORY_FILE = "history.sqlite"
"""In the build folder."""
SCHEMA = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS profiles (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at TEXT NOT NULL,
    recipe TEXT NOT NULL,
    deployment TEXT NOT NULL,
    report TEXT NOT NULL,
    samples_ns BLOB NOT NULL
)
"""
_COLUMNS = "number, report, samples_ns"
WAIT_S = 30.0
"""For another process that is writing."""


@dataclass(frozen=True)
class Entry:
    """One row."""

    number: int
    """From 1, in order of time."""
    report: Report
    samples_ns: np.ndarray
    """int64, in the order taken."""


class History:
    """The profiles of one build folder."""

    def __init__(self, build: Path) -> None:
        self.path = build / HISTORY_FILE

    def add(self, report: Report, samples_ns: np.ndarray) -> int:
        """Keep a report and its raw samples; return the number that it goes by.

        Raises:
            StoreError: the file cannot be written, or is of a newer version.
        """
        samples = zlib.compress(np.ascontiguousarray(samples_ns, dtype="<i8").tobytes(), 6)
        with self._open() as connection, connection:
            cursor = connection.execute(
                "INSERT INTO profiles (created_at, recipe, deployment, report, samples_ns) VALUES (?, ?, ?, ?, ?)",
                (report.created_at, report.recipe, report.deployment, report_json(report), samples),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def set_aside_if_damaged(self) -> Path | None:
        """Give a file that is no history the name that is returned, so that another can begin; None where it is one."""
        try:
            if self.path.is_file():
                with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                aside = self.path.with_name(f"damaged-{time.time_ns()}-{HISTORY_FILE}")
                return self.path.rename(aside)
        return None

    def entries(self, recipe: str | None = None, deployment: str | None = None, *, last: int = 1000) -> list[Entry]:
        """Return the `last` profiles, oldest first; only those of a recipe or a deployment where one is named."""
        query = (
            f"SELECT {_COLUMNS} FROM profiles WHERE (?1 IS NULL OR recipe = ?1) AND (?2 IS NULL OR deployment = ?2) "
            "ORDER BY number DESC LIMIT ?3"
        )
        if not self.path.is_file():
            return []
        with self._open() as connection:
            return [_entry(row) for row in reversed(connection.execute(query, (recipe, deployment, last)).fetchall())]

    def entry(self, number: int) -> Entry:
        """Return one profile; raises UsageError where there is none of that number."""
        row = None
        if self.path.is_file():
            with self._open() as connection:
                row = connection.execute(f"SELECT {_COLUMNS} FROM profiles WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise UsageError(
                f"{number}: expected the number of a profile in {self.path}; got none of that number; "
                "`edgeproof history` lists them"
            )
        return _entry(row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version > SCHEMA:
                    raise StoreError(
                        f"{self.path}: expected version {SCHEMA}; got {version}, of a newer edgeproof; use that one"
                    )
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path}: expected a history that can be read and written; got: {error}; move it away"
            ) from error


def _entry(row: tuple[int, str, bytes]) -> Entry:
    number, text, samples = row
    return Entry(number, read_report(text), np.frombuffer(zlib.decompress(samples), dtype="<i8"))
