"""The wrapper's classes on a JVM, with doubles of Android and of ONNX Runtime: everything but the inference itself."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from android_samples import LABELS, SAMPLES, Layout, sample_payload

from benchmarks.android_lab import App, altered, missing, write_package
from pipeline.budget import Scope
from pipeline.release.golden import golden_array
from pipeline.release.payload import Payload
from pipeline.release.platforms.android import Android
from pipeline.release.self_test import SelfTest

pytestmark = pytest.mark.slow  # a JVM and a compiler each time
ASSETS = "assets/edgeproof/edgeproof.digits/"


def built(folder: Path, payload: Payload, **fields: object) -> tuple[App, Path]:
    if needs := missing("javac", "java"):
        pytest.skip(needs)
    package = Android.model_validate({"ort": False, **fields}).package(payload, None)
    aar = write_package(package, folder / "package")
    return App.build(folder / "app", payload, aar.read_bytes(), f"edgeproof.{fields.get('artifact', 'digits')}"), aar


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> tuple[App, Path]:
    folder = tmp_path_factory.mktemp("android")
    return built(folder, sample_payload(folder / "release"))


def golden_logits(app: App) -> np.ndarray:
    return golden_array(app.payload.golden.outputs, app.payload.files)


@pytest.mark.parametrize(
    ("layout", "batch", "scope"),
    [
        ("float32_nchw", None, "model"),
        ("float32_nchw", 2, "end_to_end"),
        ("uint8_nhwc", None, "model"),
        ("uint8_nhwc", 3, "model"),
    ],
)
def test_pixels_go_in_as_numpy_makes_them_and_recorded_outputs_come_out_as_scores(
    layout: Layout, batch: int | None, scope: Scope, tmp_path: Path
) -> None:
    app, aar = built(tmp_path, sample_payload(tmp_path / "release", layout, batch, scope=scope))
    ran = app.run(aar)  # the double answers only what equals Processing.preprocess of a golden image to the last bit
    powers = np.exp(golden_logits(app).astype(float))
    assert ran.scores(len(LABELS)) == pytest.approx(powers / powers.sum(1, keepdims=True), abs=1e-7)  # float32
    assert json.loads(ran.said("self_test")[0])["scope"] == scope


def test_self_test_is_what_the_gate_reads(app: tuple[App, Path]) -> None:
    found = SelfTest.model_validate_json(app[0].run(app[1]).said("self_test")[0])
    manifest = app[0].payload.manifest
    assert (found.name, found.version, found.platform) == ("digits", "0.1.0", "android")
    assert found.model_sha256 == manifest.files["model.onnx"].sha256
    assert found.device == 'Acme "Phone" 1, Android 15, [arm64-v8a]'
    assert found.runtime_version == "onnxruntime 1.30.0, cpu"
    assert (found.golden.samples, found.golden.largest_difference, found.golden.labels_equal) == (SAMPLES, 0.0, True)
    assert [len(block) for block in found.blocks_ns] == [20]
    assert all((block > 0).all() for block in found.blocks_ns)


def test_self_test_tells_other_answers_than_the_golden_ones(app: tuple[App, Path]) -> None:
    logits = golden_logits(app[0])
    shifted = logits.copy()
    shifted[1, 2] += 0.5
    shifted[2] = -logits[2]
    broken = logits.copy()
    broken[3, 0] = np.nan
    tests = [app[0].run(app[1], answers, classify=False).said("self_test")[0] for answers in (shifted, broken)]
    other, unfinite = (SelfTest.model_validate_json(each).golden for each in tests)
    assert other.largest_difference == pytest.approx(float(np.abs(shifted - logits).max()), rel=1e-6)
    assert not other.labels_equal
    assert (unfinite.largest_difference, unfinite.labels_equal) == (None, False)


def test_outputs_that_are_not_finite_get_no_class(app: tuple[App, Path]) -> None:
    broken = np.full_like(golden_logits(app[0]), np.nan)
    assert "digits: expected finite outputs; got NaN" in app[0].run(app[1], broken).refused


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", b"another model", "TamperedException: model.onnx: expected sha256 "),
        ("labels.txt", b"one\nnone\ntwo\n", "TamperedException: labels.txt: expected sha256 "),
        ("model.properties", b"name=digits\n", "TamperedException: model.properties: expected sha256 "),
        ("model.onnx", None, "ModelException: model.onnx: expected this file of the release; got: "),
    ],
)
def test_what_was_not_released_is_refused_before_the_runtime_gets_it(
    file: str, content: bytes | None, message: str, app: tuple[App, Path], tmp_path: Path
) -> None:
    ran = app[0].run(altered(app[1], tmp_path / "altered.aar", {ASSETS + file: content}))
    assert ran.refused.startswith(message)
    assert ran.said("options") == []  # the double of the runtime prints them when it is asked for a session


def test_golden_answers_of_another_release_are_refused(app: tuple[App, Path], tmp_path: Path) -> None:
    logits = (golden_logits(app[0]) + 1).tobytes()
    archive = altered(app[1], tmp_path / "altered.aar", {f"{ASSETS}golden/logits.bin": logits})
    assert app[0].run(archive).refused.startswith("TamperedException: golden/logits.bin: expected sha256 ")


def test_model_is_mapped_where_it_lies_and_copied_where_an_app_compressed_it(
    app: tuple[App, Path], tmp_path: Path
) -> None:
    assert app[0].run(app[1]).said("copied") == []
    ran = app[0].run(altered(app[1], tmp_path / "packed.apk", {}, compress=True))
    assert "model.onnx" in ran.said("copied")
    assert ran.scores(len(LABELS)).shape == (SAMPLES, len(LABELS))


def test_two_models_live_in_one_app(app: tuple[App, Path], tmp_path: Path) -> None:
    other, other_aar = built(tmp_path, sample_payload(tmp_path / "release", "uint8_nhwc"), artifact="other")
    with zipfile.ZipFile(other_aar) as aar:
        assets = {name: aar.read(name) for name in aar.namelist() if name.startswith("assets/")}
    both = altered(app[1], tmp_path / "both.apk", assets)
    for each in (app[0], other):
        assert each.run(both).scores(len(LABELS)).shape == (SAMPLES, len(LABELS))


def test_processor_that_the_recipe_does_not_name_is_refused(app: tuple[App, Path]) -> None:
    refused = app[0].run(app[1], abi="riscv64").refused
    assert "expected a device of one of [arm64-v8a, x86_64]; got [riscv64]" in refused


def test_execution_providers_are_the_recipes_as_far_as_the_runtime_has_them(tmp_path: Path) -> None:
    payload = sample_payload(tmp_path / "release")
    app, aar = built(tmp_path, payload, providers=("nnapi", "xnnpack", "cpu"))  # the double lacks NNAPI
    ran = app.run(aar)
    assert ran.said("loaded") == ["digits 0.1.0, onnxruntime 1.30.0, xnnpack+cpu"]
    options = "session.intra_op.allow_spinning=0, session.x64quantprecision=1, threads=1"
    assert ran.said("options") == [f"{{{options}, xnnpack={{intra_op_num_threads=1}}}}"]
