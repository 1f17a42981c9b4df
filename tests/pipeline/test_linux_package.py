"""The Python package of a release: it computes what the chain computed, and refuses what was not measured."""

import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from android_samples import Layout, sample_payload
from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename
from pydantic import ValidationError
from python_packages import golden_images, imported, unpack

from pipeline.budget import Scope
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.linux import Linux
from pipeline.release.self_test import read_self_test
from targets.errors import EdgeproofError
from targets.onnxruntime import saturates_int8
from targets.processing import Processing

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="module")
def package(payload: Payload) -> Package:
    return Linux(ort=False).package(payload, None)


@pytest.fixture
def installed(package: Package, tmp_path: Path) -> Iterator[ModuleType]:
    with imported(package, tmp_path, "edgeproof_digits") as module:
        yield module


def run_self_test(folder: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "edgeproof_digits", "--self-test", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("layout", ["float32_nchw", "uint8_nhwc"])
def test_processing_is_the_chains_bit_for_bit(layout: Layout, batch: int | None, tmp_path: Path) -> None:
    payload = sample_payload(tmp_path / "payload", layout, batch)
    processing = payload.manifest.interface.processing
    random = np.random.default_rng(7)
    with imported(Linux(ort=False).package(payload, None), tmp_path / "wheel", "edgeproof_digits"):
        model = importlib.import_module("edgeproof_digits.model")
        for image in random.integers(0, 256, (20, 5, 4, 3), np.uint8):
            fed = model.preprocess(model.to_image(image.tobytes()))
            expected = processing.preprocess(image[None])
            assert (fed.dtype, fed.shape) == (expected.dtype, (batch or 1, *expected.shape[1:]))
            assert np.array_equal(fed[:1], expected)
            assert not fed[1:].any()
    check_scores(model, processing, random.normal(scale=5, size=(20, 3)).astype(np.float32))


def check_scores(model: ModuleType, processing: Processing, logits_NK: np.ndarray) -> None:
    labels, scores = processing.postprocess(logits_NK)
    for logits_K, label, score in zip(logits_NK, labels, scores, strict=True):
        own = model.postprocess(logits_K)
        assert own.argmax() == label
        assert own[label] == score
        assert own.sum() == pytest.approx(1, abs=1e-6)


def test_every_class_is_answered_likeliest_first(installed: ModuleType, payload: Payload) -> None:
    model, golden = installed.load(), payload.golden
    for image, label, score in zip(golden_images(payload), golden.labels, golden.scores, strict=True):
        answer = model.classify(image)
        assert answer == model.classify(image.tobytes())
        assert answer[0].label == payload.manifest.interface.labels[label]
        assert answer[0].score == pytest.approx(score, abs=1e-6)
        assert sorted(answer, key=lambda result: -result.score) == answer
        assert {result.label for result in answer} == set(payload.manifest.interface.labels)


def test_pixels_of_another_size_or_type_are_refused(installed: ModuleType) -> None:
    for pixels in (b"123", np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 3), np.float32)):
        with pytest.raises(
            installed.PixelsRefused, match=r"pixels: expected .*\(5, 4, 3\).*; got .*; resize the image"
        ):
            installed.load().classify(pixels)


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64"])
@pytest.mark.parametrize("flags", ["fpu avx2 avx512_vnni", "fpu avx2 avx_vnni", "fpu avx2", ""])
def test_exact_products_are_asked_for_where_the_chain_asked(machine: str, flags: str, installed: ModuleType) -> None:
    model = importlib.import_module("edgeproof_digits.model")
    assert model.overflows_int8(machine, flags) == saturates_int8(machine, flags.split())


@pytest.mark.parametrize("scope", ["model", "end_to_end"])
def test_self_test_is_what_the_gate_reads(scope: Scope, tmp_path: Path) -> None:
    payload = sample_payload(tmp_path / "payload", scope=scope)
    folder = unpack(files_of(Linux(ort=False), payload)["edgeproof_digits-0.1.0-py3-none-any.whl"], tmp_path / "wheel")
    done = run_self_test(folder, "--runs", "7", "--warmup", "2")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "self_test.json").write_text(done.stdout)
    result = read_self_test(tmp_path / "self_test.json")
    assert (result.name, result.version, result.platform, result.scope) == ("digits", "0.1.0", "linux", scope)
    assert result.model_sha256 == payload.manifest.files["model.onnx"].sha256
    assert [block.size for block in result.blocks_ns] == [7]
    assert result.golden.samples == 4
    assert result.golden.largest_difference is not None
    assert result.golden.largest_difference <= payload.golden.tolerance


def files_of(platform: Linux, payload: Payload) -> dict[str, bytes]:
    return dict(platform.package(payload, None).files)


def test_plain_archive_holds_the_same_package_and_what_a_reduced_build_needs(payload: Payload, tmp_path: Path) -> None:
    files = files_of(Linux(), payload)
    folder = unpack(files["edgeproof_digits-0.1.0-linux.zip"], tmp_path)
    assert run_self_test(folder, "--runs", "1").returncode == 0
    assert (folder / "requirements.txt").read_text() == "numpy>=1.21\nonnxruntime>=1.18\n"
    release = folder / "edgeproof_digits" / "release"
    assert (release / "required_operators_and_types.config").read_text().startswith("ai.onnx;")
    (release / "model.onnx").write_bytes((release / "model.ort").read_bytes())
    done = run_self_test(folder)
    assert done.returncode == 1
    assert "model.onnx: expected sha256" in done.stderr


def test_tampered_or_missing_model_is_never_loaded(installed: ModuleType) -> None:
    path = Path(str(installed.__file__)).parent / "release" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        installed.ModelTampered, match=r"digits 0\.1\.0: model\.onnx: expected sha256 .*; got .*; install"
    ):
        installed.load()
    path.unlink()
    with pytest.raises(installed.ModelTampered, match=r"model\.onnx: expected it in the package; got none"):
        installed.load()


def test_other_answers_than_the_golden_ones_end_with_1(package: Package, tmp_path: Path) -> None:
    folder = unpack(package.files[package.archive], tmp_path)
    logits = folder / "edgeproof_digits" / "release" / "golden" / "logits.bin"
    logits.write_bytes((np.frombuffer(logits.read_bytes(), "<f4") + np.float32(0.01)).tobytes())
    done = run_self_test(folder, "--runs", "1")
    assert done.returncode == 1
    assert json.loads(done.stdout)["golden"] == {
        "samples": 4,
        "largest_difference": pytest.approx(0.01, abs=1e-4),
        "labels_equal": True,
    }
    assert "digits 0.1.0: expected the golden answers; got others; do not use it on this machine" in done.stderr


def test_model_is_read_out_of_a_zip_application_too(package: Package, payload: Payload, tmp_path: Path) -> None:
    wheel = tmp_path / package.archive
    wheel.write_bytes(package.files[package.archive])
    program = "import sys; sys.path.insert(0, sys.argv[1]); import edgeproof_digits as d; print(d.load().self_test(1))"
    done = subprocess.run([sys.executable, "-c", program, wheel], capture_output=True, text=True, check=True)
    assert "'labels_equal': True" in done.stdout


def test_metadata_is_what_installers_read(package: Package) -> None:
    distribution, version, _, tags = parse_wheel_filename(package.archive)
    assert (distribution, str(version), sorted(map(str, tags))) == ("edgeproof-digits", "0.1.0", ["py3-none-any"])
    with zipfile.ZipFile(io.BytesIO(package.files[package.archive])) as archive:
        metadata = Metadata.from_email(archive.read("edgeproof_digits-0.1.0.dist-info/METADATA"))
    assert (metadata.name, metadata.version, str(metadata.requires_python)) == ("edgeproof-digits", version, ">=3.8")
    assert list(map(str, metadata.requires_dist or [])) == ["numpy>=1.21", "onnxruntime>=1.18"]
    assert metadata.description is not None
    assert "Not measured on any other machine: the verdict (pass) is of " in metadata.description


def test_sources_of_the_wrapper_run_on_python_3_8(package: Package, tmp_path: Path) -> None:
    folder = unpack(package.files[package.archive], tmp_path)
    vermin = str(Path(sys.executable).with_name("vermin"))
    command = [vermin, "-t=3.8-", "--no-tips", "--violations", str(folder / "edgeproof_digits")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-digits", 'expected letters, digits, .* at both ends; got "-digits"'),
        ("größe", 'expected letters, digits, .* at both ends; got "größe"'),
        ("json", 'expected a name that gives a Python module of its own; got "json"'),
        ("Numpy", 'expected a name that gives a Python module of its own; got "Numpy"'),
        ("2d", 'expected a name that gives a Python module of its own; got "2d", module 2d'),
    ],
)
def test_names_that_pip_or_python_refuse_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Linux(name=name)


@pytest.mark.parametrize("version", ["1.0.0+build", "1.0.0-1", "1.0.0-final.candidate", "1.0.0-."])
def test_versions_that_pypi_refuses_or_orders_otherwise_are_refused(version: str) -> None:
    refusal = Linux().refusal("digits", version)
    assert refusal is not None
    assert refusal.startswith("expected a version that PyPI takes and orders alike")
    assert f'got "{version}"; change the recipe\'s version' in refusal


def test_names_and_versions_of_recipes_that_pip_takes_are_taken(payload: Payload) -> None:
    assert [Linux().refusal(name, "1.0.0-rc.1") for name in ("digits", "My.Model_2")] == [None, None]
    assert Linux().refusal("digits-", "1.0.0") == (
        'expected letters, digits, ".", "_" and "-", with a letter or a digit at both ends; got "edgeproof-digits-"; '
        "set name for the platform linux"
    )
    with pytest.raises(ValidationError, match="expected a range of versions as pip takes it"):
        Linux(onnxruntime="1.x")
    package = Linux(name="Acme.Digits", onnxruntime="==1.22.*", ort=False).package(payload, None)
    assert package.use == "pip install ./acme_digits-0.1.0-py3-none-any.whl"


def test_another_runtime_than_the_measured_one_writes_no_model(payload: Payload) -> None:
    runtime = payload.manifest.runtime.model_copy(update={"version": "1.2.3"})
    other = Payload(payload.manifest.model_copy(update={"runtime": runtime}), payload.files)
    with pytest.raises(EdgeproofError, match=r"digits: model\.ort: expected onnxruntime 1\.2\.3, .* set ort = false"):
        Linux().package(other, None)


@pytest.mark.slow
def test_wheel_runs_in_an_empty_environment(package: Package, tmp_path: Path) -> None:
    wheel = tmp_path / package.archive
    wheel.write_bytes(package.files[package.archive])
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    needed = [*pip, "download", "--dest", str(tmp_path / "wheels"), "numpy", "onnxruntime"]
    if (found := subprocess.run(needed, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"needs numpy and onnxruntime from a package index: {found.stderr.strip().splitlines()[-1]}")
    subprocess.run([*pip, "install", "--no-index", "--find-links", str(tmp_path / "wheels"), wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    done = run_self_test(tmp_path, "--runs", "20", python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["samples_ns"]) == 20


@pytest.mark.device
def test_wheel_answers_alike_on_another_processor(package: Package) -> None:
    """EDGEPROOF_DEVICE_SSH is how to reach a Linux device whose python3 has NumPy and ONNX Runtime: `ssh board`."""
    reach = shlex.split(os.environ.get("EDGEPROOF_DEVICE_SSH", ""))
    if not reach:
        pytest.skip('needs a Linux device: set EDGEPROOF_DEVICE_SSH="ssh NAME"')
    content = package.files[package.archive]
    script = (
        "set -e; folder=$(mktemp -d); trap 'rm -rf $folder' EXIT; cd $folder; cat > wheel.zip; "
        "python3 -m zipfile -e wheel.zip .; python3 -m edgeproof_digits --self-test --runs 5"
    )
    done = subprocess.run([*reach, script], input=content, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["golden"]["labels_equal"]
