"""`edgeproof quantize --precision auto`: the fastest that holds is written, and it is never slower than float."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import SIZE, two_convolutions

from pipeline.cli import run

COMMAND = ["quantize", "small.onnx", "--data", "samples", "--target", "null", "--precision", "auto"]
QUICK = ["--max-seconds", "1", "--search-seconds", "5"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model, and 24 samples."""
    onnx.save(two_convolutions(), tmp_path / "small.onnx")
    (tmp_path / "samples").mkdir()
    samples = np.random.default_rng(0).normal(size=(24, 3, SIZE, SIZE)).astype(np.float32)
    np.savez(tmp_path / "samples" / "all.npz", image=samples)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_where_int8_is_emulated_float_is_written_with_the_search_as_evidence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*COMMAND, *QUICK, "--sensitivity", "--json", "--out", "chosen.onnx"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["precision"], found["float_layers"]) == ("fp32", [])
    assert not {"QuantizeLinear"} & {node.op_type for node in onnx.load(folder / "chosen.onnx").graph.node}
    assert found["search"]["chosen"] == "fp32"
    assert {"fp32", "int8"} <= {tried["plan"] for tried in found["search"]["tried"]}
    assert {layer["name"] for layer in found["sensitivity"]} == {"first", "second"}
    assert "Error against latency saved" in (folder / "chosen.html").read_text()


@pytest.mark.slow
def test_people_see_what_was_tried_and_why_one_ships(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*COMMAND, *QUICK, "--sensitivity"]) == 0
    shown = capsys.readouterr().out
    assert "precision: fp32: " in shown
    assert "each layer alone in int8, estimated from " in shown
    assert "small.null.auto.html" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-drop", "2"], "--max-drop"),
        (["--float", "first"], "--float: expected it with --precision int8"),
        (["--precision", "int8", "--max-drop", "0.1"], "--max-drop: expected it with --precision auto"),
    ],
)
def test_options_of_another_precision_are_refused(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*COMMAND, *arguments]) == 2
    assert words in capsys.readouterr().err
