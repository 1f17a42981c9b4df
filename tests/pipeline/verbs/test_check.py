"""`edgeproof check`: whether a runtime takes a file; reasons in words, exit codes, JSON."""

import json
from pathlib import Path

import onnx
import pytest
from small_models import two_convolutions

from pipeline.cli import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(two_convolutions(), path)
    return path


def unknown_operator(path: Path) -> Path:
    proto = onnx.load(path)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Odd", "mine"
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    onnx.save(proto, path)
    return path


def test_a_runtime_that_is_here_compiles_the_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert run(["check", str(model), "--target", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert f"{model} for onnxruntime: accepted" in said
    assert "no proof of speed" in said
    assert run(["check", str(unknown_operator(model)), "--target", "onnxruntime"]) == 1
    assert "refused by the builder: " in capsys.readouterr().out


def test_machines_get_the_whole_answer(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'edgeproof[tensorrt-check]'")
    assert run(["check", str(model), "--target", "tensorrt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["objections"], found["assumed"]) == ("accepted", [], [])
    assert found["size_bytes"] > 1000
    assert "export it with opset = 17" in found["note"]  # the file has 19
    assert run(["check", str(unknown_operator(model)), "--target", "tensorrt", "--json"]) == 1
    (objection,) = json.loads(capsys.readouterr().out)["objections"]
    assert (objection["judge"], objection["node"], objection["op_type"]) == ("parser", "first_relu", "Odd")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--target", "tensort"], 2, '(did you mean "tensorrt"?)'),
        (["--target", "null", "--shape", "image"], 2, "expected NAME=SIZES"),
    ],
)
def test_wrong_usage_says_what_is_valid(
    model: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(model), *arguments]) == code
    assert words in capsys.readouterr().err
