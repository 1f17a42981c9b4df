"""A tar archive in gzip, which npm takes: laid out byte by byte, and read without a library. Rule: stored blocks only.

The tar is POSIX ustar; the gzip holds stored blocks of deflate (RFC 1951, 3.2.4), so that its bytes follow from the
files, and there is nothing that could grow when it is read.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.release.archive import MAX_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, Piece, is_safe_name
from pipeline.release.packing import ARCHIVE, Contents, Difference, check_folders, check_names, shown
from pipeline.release.text import brief
from targets.errors import EdgeproofError

GZIP = b"\x1f\x8b"
"""How every gzip file begins."""
_HEADER = GZIP + b"\x08\x00" + b"\x00\x00\x00\x00" + b"\x00\xff"
"""Deflate, no flags, no time, no level, no system: what RFC 1952 calls unknown."""
_BLOCK_BYTES = 65535
_RECORD = 512
_HEADER_FIELDS = re.compile(
    rb"(?P<base>.{100})[0-7]{7}\0[0-7]{7}\0[0-7]{7}\0(?P<size>[0-7]{11})\0(?P<time>[0-7]{11})\0.{8}(?P<kind>.).{100}"
    rb"ustar\x0000.{80}(?P<prefix>.{155}).{12}",
    re.DOTALL,
)
_KINDS = {b"1": "a link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe"}


def lay_out_tgz(files: Mapping[str, bytes], created_at: datetime) -> Iterator[Piece]:
    """Yield the archive of `files` from its first byte to its last: sorted names, plain files of one time.

    Raises EdgeproofError for a name that ustar cannot hold.
    """
    pieces = [*_lay_out_tar(files, created_at)]
    total, done, crc = sum(len(piece.data) for piece in pieces), 0, 0
    yield Piece("gzip header", _HEADER)
    for piece in pieces:
        crc, at = zlib.crc32(piece.data, crc), 0
        while at < len(piece.data):
            if done % _BLOCK_BYTES == 0:
                yield Piece(f"block of deflate at byte {done}", _block_header(total - done))
            part = piece.data[at : at + _BLOCK_BYTES - done % _BLOCK_BYTES]
            yield Piece(piece.label, part)
            at, done = at + len(part), done + len(part)
    yield Piece("gzip trailer", struct.pack("<2I", crc, total % 2**32))


def read_tgz(raw: bytes) -> Contents:
    """Read what is safe to read; everything else is a difference."""
    if len(raw) > MAX_BYTES:
        return _refused(Difference(ARCHIVE, "size", f"at most {MAX_BYTES} bytes", "more"))
    tar = _stored_bytes(raw)
    if isinstance(tar, Difference):
        return _refused(tar)
    entries = _read_entries(tar)
    if isinstance(entries, Difference):
        return _refused(entries)
    names = [entry.name for entry in entries]
    differences = [*check_names(names), *check_folders(names), *(each for e in entries for each in _check_entry(e))]
    return Contents(
        lay_out_tgz,
        _tar_time,
        tuple(differences),
        names=frozenset(names),
        files={entry.name: entry.content for entry in entries if _is_plain(entry)},
        times={entry.name: entry.time for entry in entries},
    )


@dataclass(frozen=True)
class _Entry:
    """What a tar archive says of one file, and its bytes."""

    name: str
    kind: bytes
    time: int
    content: bytes


def _lay_out_tar(files: Mapping[str, bytes], created_at: datetime) -> Iterator[Piece]:
    for name in sorted(files):
        content = files[name]
        yield Piece(f"header of {name}", _tar_header(name, len(content), _tar_time(created_at)))
        yield Piece(f"contents of {name}", content)
        yield Piece(f"padding of {name}", bytes(-len(content) % _RECORD))
    yield Piece("end of the tar archive", bytes(2 * _RECORD))


def _tar_time(created_at: datetime) -> int:
    """Return what a tar archive can say of a UTC time: whole seconds since 1970."""
    return max(0, int(created_at.timestamp()))


def _tar_header(name: str, size: int, time: int) -> bytes:
    """Return a header of POSIX ustar: a file that all may read, of nobody."""
    prefix, base = _split(name)
    numbers = b"0000644\0" + 2 * b"0000000\0" + b"%011o\0%011o\0" % (size, time)
    start = base.ljust(100, b"\0") + numbers
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + 2 * b"0000000\0" + prefix.ljust(155, b"\0") + bytes(12)
    sum_ = sum(start) + 8 * ord(" ") + sum(end)  # the sum is taken with blanks in its own place
    return start + b"%06o\0 " % sum_ + end


def _split(name: str) -> tuple[bytes, bytes]:
    """Return the folder and the rest of a path, as long as ustar has room for."""
    encoded = name.encode("ascii")
    if len(encoded) <= 100:
        return b"", encoded
    for at in (at for at, byte in enumerate(encoded) if byte == ord("/")):
        if at <= 155 and len(encoded) - at - 1 <= 100:
            return encoded[:at], encoded[at + 1 :]
    raise EdgeproofError(f"{name}: expected a path that a tar archive can hold; got {len(encoded)} characters")


def _block_header(left: int) -> bytes:
    """Return the head of a stored block of deflate, the last one where no more than it can hold is left."""
    size = min(left, _BLOCK_BYTES)
    return struct.pack("<B2H", left <= _BLOCK_BYTES, size, size ^ 0xFFFF)


def _stored_bytes(raw: bytes) -> bytes | Difference:
    """Return what a gzip file of stored blocks holds."""
    if not raw.startswith(_HEADER):
        return Difference(ARCHIVE, "gzip header", _HEADER.hex(), raw[: len(_HEADER)].hex())
    parts, at, is_last = [], len(_HEADER), False
    while not is_last:
        if (head := raw[at : at + 5]) and head[0] not in (0, 1):
            kind = "compressed, which is not unpacked" if head[0] & 6 else "other bits"
            return Difference(ARCHIVE, f"byte {at}, block of deflate", "a stored one", kind)
        size, complement = struct.unpack("<2H", head[1:]) if len(head) == 5 else (0, 0)
        part = raw[at + 5 : at + 5 + size]
        is_last = bool(head and head[0])
        if size ^ complement != 0xFFFF or len(part) != size:
            return Difference(ARCHIVE, f"byte {at}, block of deflate", "its size twice, and so many bytes", "others")
        if size != _BLOCK_BYTES and not is_last:
            return Difference(
                ARCHIVE, f"byte {at}, block of deflate", f"{_BLOCK_BYTES} bytes, but in the last", str(size)
            )
        parts.append(part)
        at += 5 + size
    content = b"".join(parts)
    trailer = struct.pack("<2I", zlib.crc32(content), len(content) % 2**32)
    if raw[at : at + 8] != trailer:
        return Difference(ARCHIVE, "gzip trailer", f"{trailer.hex()}, of its bytes", brief(raw[at : at + 8].hex()))
    return content


def _read_entries(tar: bytes) -> list[_Entry] | Difference:
    """Return what a tar archive lists, up to its end."""
    entries: list[_Entry] = []
    at = 0
    while (header := tar[at : at + _RECORD]).strip(b"\0"):
        numbers = _HEADER_FIELDS.fullmatch(header)
        if numbers is None:
            return Difference(ARCHIVE, f"byte {at} of the tar archive", "a header of POSIX ustar", brief(header[:100]))
        size, time = int(numbers["size"], 8), int(numbers["time"], 8)
        content = tar[at + _RECORD : at + _RECORD + size]
        prefix, base = (numbers[each].rstrip(b"\0").decode("latin-1") for each in ("prefix", "base"))
        name = f"{prefix}/{base}" if prefix else base
        if len(content) != size:
            return Difference(shown(name), "contents", f"{size} bytes", f"{len(content)}, up to the archive's end")
        if len(entries) == MAX_ENTRIES:
            return Difference(ARCHIVE, "entries", f"at most {MAX_ENTRIES}", "more")
        entries.append(_Entry(name, numbers["kind"], time, content))
        at += _RECORD + size + -size % _RECORD
    return entries


def _check_entry(entry: _Entry) -> Iterator[Difference]:
    file, size = shown(entry.name), len(entry.content)
    if entry.kind != b"0":
        yield Difference(file, "type", "a plain file", _KINDS.get(entry.kind, f"type {brief(entry.kind)}"))
    if entry.name.endswith(".json") and size > MAX_JSON_BYTES:
        yield Difference(file, "size", f"at most {MAX_JSON_BYTES} bytes", f"{size}, which are not read")


def _is_plain(entry: _Entry) -> bool:
    return is_safe_name(entry.name) and not [*_check_entry(entry)]


def _refused(difference: Difference) -> Contents:
    return Contents(lay_out_tgz, _tar_time, (difference,))
