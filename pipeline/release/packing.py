"""What an archive shows of itself, held against the one way of packing. Rule: nothing is ever unpacked.

An entry that is compressed, encrypted, a link, or not where it says, is a difference and is not read; what can be
read cannot be larger than the archive. So there is no bomb to go off and nothing to write outside a folder.
"""

import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.release.archive import (
    FILE_MODE,
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_JSON_BYTES,
    UNIX,
    is_safe_name,
    lay_out,
    read_entries,
    stored_bytes,
    zip_time,
)
from pipeline.release.text import brief

ARCHIVE = "archive"
"""Stands for the whole file where a difference lies in none of its files."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was packed; every text is one printable line."""

    file: str
    """Name in the archive, or ARCHIVE."""
    aspect: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.file}: {self.aspect}: expected {self.expected}; got {self.got}"


@dataclass(frozen=True)
class Contents:
    """What could be read of an archive, and what is wrong with it so far."""

    names: frozenset[str]
    """Of all entries, read or not."""
    files: Mapping[str, bytes]
    """By name; without what is not stored as it is."""
    entries: tuple[zipfile.ZipInfo, ...]
    differences: tuple[Difference, ...]


def read_contents(raw: bytes) -> Contents:
    """Read what is safe to read; everything else is a difference."""
    if len(raw) > MAX_BYTES:
        return _refused("size", f"at most {MAX_BYTES} bytes", "more")
    try:
        entries = read_entries(raw)
    except zipfile.BadZipFile as error:
        return _refused("format", "a zip archive", f"{len(raw)} bytes: {brief(str(error))}")
    if len(entries) > MAX_ENTRIES:
        return _refused("entries", f"at most {MAX_ENTRIES}", str(len(entries)))
    if (declared := sum(entry.compress_size for entry in entries)) > len(raw):
        return _refused("size", f"files that fit in its {len(raw)} bytes", f"{declared} bytes declared")
    differences = [*_check_names(entries), *(each for entry in entries for each in _check_entry(entry))]
    files: dict[str, bytes] = {}
    for entry in filter(_is_plain, entries):
        content = stored_bytes(raw, entry)
        if content is None:
            expected = f"{entry.file_size} bytes after a header at byte {entry.header_offset}"
            differences.append(Difference(entry.orig_filename, "contents", expected, "no such header, or fewer bytes"))
        else:
            files[entry.orig_filename] = content
    names = frozenset(entry.orig_filename for entry in entries)
    return Contents(names, files, tuple(entries), tuple(differences))


def check_times(contents: Contents, created_at: datetime) -> Iterator[Difference]:
    """Compare the times of all entries with the release's."""
    expected = zip_time(created_at)
    for entry in contents.entries:
        if entry.date_time != expected:
            yield Difference(shown(entry.orig_filename), "time", f"the manifest's {expected}", str(entry.date_time))


def check_bytes(contents: Contents, created_at: datetime, raw: bytes) -> Iterator[Difference]:
    """Lay the archive out again from its own files, and compare all of it up to the first difference."""
    start = 0
    for piece in lay_out(contents.files, created_at):
        found = raw[start : start + len(piece.data)]
        if found != piece.data:
            yield _first_difference(piece.label, start, piece.data, found)
            return
        start += len(piece.data)
    if start != len(raw):
        yield Difference(ARCHIVE, "end", f"nothing after byte {start}", f"{len(raw) - start} bytes more")


def shown(name: str) -> str:
    """Return a name from an archive so that it is safe to print."""
    return name if is_safe_name(name) else brief(name)


def _refused(aspect: str, expected: str, got: str) -> Contents:
    return Contents(frozenset(), {}, (), (Difference(ARCHIVE, aspect, expected, got),))


def _check_names(entries: list[zipfile.ZipInfo]) -> Iterator[Difference]:
    names = [entry.orig_filename for entry in entries]
    for name in dict.fromkeys(names):
        if not is_safe_name(name):
            yield Difference(shown(name), "name", "a plain relative path inside the release", brief(name))
    for name, count in Counter(map(str.casefold, names)).items():
        if count > 1:
            yield Difference(
                shown(name), "name", "one file of this name", f"{count}, upper and lower case taken as one"
            )
    if names != sorted(names):
        yield Difference(ARCHIVE, "order", "names in sorted order", brief(names))


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Whether the entry's bytes lie in the archive as they are."""
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
    return stored and not entry.flag_bits & 1 and is_safe_name(entry.orig_filename) and not _is_too_long(entry)


def _is_too_long(entry: zipfile.ZipInfo) -> bool:
    """Whether the entry would be parsed, and take many times its size."""
    return entry.orig_filename.endswith(".json") and entry.file_size > MAX_JSON_BYTES


def _check_entry(entry: zipfile.ZipInfo) -> Iterator[Difference]:
    file, mode = shown(entry.orig_filename), entry.external_attr >> 16
    if entry.flag_bits & 1:
        yield Difference(file, "encryption", "none", "an encrypted file, which is not read")
    if entry.compress_type != zipfile.ZIP_STORED:
        method = "deflated" if entry.compress_type == zipfile.ZIP_DEFLATED else f"method {entry.compress_type}"
        yield Difference(file, "compression", "stored", f"{method}, which is not unpacked")
    if entry.file_size != entry.compress_size:
        got = f"{entry.compress_size} that declare to be {entry.file_size} when unpacked"
        yield Difference(file, "size", "as many bytes in the archive as in the file", got)
    if _is_too_long(entry):
        yield Difference(file, "size", f"at most {MAX_JSON_BYTES} bytes", f"{entry.file_size}, which are not read")
    if stat.S_ISLNK(mode):
        yield Difference(file, "type", "a plain file", "a symbolic link")
    elif entry.external_attr != FILE_MODE << 16 or entry.create_system != UNIX:
        got = f"{mode:o} of system {entry.create_system}, attributes {entry.external_attr & 0xFFFF:#x}"
        yield Difference(file, "permissions", f"{FILE_MODE:o} of system {UNIX}, attributes 0x0", got)
    if entry.extra or entry.comment:
        yield Difference(file, "extra fields and comment", "none", brief(entry.extra + entry.comment))


def _first_difference(label: str, start: int, expected: bytes, found: bytes) -> Difference:
    at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), len(found))
    got = brief(found[at : at + 8]) if at < len(found) else "the end of the archive"
    return Difference(ARCHIVE, f"byte {start + at}, {label}", brief(expected[at : at + 8]), got)
