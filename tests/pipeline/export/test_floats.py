"""A graph in float16: what it computes, what ONNX has in float32 only, and what does not fit."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import RecipeError
from pipeline.export.floats import to_float16
from pipeline.export.tidy import tidy

DRAW = np.random.default_rng(5)
X = DRAW.standard_normal((1, 3, 6, 6)).astype(np.float32)
W = DRAW.standard_normal((4, 3, 3, 3)).astype(np.float32)
V = DRAW.standard_normal((2, 4, 1, 1)).astype(np.float32)


def make_model(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def halved(model: onnx.ModelProto, float_layers: frozenset[str] = frozenset()) -> onnx.ModelProto:
    rewritten = ir.from_proto(model)
    to_float16(rewritten, float_layers=float_layers)
    tidy(rewritten, name="test")
    proto = ir.to_proto(rewritten)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def types(model: onnx.ModelProto) -> dict[str, str]:
    return {each.name: TensorProto.DataType.Name(each.data_type) for each in model.graph.initializer}


def run(model: onnx.ModelProto) -> np.ndarray:
    outputs = ReferenceEvaluator(model).run(None, {"x": X})
    assert isinstance(outputs, list)
    return np.asarray(outputs[0])


CONVOLUTIONS = [
    helper.make_node("Conv", ["x", "w"], ["a"], name="first/Conv"),
    helper.make_node("Relu", ["a"], ["b"], name="first/Relu"),
    helper.make_node("Conv", ["b", "v"], ["y"], name="second/Conv"),
]


def two_convolutions() -> onnx.ModelProto:
    return make_model(CONVOLUTIONS, w=W, v=V)


def test_it_computes_in_float16_between_inputs_and_outputs_in_float32() -> None:
    model = halved(two_convolutions())
    assert Counter(node.op_type for node in model.graph.node) == {"Conv": 2, "Relu": 1, "Cast": 2}
    assert types(model) == {"w": "FLOAT16", "v": "FLOAT16"}
    assert [each.type.tensor_type.elem_type for each in (model.graph.input[0], model.graph.output[0])] == [1, 1]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("x", "y")
    # Two roundings of 2^-11 an operator, sums of at most 27 products.
    np.testing.assert_allclose(run(model), run(two_convolutions()), atol=0.03)
    assert np.abs(run(model) - run(two_convolutions())).max() > 0


def test_a_plan_keeps_layers_in_float32() -> None:
    model = halved(two_convolutions(), float_layers=frozenset({"second"}))
    assert types(model) == {"w": "FLOAT16", "v": "FLOAT"}


def test_what_onnx_has_in_float32_only_is_cast_around_and_scales_of_a_resize_stay() -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["a"], mode="nearest"),
        helper.make_node("Identity", ["a"], ["i"]),
        helper.make_node("DynamicQuantizeLinear", ["i"], ["codes", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    model = halved(make_model(nodes, scales=np.array([1, 1, 2, 2], np.float32)))
    assert types(model) == {"scales": "FLOAT"}
    assert Counter(node.op_type for node in model.graph.node)["Cast"] >= 2
    np.testing.assert_allclose(run(model), run(make_model(nodes, scales=np.array([1, 1, 2, 2], np.float32))), atol=0.03)


def test_a_constant_beyond_float16_is_named_and_infinity_stays() -> None:
    nodes = [helper.make_node("Add", ["x", "mask"], ["y"])]
    with pytest.raises(RecipeError, match=r"mask: expected constants within 65504 for float16; got -1e\+09"):
        halved(make_model(nodes, mask=np.array(-1e9, np.float32)))
    assert np.isneginf(run(halved(make_model(nodes, mask=np.array(-np.inf, np.float32))))).all()


def test_control_flow_is_refused_by_name() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, X.shape)]
    )
    node = helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=body, else_branch=body)
    with pytest.raises(RecipeError, match=r"without control flow for \"fp16\"; got If 'choice'"):
        halved(make_model([node], flag=np.array(True)))
