"""This machine as a device: the same runner in a subprocess, the same folder a job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Callable, Deque, Optional, Sequence, Type

from targets.devices.stop import Stop
from targets.devices.transport import Completed
from targets.errors import DeviceError

KEPT_LINES = 40


class Local:
    """A temporary folder under `work`, and processes of their own group in it."""

    def __init__(self, work: Path, stop: Optional[Stop] = None) -> None:
        self._work = work
        self._stop = stop or Stop()
        self._folder: Optional[Path] = None
        self._process: Optional[subprocess.Popen[str]] = None

    def __enter__(self) -> Local:
        self._stop.raise_if_set()
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._work))
        except OSError as error:
            raise DeviceError(f"{self._work}: expected a folder that can be written; got {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._kill()
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def push(self, local: Path, remote_name: str, *, is_kept: bool = False) -> None:
        """Copy a file into the job's folder; copying again costs nothing, so nothing is kept."""
        try:
            shutil.copyfile(local, self._locate(remote_name))
        except OSError as error:
            raise DeviceError(
                f"{error.filename}: expected to copy {local} to the device; got {error.strerror}"
            ) from error

    def run(
        self, arguments: Sequence[str], timeout_s: float, on_line: Optional[Callable[[str], None]] = None
    ) -> Completed:
        """Run this interpreter with `arguments` in the job's folder, and wait for it."""
        lines: Deque[str] = deque(maxlen=KEPT_LINES)
        is_timed_out = threading.Event()

        def expire() -> None:
            is_timed_out.set()
            self._kill()

        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._locate("."),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # its own group: Ctrl-C reaches the host, which ends the group as a whole
        )
        self._process = process
        assert process.stdout is not None
        timer = threading.Timer(timeout_s, expire)
        timer.daemon = True
        timer.start()
        self._stop.add(self._kill)
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if on_line is not None:
                    on_line(line)
            returncode = process.wait()
        finally:
            timer.cancel()
            self._stop.remove(self._kill)
        self._stop.raise_if_set()
        return Completed(returncode, tuple(lines), is_timed_out.is_set())

    def pull(self, remote_name: str, local: Path) -> bool:
        """Copy a file out of the job's folder; False where there is none."""
        source = self._locate(remote_name)
        if not source.exists():
            return False
        try:
            shutil.copyfile(source, local)
        except OSError as error:
            raise DeviceError(f"{local}: expected to copy {remote_name} there; got {error.strerror}") from error
        return True

    def _locate(self, remote_name: str) -> Path:
        assert self._folder is not None, "used outside of its with block"
        return self._folder / remote_name

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)
