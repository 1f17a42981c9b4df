"""What verification promises: no changed byte goes unseen, every difference is named, nothing ends in a traceback."""

import functools
import hashlib
import io
import json
import operator
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sample_release import TIME, compiled_model, package, passed_report

from pipeline.release.archive import is_safe_name, lay_out, zip_time
from pipeline.release.manifest import Manifest, canonical_json
from pipeline.release.text import violations
from pipeline.release.verify import Verification, open_release, verify_release
from targets.errors import EdgeproofError


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    model = compiled_model(folder)
    return package(folder, model, passed_report(model)).path


@pytest.fixture(scope="module")
def raw(release: Path) -> bytes:
    return release.read_bytes()


def _verify(folder: Path, raw: bytes) -> Verification:
    path = folder / "changed.zip"
    path.write_bytes(raw)
    return verify_release(path)


@pytest.mark.parametrize("step", [101, pytest.param(7, marks=pytest.mark.slow)])
def test_any_changed_byte_is_found(tmp_path: Path, raw: bytes, step: int) -> None:
    changed = bytearray(raw)
    unseen = []
    for position in range(0, len(raw), step):
        changed[position] ^= 1 << position % 8
        if _verify(tmp_path, bytes(changed)).ok:
            unseen.append(position)
        changed[position] = raw[position]
    assert unseen == []


def test_any_shorter_or_longer_archive_is_found(tmp_path: Path, raw: bytes) -> None:
    assert not any(_verify(tmp_path, raw[:size]).ok for size in range(0, len(raw), 101))
    assert not _verify(tmp_path, raw + b"\0").ok
    assert not _verify(tmp_path, b"\0" + raw).ok


@settings(deadline=None, max_examples=100)
@given(data=st.data(), cut=st.integers(0, 40), put=st.binary(max_size=40))
def test_any_edit_is_found_and_none_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, data: st.DataObject, cut: int, put: bytes
) -> None:
    at = data.draw(st.integers(0, len(raw)) | st.integers(len(raw) - 400, len(raw)))
    changed = raw[:at] + put + raw[at + cut :]
    assert _verify(tmp_path_factory.getbasetemp(), changed).ok == (changed == raw)


NASTY = (
    "NaN",
    "1e999",
    '"\\ud800"',
    "9" * 5000,
    "[" * 5000,
    "null",
    '{"../x": 1}',
    "-0",
    "{",
    "[]",
    '"\\u0000"',
    "true",
    "0.5",
)


def _places(value: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(deeper for key, each in items for deeper in _places(each, (*place, key)))]


def _with_nasty(table: dict[str, object], place: tuple[object, ...], nasty: str) -> bytes:
    """Return JSON in which what is at `place` is `nasty`, whether or not that is JSON."""
    value, marker = {"root": table}, "<here>"
    holder = functools.reduce(operator.getitem, ("root", *place)[:-1], value)
    holder[("root", *place)[-1]] = marker
    return json.dumps(value["root"]).replace(json.dumps(marker), nasty).encode()


@settings(deadline=None, max_examples=100)
@given(data=st.data(), name=st.sampled_from(["manifest.json", "report.json"]), nasty=st.sampled_from(NASTY))
def test_no_manifest_and_no_report_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, data: st.DataObject, name: str, nasty: str
) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    table = json.loads(files[name])
    files[name] = _with_nasty(table, data.draw(st.sampled_from(_places(table))), nasty)
    if name == "report.json":
        files = _with_honest_digests(lambda same: same)(files)
    packed = b"".join(piece.data for piece in lay_out(files, TIME))
    said = [str(difference) for difference in _verify(tmp_path_factory.getbasetemp(), packed).differences]
    assert all(line.isprintable() for line in said)
    assert said or name == "report.json"  # which may hold more than is compared


Files = dict[str, bytes]


def _with(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {name: change(files[name])}


def _with_table(name: str, **changes: object) -> Callable[[Files], Files]:
    return _with(name, lambda content: canonical_json(json.loads(content) | changes))


def _with_honest_digests(change: Callable[[Files], Files]) -> Callable[[Files], Files]:
    """What an attacker does who also writes the digests anew."""

    def changed(files: Files) -> Files:
        files = change(files)
        facts = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in files.items()
            if name != "manifest.json"
        }
        return _with_table("manifest.json", files=facts)(files)

    return changed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_with("model.onnx", lambda model: model + b"x"), "model.onnx: size: expected 60 bytes; got 61 bytes"),
        (_with("report.html", bytes.upper), r"report.html: sha256: expected [0-9a-f]{64}; got [0-9a-f]{64}"),
        (lambda files: {**files, "model.onnx": files["labels.txt"]}, "model.onnx: sha256"),
        (lambda files: {**files, "more.txt": b""}, "more.txt: presence: expected no file that the manifest"),
        (lambda files: {k: v for k, v in files.items() if k != "labels.txt"}, "labels.txt: presence: expected a file"),
        (lambda files: {k: v for k, v in files.items() if k != "manifest.json"}, "manifest.json: presence"),
        (_with_table("manifest.json", schema_version=4), "manifest.json: schema_version: expected 3, .* got 4"),
        (_with_table("manifest.json", schema_version=2), "manifest.json: schema_version: expected 3 .an earlier edgep"),
        (_with_table("manifest.json", surprise=1), "manifest.json: surprise: expected no field of this name; got 1"),
        (_with_table("manifest.json", verdict="fail"), "manifest.json: verdict: expected that of all checks"),
        (_with_table("manifest.json", created_at="2026-03-01"), "manifest.json: created_at: expected an ISO 8601 time"),
        (
            _with_table("manifest.json", created_at="0001-01-01T00:00:00+09:00"),
            "manifest.json: created_at: expected an",
        ),
        (_with_table("manifest.json", created_at="2027-01-01T00:00:00Z"), "model.onnx: time: .* got .2026, 3, 1"),
        (_with_table("manifest.json", model="../model.onnx"), "manifest.json: model: expected a plain relative path"),
        (_with_table("manifest.json", context={"x": "\x1b[2J"}), "report.json: context: expected the manifest's"),
        (_with("manifest.json", lambda text: text + b" "), "manifest.json: form: expected JSON as it is packed"),
        (_with_honest_digests(_with("labels.txt", bytes.upper)), "labels.txt: labels: expected the manifest's"),
        (_with_honest_digests(_with_table("report.json", verdict="fail")), "report.json: verdict: .* got 'fail'"),
        (_with_honest_digests(_with_table("report.json", accuracy=None)), "report.json: accuracy: .* got None"),
        (
            _with_honest_digests(_with("model.onnx", bytes.upper)),
            "report.json: artifact.sha256: expected the manifest's",
        ),
        (
            _with_honest_digests(_with("report.json", lambda _: b"[]")),
            "report.json: contents: expected an object",
        ),
    ],
)
def test_verify_says_what_differs_in_contents(
    tmp_path: Path, raw: bytes, change: Callable[[Files], Files], expected: str
) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = change({name: archive.read(name) for name in archive.namelist()})
    verification = _verify(tmp_path, b"".join(piece.data for piece in lay_out(files, TIME)))
    said = [str(difference) for difference in verification.differences]
    assert any(re.match(expected, line) for line in said), said
    assert all(line.isprintable() for line in said)


Entries = list[tuple[zipfile.ZipInfo, bytes]]


def _each(**fields: object) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        for entry, _ in entries:
            for name, value in fields.items():
                setattr(entry, name, value)

    return change


def _add(name: str, content: bytes = b"", **fields: object) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        entry = zipfile.ZipInfo(name, zip_time(TIME))
        for field, value in fields.items():
            setattr(entry, field, value)
        entries.append((entry, content))

    return change


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_each(compress_type=zipfile.ZIP_DEFLATED), "model.onnx: compression: expected stored; got deflated"),
        (_each(external_attr=0o100755 << 16), "model.onnx: permissions: expected 100644 .* got 100755"),
        (
            _each(date_time=(2026, 3, 1, 12, 37, 44)),
            r"model.onnx: time: expected the manifest's \(2026, 3, 1, 12, 37, 42\)",
        ),
        (_each(extra=b"\x99\x99\x00\x00"), "model.onnx: extra fields and comment: expected none"),
        (_each(comment=b"hello"), "model.onnx: extra fields and comment: expected none; got b'hello'"),
        (list.reverse, "archive: order: expected names in sorted order"),
        (_add("../x"), "'../x': name: expected a plain relative path"),
        (_add("/etc/passwd"), "'/etc/passwd': name: expected a plain relative path"),
        (_add("a\\b"), r"'a\\\\b': name: expected a plain relative path"),
        (_add("C:x"), "'C:x': name: expected a plain relative path"),
        (_add("\x1b[2J"), r"'\\x1b\[2J': name: expected a plain relative path"),
        (_add("ä.txt"), r"'\\xe4.txt': name: expected a plain relative path"),
        (_add("folder/"), "'folder/': name: expected a plain relative path"),
        (_add("model.onnx"), "model.onnx: name: expected one file of this name; got 2"),
        (_add("MODEL.onnx"), "model.onnx: name: expected one file of this name; got 2"),
        (_add("link", b"/etc/passwd", external_attr=0o120777 << 16, create_system=3), "link: type: .* a symbolic link"),
        (_add("bomb", b"\0" * 10**6, compress_type=zipfile.ZIP_DEFLATED), "bomb: size: .* declare to be 1000000"),
    ],
)
def test_verify_says_what_differs_in_packing(
    tmp_path: Path, raw: bytes, change: Callable[[Entries], None], expected: str
) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    change(entries)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content, compress_type=entry.compress_type)
    said = [str(difference) for difference in _verify(tmp_path, stream.getvalue()).differences]
    assert any(re.match(expected, line) for line in said), said
    assert all(line.isprintable() for line in said)


def _patch(raw: bytes, name: str, field: int, value: bytes) -> bytes:
    """Overwrite a field of a directory entry (APPNOTE 4.3.12), counted from its signature."""
    at = raw.rindex(name.encode()) - 46 + field
    return raw[:at] + value + raw[at + len(value) :]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (8, b"\x01\x00", "model.onnx: encryption: expected none"),
        (10, b"\x63\x00", "model.onnx: compression: expected stored; got method 99"),
        (16, b"\0\0\0\0", "archive: byte [0-9]+, directory entry of model.onnx: expected"),
        (20, b"\xff\xff\xff\x7f", "archive: size: expected files that fit"),
        (24, b"\xff\xff\xff\x7f", "model.onnx: size: expected as many bytes"),
        (42, b"\x01\x00\x00\x00", "model.onnx: contents: expected 60 bytes after a header at byte 1"),
    ],
)
def test_verify_says_what_a_directory_lies_about(
    tmp_path: Path, raw: bytes, field: int, value: bytes, expected: str
) -> None:
    said = [str(difference) for difference in _verify(tmp_path, _patch(raw, "model.onnx", field, value)).differences]
    assert any(re.match(expected, line) for line in said), said


def test_release_that_differs_is_not_opened(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "changed.zip"
    path.write_bytes(raw.replace(b"model model", b"MODEL model"))
    with pytest.raises(
        EdgeproofError, match=r"changed.zip: expected a release as it was packed(.|\n)*model.onnx: sha256"
    ):
        open_release(path)


def test_what_is_no_file_is_an_error_and_what_is_no_archive_a_difference(tmp_path: Path) -> None:
    with pytest.raises(EdgeproofError, match=r"nowhere.zip: expected a release .* got no such file"):
        verify_release(tmp_path / "nowhere.zip")
    with pytest.raises(EdgeproofError, match="got a folder"):
        verify_release(tmp_path)
    assert "archive: format: expected a zip archive, or a tar archive in gzip; got 5 bytes" in str(
        _verify(tmp_path, b"hello").differences[0]
    )


def test_a_manifest_that_is_no_json_says_where_it_breaks() -> None:
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate_json("{\n  x: 1\n}")
    assert violations(caught.value) == [("contents", "JSON", "key must be a string at line 2 column 3")]


def test_a_name_that_is_too_long_is_no_safe_one() -> None:
    assert is_safe_name("a/" * 127 + "a")
    assert not is_safe_name("a/" * 128 + "a")
