"""What a release promises: packed in one way, and only what was judged and passed."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import onnx
import pytest
from onnx import helper
from sample_release import CHECK, INTERFACE, TIME, compiled_model, package, passed_report

from pipeline.measuring.verdict import Verdict
from pipeline.release.archive import lay_out, zip_time
from pipeline.release.manifest import manifest_schema
from pipeline.release.verify import open_release, verify_release
from targets.errors import EdgeproofError

SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    model = compiled_model(folder)
    return package(folder, model, passed_report(model)).path


@pytest.fixture(scope="module")
def raw(release: Path) -> bytes:
    return release.read_bytes()


def test_same_model_and_report_give_the_same_bytes_in_any_folder_under_any_umask(tmp_path: Path, raw: bytes) -> None:
    folder = tmp_path / "another place"
    folder.mkdir()
    earlier = os.umask(0o077)
    try:
        model = compiled_model(folder)
        release = package(folder, model, passed_report(model))
    finally:
        os.umask(earlier)
    assert release.path.read_bytes() == raw
    assert release.sha256 == hashlib.sha256(raw).hexdigest()
    assert os.fsencode(tmp_path) not in raw
    assert list((folder / "release").iterdir()) == [folder / "release" / "digits-0.1.0-cpu.zip"]


def test_another_reader_finds_plain_sorted_stored_files_of_the_reports_time(release: Path) -> None:
    with zipfile.ZipFile(release) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    names = ["MODEL_CARD.md", "README.md", "bom.cdx.json", "golden.json", "golden/images.bin", "golden/logits.bin"]
    names += ["labels.txt", "manifest.json", "model.onnx", "report.html", "report.json"]
    assert [entry.filename for entry in entries] == names
    assert {entry.date_time for entry in entries} == {(2026, 3, 1, 12, 37, 42)}
    assert {entry.external_attr for entry in entries} == {0o100644 << 16}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.extra + entry.comment for entry in entries} == {b""}


def test_layout_is_that_of_pythons_own_zip_writer() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (("a/b.txt", b"first"), ("c", b"")):
            entry = zipfile.ZipInfo(name, zip_time(TIME))
            entry.external_attr, entry.create_system = 0o100644 << 16, 3
            archive.writestr(entry, content)
    assert b"".join(piece.data for piece in lay_out({"c": b"", "a/b.txt": b"first"}, TIME)) == stream.getvalue()


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), (1980, 1, 1, 0, 0, 0)),
        (datetime(2026, 3, 1, 12, 37, 43, 999, tzinfo=UTC), (2026, 3, 1, 12, 37, 42)),
        (datetime(9999, 1, 1, tzinfo=UTC), (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_zip_times_have_a_floor_a_ceiling_and_two_seconds(time: datetime, expected: tuple[int, ...]) -> None:
    assert zip_time(time) == expected


def test_full_disk_leaves_the_earlier_release_and_nothing_half_written(tmp_path: Path) -> None:
    earlier = tmp_path / "digits.zip"
    earlier.write_bytes(b"earlier")
    program = """
import pathlib, resource, signal, sys
from datetime import UTC, datetime
from pipeline.release.archive import write_archive
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_archive(pathlib.Path(sys.argv[1]), {"model": bytes(5000)}, datetime.now(UTC))
"""
    result = subprocess.run(
        [sys.executable, "-c", program, earlier], capture_output=True, encoding="utf-8", check=False
    )
    assert "File too large" in result.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_verified_release_gives_the_model_and_its_evidence(release: Path) -> None:
    assert verify_release(release).differences == ()
    opened = open_release(release)
    assert opened.model == b"model " * 10
    assert opened.manifest.interface == INTERFACE
    assert opened.manifest.checks == (CHECK,)
    assert opened.manifest.accuracy is not None
    assert opened.manifest.accuracy.on_device == 0.975


def test_manifest_satisfies_its_published_schema_and_that_is_up_to_date(release: Path) -> None:
    with zipfile.ZipFile(release) as archive:
        jsonschema.validate(json.loads(archive.read("manifest.json")), json.loads(manifest_schema()))
    command = (
        "write pipeline.release.manifest.manifest_schema() to docs/manifest.schema.json, and think of SCHEMA_VERSION"
    )
    assert SCHEMA.read_bytes() == manifest_schema(), command


def test_failed_check_is_never_released(tmp_path: Path) -> None:
    model = compiled_model(tmp_path)
    failed = passed_report(model, replace(CHECK, verdict=Verdict.FAIL))
    for report in (failed, failed.model_copy(update={"accepted_undecided": True})):
        with pytest.raises(EdgeproofError, match=r"digits for cpu: expected every check to pass; got accuracy fail"):
            package(tmp_path, model, report)
    assert not (tmp_path / "release").exists()


def test_undecided_check_is_released_only_where_accepted_and_says_so(tmp_path: Path) -> None:
    model = compiled_model(tmp_path)
    report = passed_report(model, replace(CHECK, verdict=Verdict.UNDECIDED))
    with pytest.raises(EdgeproofError, match="accuracy undecided; measure longer, or set --accept-undecided"):
        package(tmp_path, model, report)
    release = package(tmp_path, model, report.model_copy(update={"accepted_undecided": True}))
    assert open_release(release.path).manifest.accepted_undecided
    with zipfile.ZipFile(release.path) as archive:
        assert "not every budget could be decided" in archive.read("README.md").decode()


def test_only_the_judged_and_trained_model_is_released(tmp_path: Path) -> None:
    model = compiled_model(tmp_path)
    report = passed_report(model)
    with pytest.raises(EdgeproofError, match="expected a trained model"):
        package(tmp_path, model, report.model_copy(update={"untrained": True}))
    with pytest.raises(EdgeproofError, match="as when it was compiled"):
        package(tmp_path, replace(model, sha256="0" * 64), report)
    with pytest.raises(EdgeproofError, match="as when it was judged"):
        package(tmp_path, compiled_model(tmp_path, b"another model"), report)


@pytest.mark.parametrize(
    ("labels", "recipe", "message"),
    [
        (("one", "two"), "digits", "interface.labels: expected 3, one a class of the output; got 2"),
        (("one", "two\n", "three"), "digits", r"interface.labels: expected printable text .* got 'two\\n'"),
        (("one", "two\udc80", "three"), "digits", r"interface.labels: expected printable text .* got 'two\\udc80'"),
        (INTERFACE.labels, "../digits", r"name: expected text that matches .* got '../digits'"),
    ],
)
def test_what_cannot_be_named_or_labelled_is_refused(
    tmp_path: Path, labels: tuple[str, ...], recipe: str, message: str
) -> None:
    model = compiled_model(tmp_path)
    report = passed_report(model).model_copy(update={"recipe": recipe})
    with pytest.raises(EdgeproofError, match=message):
        package(tmp_path, model, report, INTERFACE.model_copy(update={"labels": labels}))


@pytest.mark.parametrize(
    ("runtime", "precision"), [("null", "int8"), ("onnxruntime", "int8_dynamic"), ("openvino", "bf16")]
)
def test_readme_program_runs_the_released_model(runtime: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip({"null": "onnx"}.get(runtime, runtime))
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    weights = helper.make_tensor("w", onnx.TensorProto.FLOAT, (64, 3), [0.0, 0.0, -1.0] * 64)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (None, 1, 8, 8))
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (None, 3))
    graph = helper.make_graph(nodes, "tiny", [image], [logits], [weights])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model = compiled_model(tmp_path, content, runtime)
    report = passed_report(model).model_copy(update={"precision": precision})
    with zipfile.ZipFile(package(tmp_path, model, report).path) as archive:
        archive.extractall(tmp_path)
    program = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert program is not None
    result = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program[1]],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    # Zeros enter as -0.5: logits are 0, 0 and 32, so softmax is 1 in float32.
    assert result.stdout == "größer 1.0\n"
