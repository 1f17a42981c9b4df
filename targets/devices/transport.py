"""The seam between the host and a device: push, run, pull, in a folder that belongs to one job.

Rule: a transport is a context manager; leaving it removes the folder and whatever still runs in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Protocol, Sequence, Tuple, Type


@dataclass(frozen=True)
class Completed:
    """How a process on the device ended."""

    returncode: int
    """Negative: the signal that killed it."""
    output: Tuple[str, ...]
    """Its last lines, standard output and error together."""
    is_timed_out: bool = False
    failure: Optional[str] = None
    """Why there is no end to tell of: the device lost the process itself."""
    oom_kills: int = 0
    """Processes that the device's kernel ended meanwhile for want of memory, where it counts them."""
    peak_bytes: int = 0
    """The most memory that it had at once, where that is known."""


class Transport(Protocol):
    """A device's end of one job."""

    def __enter__(self) -> Transport:
        """Make the job's folder."""
        ...

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Kill what still runs, and remove the folder."""
        ...

    def push(self, local: Path, remote_name: str, *, is_kept: bool = False) -> None:
        """Copy a file into the job's folder; what is kept need not be sent again for the next job."""
        ...

    def run(
        self, arguments: Sequence[str], timeout_s: float, on_line: Optional[Callable[[str], None]] = None
    ) -> Completed:
        """Run the device's Python with these arguments in the job's folder, and wait for it.

        `on_line` gets each line of its output. A process that takes longer than `timeout_s` is killed.
        """
        ...

    def pull(self, remote_name: str, local: Path) -> bool:
        """Copy a file out of the job's folder; False where there is none."""
        ...
