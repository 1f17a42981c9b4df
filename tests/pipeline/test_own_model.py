"""The worked example of the docs, deployed as it stands: own model, own data, own loss, nothing of ours changed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.cli import run
from pipeline.distillation.loss import Batch
from pipeline.errors import RecipeError
from pipeline.user_files import UserObject

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_model"
SHORT = (
    "teacher.training.epochs=2",
    "distillation.training.epochs=3",
    "quantization.training.epochs=1",
    "deployments.reference.budget.accuracy.min=0.3",  # of 3 epochs; guessing gives 0.25
    "deployments.reference.budget.parity.min_agreement=0.5",
    "deployments.reference.profile.processes=2",
    "deployments.reference.profile.min_samples=256",
)


class Project:
    """A copy of the example's folder, and the command line over it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self._options = ["--build", str(folder / "build"), "--target", "reference"]
        self._options += [word for value in SHORT for word in ("--set", value)]

    def deploy(self) -> int:
        return run(["deploy", str(self.folder / "recipe.toml"), *self._options])

    def plan(self) -> dict[str, tuple[str, str]]:
        self._capsys.readouterr()
        assert run(["plan", str(self.folder / "recipe.toml"), *self._options, "--json"]) == 0
        stages = json.loads(self._capsys.readouterr().out)
        return {stage["name"]: (stage["state"], stage["reason"]) for stage in stages}


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("EDGEPROOF_DATA", raising=False)
    shutil.copytree(EXAMPLE, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(tmp_path / "mine", capsys)


@pytest.mark.slow
def test_the_users_own_model_data_and_loss_reach_a_verified_release(project: Project) -> None:
    assert project.deploy() == 0
    folder = project.folder / "build" / "own-model" / "reference"
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["accuracy"]["num_samples"] == 144  # a fifth of scikit-learn's 720 digits below 4
    assert run(["verify", str(folder / "release" / "own-model-0.1.0-reference.zip")]) == 0
    assert {state for state, _ in project.plan().values()} == {"cached", "measure", "install"}

    with (project.folder / "my_models.py").open("a") as file:
        file.write("\n")  # one byte

    plan = project.plan()
    assert plan["train_teacher"][0] == "cached"
    state, reason = plan["distill_student"]
    assert state == "run"
    assert re.fullmatch(r"model: other content \(([0-9a-f]{8}) -> (?!\1)[0-9a-f]{8}\)", reason)
    assert plan["train_quantized"] == ("waits", "for distill_student")


def test_a_users_file_may_postpone_annotations(tmp_path: Path) -> None:
    own = "from __future__ import annotations\n" + (EXAMPLE / "my_loss.py").read_text()
    (tmp_path / "my_loss.py").write_text(own)
    loss = UserObject(kind=f"{tmp_path}/my_loss.py:MatchLogits", arguments={"weight": 0.25}).build()
    assert getattr(loss, "weight", None) == 0.25


def test_a_users_file_that_python_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text("def build_student(:\n")
    with pytest.raises(RecipeError, match=r"my_models\.py: invalid syntax"):
        UserObject(kind=f"{tmp_path}/my_models.py:build_student").build()


def test_the_example_loss_is_half_the_squared_distance_of_centred_logits() -> None:
    student, teacher = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[2.0, 2.0], [5.0, 9.0]])
    batch = Batch(student, teacher, torch.tensor([0, 1]))
    loss = UserObject(kind=f"{EXAMPLE}/my_loss.py:MatchLogits").build()
    assert callable(loss)
    assert float(loss(batch)) == pytest.approx(0.5 * ((1 + 1) + (4 + 4)) / 2)  # by hand
