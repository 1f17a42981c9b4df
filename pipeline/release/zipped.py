"""Read a stored zip archive, as `pipeline/release/archive.py` lays it out. Rule: what is not stored is not read."""

import stat
import zipfile
from collections.abc import Iterator

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
from pipeline.release.packing import ARCHIVE, Contents, Difference, check_folders, check_names, shown
from pipeline.release.text import brief


def read_zip(raw: bytes) -> Contents:
    """Read what is safe to read; everything else is a difference."""
    if len(raw) > MAX_BYTES:
        return _refused("size", f"at most {MAX_BYTES} bytes", "more")
    try:
        entries = read_entries(raw)
    except zipfile.BadZipFile as error:
        return _refused("format", "a zip archive, or a tar archive in gzip", f"{len(raw)} bytes: {brief(str(error))}")
    if len(entries) > MAX_ENTRIES:
        return _refused("entries", f"at most {MAX_ENTRIES}", str(len(entries)))
    if (declared := sum(entry.compress_size for entry in entries)) > len(raw):
        return _refused("size", f"files that fit in its {len(raw)} bytes", f"{declared} bytes declared")
    names = [entry.orig_filename for entry in entries]
    differences = [*check_names(names), *check_folders(names), *(each for e in entries for each in _check_entry(e))]
    files: dict[str, bytes] = {}
    for entry in filter(_is_plain, entries):
        content = stored_bytes(raw, entry)
        if content is None:
            expected = f"{entry.file_size} bytes after a header at byte {entry.header_offset}"
            differences.append(Difference(entry.orig_filename, "contents", expected, "no such header, or fewer bytes"))
        else:
            files[entry.orig_filename] = content
    return Contents(
        lay_out,
        zip_time,
        tuple(differences),
        names=frozenset(names),
        files=files,
        times={entry.orig_filename: entry.date_time for entry in entries},
        sums={entry.orig_filename: entry.CRC for entry in entries},
    )


def _refused(aspect: str, expected: str, got: str) -> Contents:
    return Contents(lay_out, zip_time, (Difference(ARCHIVE, aspect, expected, got),))


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
