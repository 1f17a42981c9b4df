"""A model is one file, until its weights are too large for one."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from exports import parse

from pipeline.errors import RecipeError
from pipeline.export.write import digest, write_model
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions

X = np.arange(4096, dtype=np.float32)


def make_model(factor: float = 2.0) -> ir.Model:
    model = parse("g (float[4096] x) => (float[4096] y) <float[1] f = {1}> { y = Mul(x, f) }", opset=18)
    model.graph.initializers["f"].const_value = ir.tensor(np.full(4096, factor, np.float32), name="f")
    model.graph.initializers["f"].shape = ir.Shape([4096])
    return model


def test_below_the_limit_there_is_one_file(tmp_path: Path) -> None:
    assert write_model(make_model(), tmp_path / "model.onnx") == ()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_above_it_weights_stand_beside_under_a_relative_name(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    files = write_model(make_model(), tmp_path / "first" / "model.onnx", largest_file=4096)
    assert [path.name for path in files] == ["model.onnx.data"]
    assert (tmp_path / "first" / "model.onnx").stat().st_size < 1000 < 4 * 4096 <= files[0].stat().st_size
    moved = (tmp_path / "first").rename(tmp_path / "second")
    infer = OnnxRuntime().open(moved / "model.onnx", RunOptions()).bind({"x": X})
    np.testing.assert_array_equal(infer()["y"], 2 * X)


def test_the_digest_of_the_model_covers_weights_beside_it(tmp_path: Path) -> None:
    digests = set()
    for factor in (2.0, 3.0, 2.0):
        write_model(make_model(factor), tmp_path / "model.onnx", largest_file=4096)
        digests.add(digest(tmp_path / "model.onnx"))
    assert len(digests) == 2


def test_what_is_no_valid_onnx_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = parse("g (float[4] x) => (float[4] y) { y = Relu(x) }", opset=18)
    model.graph.node(0).op_type = "Rleu"
    with pytest.raises(RecipeError, match=r"valid ONNX of opset 18; got: .*Rleu.*Set export.opset"):
        write_model(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
