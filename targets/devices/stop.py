"""A wish to end that reaches every thread which waits for a device.

Rule: what a thread waits for is ended at once, what a device runs is ended by the thread whose job it is; a transport
that is left cleans up as ever.
"""

from __future__ import annotations

import threading
from typing import Callable, List

from targets.errors import Interrupted


class Stop:
    """Not set at first, and set once; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._ends: List[Callable[[], None]] = []

    def set(self) -> None:
        """Wake every thread that waits; none begins anything on a device from here on."""
        with self._lock:
            self._is_set = True
            for end in self._ends:
                end()

    @property
    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def raise_if_set(self) -> None:
        """Raise Interrupted once it is set."""
        if self._is_set:
            raise Interrupted("interrupted by its user: expected to go on; run the same command again")

    def add(self, end: Callable[[], None]) -> None:
        """Have `end` called when it is set: it ends what a thread is about to wait for, and does not wait itself."""
        with self._lock:
            self._ends.append(end)
            if self._is_set:
                end()

    def remove(self, end: Callable[[], None]) -> None:
        """Forget an end; once this returns, it is not called any more."""
        with self._lock:
            if end in self._ends:
                self._ends.remove(end)
