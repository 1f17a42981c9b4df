"""Asking whether a runtime takes an exported model, before its device is reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from pipeline.accepted import can_be_asked, require_accepted
from pipeline.artifacts import OnnxModel
from pipeline.run import Missing, Run, open_plan, open_run
from targets.acceptance import Acceptance, Objection, Verdict
from targets.errors import DeviceError, ModelRefused
from targets.null import Null
from targets.target import TensorSpec

ODD = Objection("parser", "expected ONNX; got Odd", "write it otherwise", node="odd", op_type="Odd", num_nodes=3)
DOUBT = Objection("builder", "only the stand-in lacks it", "build it on the device", is_fatal=False)


@dataclass(frozen=True)
class Checked(Null):
    """A runtime that is asked without its device; `asked` lists for what."""

    verdict: Verdict = "accepted"
    objections: tuple[Objection, ...] = ()
    is_installed: bool = True
    asked: list[Path] = field(default_factory=list, compare=False)

    def find_checker(self) -> str:
        if not self.is_installed:
            raise DeviceError("checker: expected the package; got none; pip install it")
        return "checker 1.0"

    def check_model(self, model: Path, shapes: Mapping[str, Sequence[int]], *, timeout_s: float) -> Acceptance:
        self.asked.append(model)
        return Acceptance(self.verdict, "checker 1.0", self.objections, seconds=1.0)


def make_model(folder: Path) -> OnnxModel:
    path = folder / "model.onnx"
    path.write_bytes(b"model")
    spec = TensorSpec("x", "float32", (1,))
    return OnnxModel(path, "ab" * 32, 5, opset=17, precision="int8", input=spec, output=spec)


def make_run(folder: Path) -> tuple[Run, StringIO]:
    said = StringIO()
    return open_run(Console(file=said, width=200), folder / "build"), said


def test_a_model_that_is_accepted_is_asked_about_once(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    target, model = Checked(), make_model(tmp_path)
    for _ in range(2):
        require_accepted(model, target, run)
    assert target.asked == [model.path]
    assert [stage.name for stage in run.stages] == ["check_accepted", "check_accepted"]


def test_a_refusal_stops_the_chain_with_place_reason_and_remedy(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    target = Checked(verdict="refused", objections=(DOUBT, ODD))
    words = r"checker 1\.0, which answers without it, refuses: node 'odd' \(Odd\) and 2 more: .*; write it otherwise"
    with pytest.raises(ModelRefused, match=words):
        require_accepted(make_model(tmp_path), target, run)


@pytest.mark.parametrize("verdict", ["warned", "undecided"])
def test_a_doubt_is_told_every_time_and_stops_nothing(verdict: Verdict, tmp_path: Path) -> None:
    run, said = make_run(tmp_path)
    for times in (1, 2):
        target = Checked(verdict=verdict, objections=(DOUBT,))
        require_accepted(make_model(tmp_path), target, run)
        assert said.getvalue().count("warning of checker 1.0: only the stand-in lacks it; build it") == times


def test_without_the_tool_the_check_is_left_out_and_said_so(tmp_path: Path) -> None:
    run, said = make_run(tmp_path)
    target = Checked(is_installed=False)
    assert not can_be_asked(target)
    require_accepted(make_model(tmp_path), target, run)
    assert "check_accepted: left out, the device will answer: checker: expected the package" in said.getvalue()
    assert run.stages == []


def test_other_runtimes_are_not_asked(tmp_path: Path) -> None:
    run, said = make_run(tmp_path)
    require_accepted(make_model(tmp_path), Null(), run)
    assert not can_be_asked(Null())
    assert said.getvalue() == ""


def test_a_plan_lists_the_check_and_asks_nothing(tmp_path: Path) -> None:
    planned, target = open_plan(tmp_path / "build"), Checked()
    require_accepted(make_model(tmp_path), target, planned)
    require_accepted(cast(OnnxModel, Missing("export_onnx")), target, planned)
    assert [(stage.name, stage.state) for stage in planned.stages] == [
        ("check_accepted", "run"),
        ("check_accepted", "waits"),
    ]
    assert target.asked == []
