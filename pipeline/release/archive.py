"""The one way in which a release is packed: a zip archive whose every byte follows from its files and one time.

Rule: nothing of the machine gets in, and nothing is compressed. zlib and its successors pack the same bytes
differently, so a compressed archive could not be rebuilt elsewhere byte for byte; models hardly shrink, can be
memory-mapped where they lie, and an archive that is never unpacked cannot be a zip bomb. The headers are laid
out here, field by field (PKWARE APPNOTE 4.3), because a library's defaults may change with its version.
"""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from targets.errors import EdgeproofError

MAX_BYTES = 2**31
"""Of a whole archive: it is read into memory once, so that what was verified is what is used."""
MAX_ENTRIES = 1000
MAX_NAME = 255
"""Characters of a file's path."""
MAX_JSON_BYTES = 2**24
"""Of one file that is parsed."""

FILE_MODE = 0o100644
"""A plain file that everyone may read."""
UNIX = 3
VERSION_NEEDED = 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True)
class Piece:
    """A run of bytes of an archive, and what it is."""

    label: str
    data: bytes


def is_safe_name(name: str) -> bool:
    """Whether `name` is a plain relative path that means the same file in every system.

    ASCII words between slashes, 255 characters at most: no "..", no leading slash or dot, no backslash, drive, or
    control character.
    """
    return len(name) <= MAX_NAME and _SAFE_NAME.fullmatch(name) is not None


def parse_time(created_at: str) -> datetime:
    """Return an ISO 8601 time with its zone in UTC; raises ValueError for any other text."""
    try:
        time = datetime.fromisoformat(created_at)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("expected an ISO 8601 time with its zone, as 2026-01-31T12:00:00Z")


def zip_time(created_at: datetime) -> tuple[int, int, int, int, int, int]:
    """Return what a zip archive can say of a UTC time: 1980 to 2107, seconds rounded down to even ones."""
    if created_at.year < 1980:
        return (1980, 1, 1, 0, 0, 0)
    if created_at.year > 2107:
        return (2107, 12, 31, 23, 59, 58)
    day = (created_at.year, created_at.month, created_at.day)
    return (*day, created_at.hour, created_at.minute, created_at.second // 2 * 2)


def lay_out(files: Mapping[str, bytes], created_at: datetime) -> Iterator[Piece]:
    """Yield the archive of `files` from its first byte to its last: sorted names, stored, no extra fields."""
    directory = []
    offset = 0
    stamp = _dos_time(zip_time(created_at))
    for name in sorted(files):
        data, encoded = files[name], name.encode("ascii")
        facts = (VERSION_NEEDED, 0, zipfile.ZIP_STORED, *stamp, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        yield Piece(f"header of {name}", _LOCAL.pack(b"PK\x03\x04", *facts) + encoded)
        yield Piece(f"contents of {name}", data)
        place = (0, 0, 0, FILE_MODE << 16, offset)
        entry = _CENTRAL.pack(b"PK\x01\x02", UNIX << 8 | VERSION_NEEDED, *facts, *place)
        directory.append(Piece(f"directory entry of {name}", entry + encoded))
        offset += _LOCAL.size + len(encoded) + len(data)
    yield from directory
    size = sum(len(piece.data) for piece in directory)
    yield Piece("end record", _END.pack(b"PK\x05\x06", 0, 0, len(files), len(files), size, offset, 0))


def write_archive(path: Path, files: Mapping[str, bytes], created_at: datetime) -> None:
    """Write the archive of `files` to `path`, which never holds a part of it: synced, then renamed.

    Raises EdgeproofError for an archive above MAX_BYTES.
    """
    assert all(is_safe_name(name) for name in files), sorted(files)
    if (size := sum(map(len, files.values()))) > MAX_BYTES - 2**20:
        raise EdgeproofError(
            f"{path}: expected at most {MAX_BYTES} bytes in a release; got {size}; ship a smaller model"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.writelines(piece.data for piece in lay_out(files, created_at))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_entries(raw: bytes) -> list[zipfile.ZipInfo]:
    """Return what the directory of an archive lists, in its order.

    Raises zipfile.BadZipFile, and nothing else, where there is no directory that can be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return archive.infolist()
    except (NotImplementedError, ValueError, struct.error, OverflowError, EOFError, OSError) as error:
        raise zipfile.BadZipFile(str(error)) from error


def stored_bytes(raw: bytes, entry: zipfile.ZipInfo) -> bytes | None:
    """Return the bytes of a stored entry as they lie in the archive, or None where they are not there in full."""
    header = raw[entry.header_offset : entry.header_offset + _LOCAL.size]
    if entry.header_offset < 0 or len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
        return None
    start = entry.header_offset + _LOCAL.size + sum(struct.unpack("<2H", header[-4:]))
    data = raw[start : start + entry.compress_size]
    return data if len(data) == entry.compress_size else None


def _dos_time(time: tuple[int, int, int, int, int, int]) -> tuple[int, int]:
    year, month, day, hour, minute, second = time
    return hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
