"""What differs between two releases: figures beyond chance, what breaks an app, licences, operators and files."""

import json
from pathlib import Path

import pytest
from sample_release import INTERFACE, compiled_model, package, passed_report

from pipeline.cli import run
from pipeline.release.compare import Comparison, compare_releases
from pipeline.release.manifest import Interface
from pipeline.release.verify import open_release
from pipeline.report.report import (
    AccuracyFigures,
    ExecutedFigures,
    LatencyFigures,
    OperatorFigures,
    Report,
    SamplesFile,
)


def accuracy(on_device: float, num_samples: int = 360) -> AccuracyFigures:
    return AccuracyFigures(
        metric="top1", teacher=0.99, student=0.98, quantized=0.98, on_device=on_device, num_samples=num_samples
    )


def latency(p99_ms: float, interval_ms: tuple[float, float]) -> LatencyFigures:
    return LatencyFigures(
        scope="model",
        threads=1,
        num_samples=8192,
        p50_ms=1.0,
        p90_ms=1.25,
        p99_ms=p99_ms,
        p99_ci_ms=interval_ms,
        budget_ms=5,
        budget_percentile=99,
        protocol="burst: each inference timed host to host",
        block_sizes=(8192,),
        warmup_runs=100,
        seconds=10,
        lag1_autocorrelation=0.1,
        measured_at="2026-03-01T12:37:40+00:00",
        samples=SamplesFile(path="samples.npz", sha256="5" * 64),
    )


def operators(**counts: int) -> ExecutedFigures:
    each = tuple(
        OperatorFigures(op_type=name.split("_")[0], precision=name.split("_")[1], count=count, time_ms=None)
        for name, count in counts.items()
    )
    return ExecutedFigures(num_operators=9, int8_operators=9, int8_share=1.0, int8_time_share=None, operators=each)


def release(folder: Path, content: bytes = b"model", interface: Interface = INTERFACE, **changes: object) -> Path:
    folder.mkdir()
    model = compiled_model(folder, content)
    report: Report = passed_report(model).model_copy(update=changes)
    return package(folder, model, report, interface).path


def compared(before: Path, after: Path) -> Comparison:
    return compare_releases(open_release(before), open_release(after))


def changes_of(found: Comparison) -> dict[str, str]:
    return {each.name: each.change for each in found.figures}


def test_release_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    same = release(tmp_path / "a")
    found = compared(same, same)
    assert (found.breaking, found.facts, found.licences, found.operators, found.files) == ((), (), (), (), ())
    assert not found.is_worse
    assert run(["diff", str(same), str(same)]) == 0


@pytest.mark.parametrize(
    ("after", "num_samples", "change"), [(0.97, 360, "same"), (0.85, 360, "worse"), (0.97, 100_000, "worse")]
)
def test_accuracy_is_worse_only_beyond_chance(tmp_path: Path, after: float, num_samples: int, change: str) -> None:
    one = release(tmp_path / "a", accuracy=accuracy(0.98, num_samples))
    other = release(tmp_path / "b", accuracy=accuracy(after, num_samples))
    assert changes_of(compared(one, other))["accuracy"] == change
    assert run(["diff", str(one), str(other)]) == (3 if change == "worse" else 0)


def test_latency_is_compared_by_its_intervals_and_only_on_the_same_device(tmp_path: Path) -> None:
    one = release(tmp_path / "a", latency=latency(1.5, (1.4, 1.6)))
    slower = release(tmp_path / "b", latency=latency(2.0, (1.9, 2.2)))
    close = release(tmp_path / "c", latency=latency(1.6, (1.5, 1.8)))
    elsewhere = release(tmp_path / "d", latency=latency(2.0, (1.9, 2.2)), context={"cpu": "another"})
    found = {name: compared(one, other) for name, other in (("b", slower), ("c", close), ("d", elsewhere))}
    assert {name: changes_of(each)["p99"] for name, each in found.items()} == {
        "b": "worse",
        "c": "same",
        "d": "unknown",
    }
    p99 = next(each for each in found["b"].figures if each.name == "p99")
    assert p99.interval == (1.9 / 1.6, 2.2 / 1.4)
    assert found["d"].conditions == ("cpu: some against another",)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"labels": ("one", "none", "größer")}, "order of the labels: none, one, größer -> one, none, größer"),
        ({"labels": ("none", "two", "größer")}, "labels: one -> two"),
        ({"labels": INTERFACE.labels, "scale": (0.5,)}, "processing: scale: [0.00392156862745098] -> [0.5]"),
        ({"labels": INTERFACE.labels, "name": "picture"}, "input 0: image: float32[any, 1, 8, 8] -> picture: "),
    ],
    ids=["order", "labels", "scale", "input"],
)
def test_what_would_break_an_app_is_worse_whatever_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], what: str
) -> None:
    table = INTERFACE.model_dump(mode="json")
    table["labels"] = changes["labels"]
    table["processing"]["scale"] = changes.get("scale", table["processing"]["scale"])
    table["inputs"][0]["name"] = changes.get("name", table["inputs"][0]["name"])
    other = Interface.model_validate_json(json.dumps(table))
    before, after = release(tmp_path / "a"), release(tmp_path / "b", interface=other)
    assert run(["diff", str(before), str(after)]) == 3
    shown = capsys.readouterr().out
    assert "what would break an app" in shown
    assert what in shown


def test_operators_facts_and_files_are_listed_where_they_differ(tmp_path: Path) -> None:
    one = release(tmp_path / "a", executed=operators(Conv_fp32=9, Gemm_fp32=1))
    other = release(
        tmp_path / "b",
        b"another model",
        executed=operators(Conv_int8=9, Gemm_fp32=1),
        version="0.2.0",
        precision="fp32",
    )
    found = compared(one, other)
    assert found.operators is not None
    assert [(each.op_type, each.precision, each.before, each.after) for each in found.operators] == [
        ("Conv", "fp32", 9, 0),
        ("Conv", "int8", 0, 9),
    ]
    facts = {each.what: (each.before, each.after) for each in found.facts}
    assert facts["version"] == ("0.1.0", "0.2.0")
    assert facts["precision"] == ("int8", "fp32")
    assert found.files[0].what == "model"
    assert found.files[0].before is not None
    assert found.files[0].before.startswith("5 bytes, sha256 ")
    assert changes_of(found)["size"] == "worse"  # 13 bytes


def test_machines_get_all_of_it_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = release(tmp_path / "a"), release(tmp_path / "b", accuracy=accuracy(0.5))
    assert run(["diff", str(before), str(after), "--json"]) == 3
    table = json.loads(capsys.readouterr().out)
    assert table["is_worse"]
    assert table["figures"][0]["name"] == "accuracy"
    assert {"conditions", "breaking", "facts", "licences", "operators", "files"} <= table.keys()


def test_what_is_not_as_it_was_packed_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, broken = release(tmp_path / "a"), tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes()[:-1])
    assert run(["diff", str(whole), str(broken)]) == 1
    assert f"{broken}: expected a release as it was packed" in capsys.readouterr().err
