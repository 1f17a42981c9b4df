"""An Android package in the hands of the tools of app teams: Gradle, aapt2, zipalign, apksigner."""

from pathlib import Path

import pytest
from android_samples import LABELS, SAMPLES, sample_payload

from benchmarks.android_lab import FRAMEWORK, App, build_apk, gradle_resolves, missing, write_package
from pipeline.release.platforms.android import Android
from pipeline.release.platforms.android_maven import Coordinates

pytestmark = pytest.mark.slow
RUNTIME = Coordinates("com.microsoft.onnxruntime", "onnxruntime-android", "1.30.0")
"""Here a folder with doubles stands for Maven Central."""


def test_gradle_resolves_the_aar_and_its_runtime_and_compiles_an_app_against_it(tmp_path: Path) -> None:
    if needs := missing("gradle", "javac"):
        pytest.skip(needs)
    package = Android(ort=False).package(sample_payload(tmp_path / "release"), None)
    aar = write_package(package, tmp_path / "package")
    coordinates = Coordinates("edgeproof", "digits", "0.1.0")
    resolved = gradle_resolves(tmp_path / "project", tmp_path / "package" / "maven", coordinates, RUNTIME)
    assert [line.split(" ")[1] for line in resolved] == [f"({coordinates})", f"({RUNTIME})"]
    assert resolved[0].endswith(f" {aar}")


def test_apk_of_the_aar_is_linked_aligned_and_signed_and_its_model_is_mapped(tmp_path: Path) -> None:
    if needs := missing("aapt2", "zipalign", "apksigner", "keytool", "javac"):
        pytest.skip(needs)
    if not FRAMEWORK.is_file():
        pytest.skip("needs Android's resources: apt-get install android-framework-res")
    payload = sample_payload(tmp_path / "release")
    aar = write_package(Android(ort=False).package(payload, None), tmp_path / "package")
    apk = build_apk(tmp_path / "apk", aar)
    ran = App.build(tmp_path / "app", payload, aar.read_bytes(), "edgeproof.digits").run(apk)
    assert ran.scores(len(LABELS)).shape == (SAMPLES, len(LABELS))
    assert "model.onnx" not in ran.said("copied")
