"""What prepare makes of foreign models: the same function, with less in it, all of it named and of known shape."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_graphs import copy_of, draw, infer, operators, parse

from pipeline.errors import RecipeError
from pipeline.export.operators import is_quantized
from pipeline.export.prepare import prepare

pytest.importorskip("onnxruntime")

X = {"x": draw(1, 8, 8, 8)}
CONV = {"w": draw(6, 8, 3, 3, seed=1), "b": draw(6, seed=2)}
NORM = {
    "gamma": draw(6, seed=3),
    "beta": draw(6, seed=4),
    "mean": draw(6, seed=5),
    "var": np.abs(draw(6, seed=6)) + 0.5,
}
ROW = "float[3,8] x"

FOLDED = {
    "BatchNormalization": ("t = Conv(x,w,b) y = BatchNormalization(t,gamma,beta,mean,var)", {**CONV, **NORM}, ["Conv"]),
    "a scale and an offset a channel": (
        "t = Conv(x,w) u = Mul(t,s) v = Sub(u,o) y = Div(v,d)",
        {"w": CONV["w"], "s": draw(6, 1, 1), "o": draw(1, 6, 1, 1, seed=1), "d": np.float32(3)},
        ["Conv"],
    ),
    "BatchNormalization behind a grouped ConvTranspose": (
        "t = ConvTranspose<group=2>(x,w) y = BatchNormalization(t,gamma,beta,mean,var)",
        {"w": draw(8, 3, 2, 2), **NORM},
        ["ConvTranspose"],
    ),
    "a norm of a shared convolution": (
        "t = Conv(x,w,b) u = BatchNormalization(t,gamma,beta,mean,var) v = Conv(x,w,b) y = Add(u,v)",
        {**CONV, **NORM},
        ["Add", "Conv", "Conv"],
    ),
    "a number added everywhere": ("t = Conv(x,w,b) y = Add(n,t)", {**CONV, "n": np.float32(2)}, ["Conv"]),
    "padding with zeros": ("t = Pad(x,p) y = Conv(t,w,b)", {**CONV, "p": np.array([0, 0, 1, 2, 0, 0, 1, 0])}, ["Conv"]),
    "padding before an average": (
        "t = Pad(x,p) y = AveragePool<kernel_shape=[3,3]>(t)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["AveragePool"],
    ),
    "a mean over the image": ("t = Conv(x,w,b) y = ReduceMean<axes=[2,3]>(t)", CONV, ["Conv", "GlobalAveragePool"]),
    "a flat mean over the image": (
        "y = ReduceMean<axes=[-1,-2],keepdims=0>(x)",
        {},
        ["Flatten", "GlobalAveragePool"],
    ),
    "Identity and Dropout": ("t = Identity(x) u = Dropout(t) y = Relu(u)", {}, ["Relu"]),
    "computed weights": ("s = Mul(w,w) y = Conv(x,s)", {"w": CONV["w"]}, ["Conv"]),
    "a Sum of two": ("y = Sum(x,x)", {}, ["Add"]),
}
FOLDED_ROWS = {
    "a product and its bias": ("t = MatMul(x,w) y = Add(t,b)", {"w": draw(8, 5), "b": draw(5)}, ["Gemm"]),
    "factors of a Gemm": (
        "y = Gemm<alpha=0.5,beta=3.0,transB=1>(x,w,b)",
        {"w": draw(5, 8), "b": draw(1, 5)},
        ["Gemm"],
    ),
    "a norm behind a Gemm": (
        "t = Gemm(x,w) y = BatchNormalization(t,gamma,beta,mean,var)",
        {"w": draw(8, 6), **NORM},
        ["Gemm"],
    ),
}
KEPT = {
    "a convolution that is read twice": (
        "t = Conv(x,w) u = Mul(t,s) y = Add(t,u)",
        {"w": CONV["w"], "s": draw(6, 1, 1)},
    ),
    "an offset a pixel": ("t = Conv(x,w) y = Add(t,o)", {"w": CONV["w"], "o": draw(1, 1, 6, 6)}),
    "a norm before a convolution": (
        "t = BatchNormalization(x,g,g,g,v) y = Relu(t)",
        {"g": draw(8), "v": np.ones(8, "f")},
    ),
    "a gelu, which runtimes fuse": (
        "d = Div(x,r) e = Erf(d) o = Add(e,one) m = Mul(x,o) y = Mul(m,half)",
        {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
}


def assert_same_function(model: ir.Model, prepared: ir.Model, feeds: dict[str, np.ndarray], folder: Path) -> None:
    wanted, got = infer(model, feeds, folder)["y"], infer(prepared, feeds, folder)["y"]
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max())  # float32 sums in another order


@pytest.mark.parametrize("case", FOLDED)
def test_what_is_per_channel_goes_into_the_layer_before_it(case: str, tmp_path: Path) -> None:
    body, arrays, left = FOLDED[case]
    model = parse(body, **arrays)
    prepared = prepare(copy_of(model), opset=17)
    assert sorted(operators(prepared).elements()) == left
    assert_same_function(model, prepared, X, tmp_path)


@pytest.mark.parametrize("case", FOLDED_ROWS)
def test_products_of_rows_become_plain_gemms(case: str, tmp_path: Path) -> None:
    body, arrays, left = FOLDED_ROWS[case]
    model = parse(body, inputs=ROW, **arrays)
    prepared = prepare(copy_of(model), opset=17)
    assert sorted(operators(prepared).elements()) == left
    assert not {"alpha", "beta"} & set(prepared.graph[0].attributes)
    assert_same_function(model, prepared, {"x": draw(3, 8)}, tmp_path)


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays(case: str, tmp_path: Path) -> None:
    body, arrays = KEPT[case]
    model = parse(body, **arrays)
    prepared = prepare(copy_of(model), opset=17)
    assert operators(prepared) == operators(model)
    assert_same_function(model, prepared, X, tmp_path)


def test_every_node_has_a_name_of_its_own_and_a_shape() -> None:
    prepared = prepare(parse("t = Relu(x) u = Relu(t) v = Conv(u,w,b) y = Relu(v)", **CONV), opset=17)
    names = [node.name for node in prepared.graph]
    assert all(names)
    assert len(set(names)) == len(names) == 4
    assert prepared.graph[2].outputs[0].shape == ir.Shape([1, 6, 6, 6])
    again = prepare(parse("t = Relu(x) u = Relu(t) v = Conv(u,w,b) y = Relu(v)", **CONV), opset=17)
    assert names == [node.name for node in again.graph]


def test_the_opset_is_raised_and_initializers_that_were_inputs_are_constants(tmp_path: Path) -> None:
    old = ir.to_proto(parse("y = Conv(x,w,b)", opset=9, **CONV))
    old.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape) for name, array in CONV.items()
    )
    old.ir_version = 3
    prepared = prepare(ir.from_proto(old), opset=13)
    assert prepared.opset_imports[""] == 13
    assert [value.name for value in prepared.graph.inputs] == ["x"]
    assert_same_function(parse("y = Conv(x,w,b)", **CONV), prepared, X, tmp_path)


def test_an_operator_that_newer_opsets_lost_is_refused_with_the_reason() -> None:
    model = parse('y = Upsample<mode="nearest">(x,s)', opset=9, s=np.array([1, 1, 2, 2], "f"))
    model.graph[0].op_type = "Affine"  # of opset 1, and experimental
    with pytest.raises(RecipeError, match=r"expected operators that opset 13 has too; got opset 9"):
        prepare(model, opset=13)


def test_a_node_that_lacks_an_input_is_refused_by_name() -> None:
    model = parse("y = MatMul(x,w)", w=draw(8, 8))
    model.graph[0].name = "head"
    model.graph[0].resize_inputs(1)
    with pytest.raises(RecipeError, match="node 'head': expected 2 inputs or more for MatMul; got 1"):
        prepare(model, opset=17)


def test_a_graph_that_returns_its_input_keeps_the_identity(tmp_path: Path) -> None:
    model = parse("y = Identity(x) t = Identity(x) z = Relu(t)", outputs="float[] y, float[] z")
    prepared = prepare(copy_of(model), opset=17)
    assert operators(prepared) == {"Identity": 1, "Relu": 1}
    assert_same_function(model, prepared, X, tmp_path)


def test_a_quantized_model_is_refused_or_kept() -> None:
    body = "q = QuantizeLinear(x,s,z) d = DequantizeLinear(q,s,z) t = Mul(one,one) y = Mul(d,t)"
    arrays = {"s": np.float32(0.1), "z": np.uint8(3), "one": np.float32(1)}
    with pytest.raises(RecipeError, match="expected a float model; got one with integer operators already"):
        prepare(parse(body, **arrays), opset=17)
    kept = prepare(parse(body, **arrays), opset=17, if_quantized="keep")
    assert is_quantized(kept)
    assert operators(kept) == operators(parse(body, **arrays))


def test_control_flow_is_left_alone_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    branches = "then_branch = a () => (p) {p = Relu(t)}, else_branch = c () => (q) {q = Neg(t)}"
    model = parse(f"t = Conv(x,w,b) y = If<{branches}>(cond)", cond=np.array(True), **CONV)
    model = ir.from_proto(ir.to_proto(model))
    with caplog.at_level(logging.WARNING):
        prepared = prepare(copy_of(model), opset=17)
    assert "stays in float" in caplog.text
    assert_same_function(model, prepared, X, tmp_path)
