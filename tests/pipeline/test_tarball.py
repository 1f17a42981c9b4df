"""What the archive for npm promises: any reader takes it, and nothing but its one form is read."""

import gzip
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from pipeline.release.packing import check_bytes
from pipeline.release.tarball import lay_out_tgz, read_tgz
from targets.errors import EdgeproofError

TIME = datetime(2026, 3, 1, 12, 37, 43, tzinfo=UTC)
LONG = f"package/{'folder/' * 15}file.txt"
FILES = {"package/model.onnx": bytes(range(256)) * 700, "package/empty.txt": b"", LONG: b"deep"}


def _packed(files: dict[str, bytes]) -> bytes:
    return b"".join(piece.data for piece in lay_out_tgz(files, TIME))


def test_another_reader_finds_the_same_plain_files_of_one_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(_packed(FILES)), mode="r:gz") as archive:
        members = archive.getmembers()
        found = {member.name: archive.extractfile(member).read() for member in members}
    assert found == FILES
    assert [member.name for member in members] == sorted(FILES)
    facts = {(member.mode, member.uid, member.gid, member.uname, member.mtime, member.type) for member in members}
    assert facts == {(0o644, 0, 0, "", int(TIME.timestamp()), tarfile.REGTYPE)}


def test_what_was_laid_out_is_read_back_and_laid_out_again_to_the_byte() -> None:
    raw = _packed(FILES)
    contents = read_tgz(raw)
    assert (dict(contents.files), contents.differences) == (FILES, ())
    assert [*check_bytes(contents, TIME, raw)] == []


def test_nothing_is_compressed_so_the_archive_is_as_large_as_its_files() -> None:
    assert len(_packed({"zeros": bytes(10**6)})) > 10**6


def test_a_path_that_ustar_cannot_hold_is_refused() -> None:
    with pytest.raises(EdgeproofError, match="expected a path that a tar archive can hold; got 120 characters"):
        _packed({"x" * 120: b""})


def _with_tarfile(*entries: tarfile.TarInfo) -> bytes:
    """Return an archive of other entries, in gzip as we write it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return _in_stored_gzip(stream.getvalue())


def _in_stored_gzip(tar: bytes) -> bytes:
    head, size = gzip.compress(b"", mtime=0)[:8] + b"\0\xff", 65535
    starts = range(0, len(tar), size)
    blocks = [(start + size >= len(tar), tar[start : start + size]) for start in starts]
    body = b"".join(struct.pack("<B2H", last, len(part), len(part) ^ 0xFFFF) + part for last, part in blocks)
    return head + body + struct.pack("<2I", zlib.crc32(tar), len(tar))


def _entry(name: str, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: gzip.compress(bytes(10**6), mtime=0), "archive: gzip header: expected 1f8b0800000000"),
        (
            lambda: _packed({})[:10] + gzip.compress(bytes(10**6), mtime=0)[10:],
            "archive: byte 10, block of deflate: expected a stored one; got compressed, which is not unpacked",
        ),
        (lambda: _packed(FILES)[:-4], "archive: gzip trailer: expected"),
        (lambda: _packed(FILES)[: 10**5], "archive: byte 65550, block of deflate: expected its size twice"),
        (lambda: _packed({})[:-1] + b"\x01", "archive: gzip trailer: expected"),
        (lambda: _in_stored_gzip(b"no tar" + bytes(600)), "archive: byte 0 of the tar archive: expected a header"),
        (lambda: _with_tarfile(_entry("../x")), "'../x': name: expected a plain relative path"),
        (lambda: _with_tarfile(_entry("/etc/passwd")), "'/etc/passwd': name: expected a plain relative path"),
        (lambda: _with_tarfile(_entry("a"), _entry("A")), "a: name: expected one file of this name; got 2"),
        (lambda: _with_tarfile(_entry("b"), _entry("a")), "archive: order: expected names in sorted order"),
        (lambda: _with_tarfile(_entry("a"), _entry("a/b")), "a: name: expected a folder, which a/b is in; got a file"),
        (
            lambda: _with_tarfile(_entry("x", type=tarfile.SYMTYPE, linkname="/etc")),
            "x: type: expected a plain file; got a symbolic link",
        ),
        (lambda: _with_tarfile(_entry("x", type=tarfile.DIRTYPE)), "'x/': type: expected a plain file; got a folder"),
        (lambda: _with_tarfile(_entry("x.json", size=2**24 + 1)), "x.json: size: expected at most 16777216 bytes"),
        (lambda: _with_tarfile(*(_entry(f"{i:04}") for i in range(1001))), "archive: entries: expected at most 1000"),
    ],
)
def test_what_is_not_our_form_is_named_and_not_read(make: Callable[[], bytes], expected: str) -> None:
    said = [str(difference) for difference in read_tgz(make()).differences]
    assert any(re.match(expected, line) for line in said), said
    assert all(line.isprintable() for line in said)
