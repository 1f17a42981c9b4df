"""An agent's end of the connection: lines of JSON, and bytes where a line announced them.

Rule: Python 3.8, standard library only, nothing of this project: it reaches the device as source text.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Dict, Iterator

SILENCE_S = 30.0
"""A host that says nothing for so long is gone: its end of a frozen connection is never closed."""
BLOCK_BYTES = 1 << 18

Request = Dict[str, object]


class Channel:
    """The connection to the host; raises EOFError where it is gone."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self._heard = time.monotonic()

    def has_input(self, timeout_s: float) -> bool:
        """Wait until the host says something; raises EOFError where it has been silent for too long."""
        if self._buffer or select.select([self._reader], [], [], timeout_s)[0]:
            return True
        if time.monotonic() - self._heard > SILENCE_S:
            raise EOFError("the host is silent")
        return False

    def read_request(self) -> Request:
        """Return the next line."""
        while b"\n" not in self._buffer:
            self._buffer += self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._heard = time.monotonic()
        request: Request = json.loads(line.decode("utf-8"))
        return request

    def read_bytes(self, size: int) -> Iterator[bytes]:
        """Yield so many bytes."""
        while size:
            block = (self._buffer or self._read())[:size]
            self._buffer = self._buffer[len(block) :]
            size -= len(block)
            yield block

    def send(self, event: str, **fields: object) -> None:
        """Send one line."""
        self.send_bytes(json.dumps({"event": event, **fields}).encode("utf-8") + b"\n")

    def send_bytes(self, block: bytes) -> None:
        """Send bytes that a line announced."""
        try:
            while block:
                block = block[os.write(self._writer, block) :]
        except OSError as error:
            raise EOFError("the host is gone") from error

    def _read(self) -> bytes:
        if not select.select([self._reader], [], [], SILENCE_S)[0]:
            raise EOFError("the host is silent")
        block = os.read(self._reader, BLOCK_BYTES)
        if not block:
            raise EOFError("the host is gone")
        return block
