"""What a phone's own figures are worth: golden answers and latencies of selfTest(), judged by the release's budget."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from sample_release import compiled_model, package, passed_report

from pipeline.budget import LatencyBudget
from pipeline.cli import run
from pipeline.errors import UsageError
from pipeline.release.manifest import FileFacts
from pipeline.release.self_test import SelfTest, self_test_schema
from pipeline.release.verify import open_release
from pipeline.verbs.gate import needed_samples, require_release

SCHEMA = Path(__file__).parents[3] / "docs" / "self_test.schema.json"
LIMIT_MS = 5
"""Of the sample release, for the p99."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    model = compiled_model(folder)
    return package(folder, model, passed_report(model)).path


def around(median_ms: float, num_starts: int, num_samples: int) -> list[list[int]]:
    """Return independent samples in ns: lognormal, 2 % wide."""
    noise = np.random.default_rng(0).lognormal(0, 0.02, (num_starts, num_samples))
    return [[int(value) for value in row] for row in median_ms * 1e6 * noise]


def said(release: Path, **changes: object) -> dict[str, object]:
    """Return what a wrapper of the release says: 12 starts of 600 samples around 1 ms, every answer golden."""
    manifest = open_release(release).manifest
    table: dict[str, object] = {
        "schema_version": 1,
        "name": manifest.name,
        "version": manifest.version,
        "platform": "android",
        "device": "Pixel 8, Android 15, arm64-v8a",
        "model_sha256": manifest.files[manifest.model].sha256,
        "runtime_version": "onnxruntime 1.22.0, cpu",
        "scope": "model",
        "samples_ns": around(1, 12, 600),
        "golden": {"samples": 8, "largest_difference": 0.0, "labels_equal": True},
    }
    return table | changes


def gate(release: Path, *tables: dict[str, object], options: tuple[str, ...] = ()) -> int:
    arguments = ["gate", "--release", str(release), *options]
    for index, table in enumerate(tables):
        path = release.with_name(f"profile{index}.json")
        path.write_text(json.dumps(table), encoding="utf-8")
        arguments += ["--profile", str(path)]
    return run(arguments)


def test_fast_golden_answers_in_twelve_starts_pass(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(release, said(release), options=("--json",)) == 0
    judged = json.loads(capsys.readouterr().out)
    assert [(check["name"], check["verdict"]) for check in judged["checks"]] == [
        ("latency", "pass"),
        ("golden", "pass"),
    ]
    samples_ms = np.sort(np.concatenate(around(1, 12, 600))) / 1e6
    assert judged["p99_ms"] == samples_ms[int(np.ceil(0.99 * 7200)) - 1]  # the order statistic, by NumPy
    low, high = judged["p99_ci_ms"]
    assert low <= judged["p99_ms"] <= high


def test_slow_phone_fails_however_the_files_are_split(release: Path) -> None:
    assert gate(release, said(release, samples_ns=around(9, 12, 600))) == 3
    assert gate(release, *(said(release, samples_ns=block) for block in around(9, 12, 600))) == 3


def test_one_start_does_not_count_as_twelve(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = said(release, samples_ns=around(1, 1, 600)[0])
    assert gate(release, *[profile] * 12) == 2
    assert "the very same samples again; give each profile once" in capsys.readouterr().err


def test_one_start_must_hold_with_twice_the_time(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = needed_samples(LatencyBudget(max_ms=LIMIT_MS), [np.array([1_000_000])])
    assert many == pytest.approx(np.log(0.025) / np.log(0.99) * 10, abs=1)  # bursts of 10 ms spoil 10 samples of 1 ms
    assert gate(release, said(release, samples_ns=around(1, 1, 2 * many))) == 0
    assert gate(release, said(release, samples_ns=around(3, 1, 2 * many))) == 5
    assert "a margin of 100 % was asked for" in capsys.readouterr().out


def test_too_few_samples_are_undecided_and_say_how_many_would_do(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(release, said(release, samples_ns=[1_000_000] * 299 + [1_000_001])) == 5
    assert "gather at least 3,671 samples" in capsys.readouterr().out  # 367.1 independent ones, times 10


@pytest.mark.parametrize(
    "golden",
    [
        {"samples": 8, "largest_difference": 1.5, "labels_equal": True},
        {"samples": 8, "largest_difference": None, "labels_equal": True},
        {"samples": 8, "largest_difference": 0.0, "labels_equal": False},
    ],
    ids=["far", "not finite", "another class"],
)
def test_fast_but_wrong_answers_fail(release: Path, golden: dict[str, object]) -> None:
    assert gate(release, said(release, golden=golden)) == 3


def test_clock_too_coarse_for_the_limit_is_undecided(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = 1_000_000
    for median_ms, code in ((1, 0), (5.3, 5)):  # rounded down, 5.3 ms look as if they held
        coarse = [[value // step * step for value in block] for block in around(median_ms, 12, 600)]
        coarse[0][0] -= step  # so that the step shows
        assert gate(release, said(release, samples_ns=coarse)) == code
    assert "the clock goes in steps of 1.00 ms, too coarse for this limit" in capsys.readouterr().out
    assert gate(release, said(release, samples_ns=[0] * 7200)) == 5
    assert "every sample is the same" in capsys.readouterr().out


def test_another_scope_than_the_budgets_is_undecided(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(release, said(release, scope="end_to_end")) == 5
    assert "the budget is for scope model; selfTest() timed scope end_to_end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_sha256": "0" * 64}, "model_sha256: expected "),
        ({"version": "0.2.0"}, "version: expected 0.1.0, the release's; got 0.2.0"),
        ({"golden": {"samples": 2, "largest_difference": 0.0, "labels_equal": True}}, "golden.samples: expected 8"),
        ({"samples_ns": [[1, 2], []]}, "samples_ns: expected at least one sample, in each process; got none"),
        ({"samples_ns": [1, 2.5]}, "samples_ns.list.1: expected a valid integer; got 2.5"),
        ({"samples_ns": [1, -1]}, "samples_ns.list.1: expected greater than or equal to 0; got -1"),
        ({"scope": "all"}, "scope: expected 'model' or 'end_to_end'; got 'all'"),
        ({"verdict": "pass"}, "verdict: expected no field of this name; got 'pass'"),
        ({"schema_version": 2}, "schema_version: expected 1; got 2"),
        ({"device": "a\nb"}, r"device: expected printable text of one line; got 'a\nb'"),
    ],
)
def test_what_is_no_profile_of_the_release_is_named_and_ends_with_2(
    release: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert gate(release, said(release, **changes)) == 2
    assert message in capsys.readouterr().err


def test_profiles_of_two_devices_are_not_mixed(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(release, said(release), said(release, device="Pixel 3")) == 2
    assert "device: expected Pixel 8, Android 15, arm64-v8a, as in " in capsys.readouterr().err


def test_model_in_the_form_that_the_package_loads_is_the_releases(release: Path) -> None:
    manifest, ort = open_release(release).manifest, FileFacts(sha256="5" * 64, size_bytes=1)
    with_ort = manifest.model_copy(update={"files": {**manifest.files, "assets/model.ort": ort}})
    test = SelfTest.model_validate_json(json.dumps(said(release, model_sha256="5" * 64)))
    require_release(Path("profile.json"), test, with_ort)
    with pytest.raises(UsageError, match="model_sha256: expected"):
        require_release(Path("profile.json"), test, manifest)


def test_what_wrappers_write_satisfies_the_published_schema_and_that_is_up_to_date(release: Path) -> None:
    schema = json.loads(self_test_schema())
    for samples in (around(1, 2, 3), [1, 2, 3]):
        jsonschema.validate(said(release, samples_ns=samples), schema)
    assert SCHEMA.read_bytes() == self_test_schema(), (
        "write pipeline.release.self_test.self_test_schema() to docs/self_test.schema.json"
    )
