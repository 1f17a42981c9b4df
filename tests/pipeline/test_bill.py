"""Bill of materials and model card: what they promise to who takes a model into an app."""

import functools
import json
import operator
from dataclasses import replace
from pathlib import Path

import pytest
from android_samples import sample_payload
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from pydantic import JsonValue
from sample_release import CARD, LICENCES, compiled_model, package, passed_report

from pipeline.measuring.proportions import wilson_interval
from pipeline.release.bill import BILL, Library, make_bill
from pipeline.release.bill_check import check_bill
from pipeline.release.card import NetworkFacts
from pipeline.release.licences import Licences
from pipeline.release.manifest import Manifest
from pipeline.release.model_card import render_model_card
from pipeline.release.platforms import DEFAULTS
from pipeline.release.verify import open_release, verify_bytes
from pipeline.report.report import LatencyFigures, SamplesFile

LATENCY = LatencyFigures(
    scope="model",
    threads=1,
    num_samples=8192,
    p50_ms=1.0,
    p90_ms=1.25,
    p99_ms=1.5,
    p99_ci_ms=(1.45, 1.75),
    budget_ms=5,
    budget_percentile=99,
    protocol="burst: each inference timed host to host",
    block_sizes=(4096, 4096),
    warmup_runs=100,
    seconds=10,
    lag1_autocorrelation=0.1,
    measured_at="2026-03-01T12:37:40+00:00",
    samples=SamplesFile(path="samples.npz", sha256="5" * 64),
)
VERSION, TIMESTAMP = '"version": "', '"\n    },\n    "timestamp"'
"""Around the version of the model, which is the last thing said of it."""
LIBRARIES = (
    Library("onnxruntime-android", "1.22.0", "pkg:maven/com.microsoft.onnxruntime/onnxruntime-android", "MIT"),
    Library("numpy", ">=1.21", "pkg:pypi/numpy", "BSD-3-Clause AND Zlib"),
    Library("opencv", "4", "pkg:generic/opencv", None),
)


LIBRARIES_OF = {
    "android": {"pkg:maven/com.microsoft.onnxruntime/onnxruntime-android"},
    "ios": {"pkg:swift/github.com/microsoft/onnxruntime-swift-package-manager"},
    "linux": {"pkg:pypi/numpy", "pkg:pypi/onnxruntime"},
    "web": {"pkg:npm/onnxruntime-node", "pkg:npm/onnxruntime-web"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("bill")
    model = compiled_model(folder, runtime="onnxruntime")
    found = open_release(package(folder, model, passed_report(model)).path).manifest
    return found.model_copy(update={"latency": LATENCY, "lineage": {"data": "a" * 64, "teacher": "b" * 64}})


def _by_ref(bill: bytes) -> dict[str, dict[str, JsonValue]]:
    table = json.loads(bill)
    return {each["bom-ref"]: each for each in (table["metadata"]["component"], *table["components"])}


def test_bill_satisfies_the_strict_schema_of_cyclonedx_with_and_without_libraries(manifest: Manifest) -> None:
    teachers = (*CARD.teachers, NetworkFacts(architecture="vit", origin="loaded from vit.pt"))
    of_two = manifest.model_copy(
        update={"card": CARD.model_copy(update={"teachers": teachers}), "licences": Licences(model="LicenseRef-ours")}
    )
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for bill in (make_bill(manifest), make_bill(of_two, LIBRARIES)):
        assert validator.validate_str(bill.decode()) is None
    assert validator.validate_str(make_bill(manifest).decode().replace('"data"', '"dates"')) is not None  # it does look


@pytest.mark.parametrize("kind", list(DEFAULTS))
def test_bill_of_a_package_satisfies_the_schema_and_names_the_platforms_libraries(kind: str, tmp_path: Path) -> None:
    platform = DEFAULTS[kind].model_copy(update={"ort": False})
    package = platform.package(sample_payload(tmp_path), None)
    verification = verify_bytes(package.files[package.archive])
    assert verification.manifest is not None
    bill = verification.files[verification.manifest.evidence + BILL]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None
    libraries = [part for part in _by_ref(bill).values() if part["type"] == "library"]
    assert all("licenses" in each for each in libraries)
    purls = {str(part["purl"]).partition("@")[0] for part in libraries}
    assert purls == LIBRARIES_OF[kind]


def test_bill_names_model_data_teacher_and_runtime_with_licences_and_digests(manifest: Manifest) -> None:
    bill = make_bill(manifest)
    parts = _by_ref(bill)
    assert {ref: part["type"] for ref, part in parts.items()} == {
        "model": "machine-learning-model",
        "data": "data",
        "teacher": "machine-learning-model",
        "pkg:pypi/onnxruntime": "library",
    }
    assert parts["model"]["hashes"] == [{"alg": "SHA-256", "content": manifest.files["model.onnx"].sha256}]
    assert parts["teacher"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert parts["teacher"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert "licenses" not in parts["data"]
    assert {"name": "edgeproof:licence", "value": "unknown"} in parts["data"]["properties"]
    assert {"ref": "model", "dependsOn": ["pkg:pypi/onnxruntime"]} in json.loads(bill)["dependencies"]


def test_figures_in_the_bill_have_their_intervals(manifest: Manifest) -> None:
    metrics = _by_ref(make_bill(manifest))["model"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    on_device, p99 = metrics[0], next(each for each in metrics if "p99" in each["type"])
    low, high = wilson_interval(351, 360)  # 0.975 of 360
    assert (on_device["value"], on_device["slice"]) == ("0.975", "on the device: 360 test images")
    assert on_device["confidenceInterval"] == {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
    assert p99["confidenceInterval"] == {"lowerBound": "1.45", "upperBound": "1.75"}


def test_same_manifest_gives_the_same_bill_and_another_one_another_serial_number(manifest: Manifest) -> None:
    other = manifest.model_copy(update={"version": "0.2.0"})
    assert make_bill(manifest) == make_bill(manifest)
    serials = {json.loads(make_bill(each))["serialNumber"] for each in (manifest, other)}
    assert len(serials) == 2
    assert json.loads(make_bill(manifest))["metadata"]["timestamp"] == "2026-03-01T12:37:43+00:00"


def test_library_of_a_range_has_no_version_but_says_the_range(manifest: Manifest) -> None:
    parts = _by_ref(make_bill(manifest, LIBRARIES))
    android, numpy = parts[LIBRARIES[0].purl], parts["pkg:pypi/numpy"]
    assert android["purl"] == "pkg:maven/com.microsoft.onnxruntime/onnxruntime-android@1.22.0"
    assert "version" not in numpy
    assert numpy["properties"] == [{"name": "edgeproof:versions", "value": ">=1.21"}]
    assert numpy["licenses"] == [{"expression": "BSD-3-Clause AND Zlib"}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a" * 64, "a" * 64, None),
        (
            '"version": "0.1.0"\n    },\n    "timestamp"',
            '"version": "0.1.1"\n    },\n    "timestamp"',
            "version: expected",
        ),
        ("2026-03-01T12:37:43", "2026-03-01T12:37:44", "time: expected"),
        ('"id": "Apache-2.0"', '"id": "MIT"', "licence of model: expected the manifest's 'Apache-2.0'; got 'MIT'"),
        ('"content": "0a6cb9', '"content": "1a6cb9', "sha256 of the model: expected the manifest's '0a6cb9"),
        ('"specVersion": "1.6"', '"specVersion": "1.7"', "format: expected"),
        ('"bom-ref": "teacher"', '"bom-ref": "other"', "licence of teacher: expected the manifest's 'MIT'; got None"),
        ('"metadata"', '"meta"', "metadata: expected this field; got none"),
    ],
    ids=["as it was", "version", "time", "licence", "digest", "format", "no teacher", "no metadata"],
)
def test_bill_of_another_model_is_told_from_the_manifests(
    manifest: Manifest, old: str, new: str, message: str | None
) -> None:
    bill = make_bill(manifest).decode()
    assert old in bill
    found = [str(each) for each in check_bill(manifest, {BILL: bill.replace(old, new).encode()})]
    assert len(found) == (message is not None)
    assert all(each.startswith(f"{BILL}: {message}") for each in found)
    assert [str(each) for each in check_bill(manifest, {})] == [
        f"{BILL}: presence: expected a bill of materials; got none"
    ]


def test_no_bill_ends_in_a_traceback(manifest: Manifest) -> None:
    whole = json.loads(make_bill(manifest))
    nasty: tuple[JsonValue, ...] = (
        None,
        [],
        {},
        "",
        "(",
        1e300,
        True,
        ["()"],
        {"license": {"id": 3}},
        "\ud800",
        "x" * 5000,
    )
    said = []
    for index, place in enumerate(_places(whole)):
        table = json.loads(json.dumps(whole))
        holder = functools.reduce(operator.getitem, place[:-1], table)
        holder[place[-1]] = nasty[index % len(nasty)]
        said += [str(each) for each in check_bill(manifest, {BILL: json.dumps(table).encode()})]
    assert all(line.isprintable() for line in said)
    assert said
    assert list(check_bill(manifest, {BILL: b"no JSON"}))


def _places(value: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the way to everything in a JSON value, but for the value itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [deeper for key, each in items for deeper in ((*place, key), *_places(each, (*place, key)))]


def test_card_says_figures_with_intervals_and_what_nobody_said(manifest: Manifest) -> None:
    card = render_model_card(manifest).decode()
    for line in (
        "| this model, on the device | 97.50 % | 95.32 to 98.68 % |",  # R: prop.test(351, 360, correct = FALSE)
        "| p99 | 1.50 ms | 1.45 ms to 1.75 ms |",
        "The recipe does not say what it is intended for.",
        "- never saw letters",
        "| data | unknown: nobody said it |",
        "| dependency onnxruntime | MIT |",
        "- Memory was not measured.",
    ):
        assert f"\n{line}\n" in card
    assert "\n\n\n" not in card


def test_card_of_a_model_without_figures_says_so_and_no_cell_breaks_its_table(manifest: Manifest) -> None:
    check = replace(manifest.checks[0], note="a | b")
    bare = manifest.model_copy(
        update={
            "accuracy": None,
            "latency": None,
            "checks": (check,),
            "licences": LICENCES.model_copy(update={"data": "one | two\nthree"}),
        }
    )
    card = render_model_card(bare).decode()
    assert "| data | one \\| two three |\n" in card
    assert card.count("It was not measured.\n") == 2
    assert "\n\n\n" not in card
