"""`edgeproof release`, `keys` and `verify`: what is packaged, what is refused, and who signed it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from android_samples import sample_payload
from sample_release import CHECK, compiled_model, passed_report

from pipeline.cli import run
from pipeline.measuring.verdict import Verdict
from pipeline.report.report import report_json

RECIPE = "recipes/digits.toml"
BUDGET = "deployments.cpu.budget={ latency = { max_ms = 5.0 } }"
"""Which the sample was judged by."""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build in which the digits' deployment cpu was released."""
    folder = tmp_path / "build" / "digits" / "cpu"
    folder.mkdir(parents=True)
    sample_payload(folder)
    return tmp_path / "build"


def _release(build: Path, *arguments: str) -> int:
    return run(["release", RECIPE, "--for", "web", "--build", str(build), "--set", BUDGET, *arguments])


def _judged(build: Path, deployment: str, verdict: Verdict) -> None:
    folder = build / "digits" / deployment
    folder.mkdir(parents=True, exist_ok=True)
    report = passed_report(compiled_model(folder), replace(CHECK, verdict=verdict))
    (folder / "report.json").write_text(report_json(report), encoding="utf-8")


def test_first_deployment_that_passed_is_packaged_with_its_size_and_its_limits(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _release(build) == 0
    archive = build / "digits" / "cpu" / "packages" / "web" / "edgeproof-digits-0.1.0.tgz"
    said = capsys.readouterr().out
    assert f"{archive.stat().st_size:,} bytes" in said
    for words in ("overhead: ", "use: npm install", "limit: not measured on web", "NOT SIGNED", f"verify {archive}"):
        assert words in said
    assert run(["verify", str(archive)]) == 0
    assert "WARNING: NOT SIGNED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "deployments.cpu.budget.latency.max_ms=4.0",
            "expected a release that was judged by the recipe's budget of cpu",
        ),
        ('release.licences.forbid=["Apache-2.0"]', "expected a licence none of Apache-2.0"),
        ('release.licences.forbid=["MIT"]', "onnxruntime-web: expected a licence none of MIT"),
        ('license="GPL-3.0-or-later"', "expected a model under GPL-3.0-or-later, as the recipe says"),
    ],
    ids=["budget", "licence", "licence of a library", "another licence"],
)
def test_a_release_that_the_recipe_has_left_behind_is_not_packaged(
    build: Path, change: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _release(build, "--set", change) == 2
    assert words in capsys.readouterr().err


def test_machines_get_what_people_get(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _release(build, "--json", "--out", str(tmp_path / "out")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == {said["archive"]: said["archive_bytes"]}
    assert (tmp_path / "out" / said["archive"]).stat().st_size == said["archive_bytes"]
    assert (said["deployment"], said["platform"], said["signed_by"]) == ("cpu", "web", None)


def test_package_signed_with_a_key_satisfies_that_key_alone(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ours", "theirs"):
        assert run(["keys", "new", "--out", str(tmp_path / name)]) == 0
    assert _release(build, "--key", str(tmp_path / "ours" / "signing_key.pem")) == 0
    archive = str(build / "digits" / "cpu" / "packages" / "web" / "edgeproof-digits-0.1.0.tgz")
    capsys.readouterr()
    assert run(["verify", archive]) == 0
    assert "WARNING: SIGNATURE NOT CHECKED" in capsys.readouterr().out
    assert run(["verify", archive, "--key", str(tmp_path / "ours" / "signing_key.pub.pem")]) == 0
    assert "✓ signed by key" in capsys.readouterr().out
    assert run(["verify", archive, "--key", str(tmp_path / "theirs" / "signing_key.pub.pem"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["is_trusted"], len(said["differences"])) == (False, False, 1)


def test_unsigned_release_is_an_error_where_a_key_is_demanded(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "new", "--out", str(tmp_path)]) == 0
    archive = build / "digits" / "cpu" / "release" / "digits-0.1.0-cpu.zip"
    assert run(["verify", str(archive), "--key", str(tmp_path / "signing_key.pub.pem")]) == 1
    assert "got none: the archive is not signed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "androit"], 'expected one of android, ios, linux, web; got androit (did you mean "android"?)'),
        (["--deployment", "intel"], "which packages load models with: cpu, arm64; got intel, which is of openvino"),
        (["--deployment", "gpu"], "which packages load models with: cpu, arm64; got gpu"),
        (["--key", "nowhere.pem"], "nowhere.pem: expected a key (PEM)"),
        (["--out", "recipes"], "recipes: expected a new or an empty folder"),
        (["--set", "version=1.0.0+mine"], "--for web: expected a version that npm takes"),
    ],
)
def test_what_cannot_be_asked_for_is_wrong_usage(
    build: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _release(build, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.FAIL, 3), (Verdict.UNDECIDED, 5)])
def test_deployment_that_did_not_pass_is_not_packaged(
    tmp_path: Path, verdict: Verdict, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _judged(tmp_path, "cpu", verdict)
    assert _release(tmp_path, "--deployment", "cpu") == code
    assert f"digits for cpu: expected every budget to hold; got {verdict.value}" in capsys.readouterr().out
    assert not (tmp_path / "digits" / "cpu" / "packages").exists()


def test_release_of_another_version_is_not_taken_for_this_one(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = build / "digits" / "cpu" / "release" / "digits-0.1.0-cpu.zip"
    assert _release(build, "--set", "version=0.2.0", "--from", str(archive)) == 2
    assert "expected a release of digits 0.2.0; got digits 0.1.0" in capsys.readouterr().err
