"""RECORD of a wheel: the digests that Python's installers check. Rule: derived from all other files, never stored.

The format is that of the packaging specification "Recording installed projects".
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping

WHEEL = ".dist-info/WHEEL"
RECORD = ".dist-info/RECORD"


def record_of(names: Iterable[str]) -> str | None:
    """Return the path of RECORD where the files are a wheel's, else None."""
    return next((name.removesuffix(WHEEL) + RECORD for name in sorted(names) if _is_wheel_file(name)), None)


def record_bytes(files: Mapping[str, bytes], record: str) -> bytes:
    """Return RECORD: a line for each file in order of names, and one for itself without a digest."""
    lines = {name: f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()}
    return "".join(f"{line}\n" for _, line in sorted((lines | {record: f"{record},,"}).items())).encode()


def _is_wheel_file(name: str) -> bool:
    return name.endswith(WHEEL) and name.count("/") == 1


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
