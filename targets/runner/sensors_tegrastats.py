"""tegrastats as a source of power, where a Jetson's INA3221 cannot be read as files.

Rule: devices carry this file: Python 3.8, standard library only. The program runs only while power is weighed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, List, Optional, Tuple, Type

from targets.errors import LogRefused
from targets.logs.tegrastats import parse_line

INTERVAL_MS = 100
FIRST_LINE_S = 3.0
"""How long the program may take until it says something."""
STALE_S = 1.0
"""A reading that is older is none."""


def find_tegrastats(root: Path) -> Optional[Path]:
    """Return the program; None where there is none."""
    for folder in ("usr/bin", "usr/local/bin", "home/nvidia"):  # JetPack 3 and 4 had it in the user's folder
        path = root / folder / "tegrastats"
        if path.is_file() and os.access(str(path), os.X_OK):
            return path
    named = shutil.which("tegrastats") if root == Path("/") else None
    return Path(named) if named else None


class Tegrastats:
    """A running tegrastats, whose latest line is at hand."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: Optional[subprocess.Popen[str]] = None
        self._latest: Optional[Tuple[float, Dict[str, float]]] = None
        self._has_said = threading.Event()
        self.reason = ""
        """Why it tells nothing, where that is so."""

    def __enter__(self) -> Tegrastats:
        try:
            self._process = subprocess.Popen(
                [str(self._program), "--interval", str(INTERVAL_MS)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            self.reason = f"{self._program}: {error.strerror}"
            self._has_said.set()
        else:
            threading.Thread(target=self._listen, args=(self._process,), name="tegrastats", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def find_rails(self) -> List[str]:
        """Return the rails of its first line; none where `reason` says why."""
        self._has_said.wait(FIRST_LINE_S)
        if self._latest is None or not self._latest[1]:
            self.reason = self.reason or f"{self._program}: no line with a power rail within {FIRST_LINE_S:g} s"
            return []
        return list(self._latest[1])

    def reader(self, rail: str) -> Callable[[], float]:
        """Return how to read a rail, in mW."""

        def read() -> float:
            at, power_mw = self._latest or (0.0, {})
            if time.monotonic() - at > STALE_S or rail not in power_mw:
                raise OSError(f"tegrastats: no line with {rail} in the last {STALE_S:g} s")
            return power_mw[rail]

        return read

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    self._latest = (time.monotonic(), parse_line(line).power_mw)
                except LogRefused as error:
                    self.reason = str(error)
                self._has_said.set()
        self._has_said.set()
