"""What a job writes, cut into lines as it comes."""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, Optional, Tuple

KEPT_LINES = 40


class Lines:
    """Bytes in, lines out; the last ones are kept."""

    def __init__(self, on_line: Optional[Callable[[str], None]]) -> None:
        self.num_bytes = 0  # so many were taken: where to go on after a broken connection
        self._on_line = on_line
        self._rest = b""
        self._kept: Deque[str] = deque(maxlen=KEPT_LINES)

    def write(self, block: bytes) -> None:
        """Take what came, in pieces of any size."""
        self.num_bytes += len(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            self._kept.append(text)
            if self._on_line is not None:
                self._on_line(text + "\n")

    def last(self) -> Tuple[str, ...]:
        """Return the last lines, one that was not finished too."""
        rest = [self._rest.decode("utf-8", "replace")] if self._rest else []
        return (*self._kept, *rest)
