"""Products whose activations are quantized at run time: the formula, sharing, and what the runtime fuses."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import RecipeError
from pipeline.export.dynamic import quantize_dynamic
from pipeline.export.tidy import tidy
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions

DRAW = np.random.default_rng(3)
X = (DRAW.standard_normal((2, 8)) + 0.4).astype(np.float32)
TOLERANCE = 1e-5  # float32 sums against float64


def make_model(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def quantized(
    model: onnx.ModelProto, *, weight_bits: int = 8, float_layers: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    rewritten = ir.from_proto(model)
    quantize_dynamic(rewritten.graph, weight_bits=weight_bits, float_layers=float_layers)
    tidy(rewritten, name="test")
    proto = ir.to_proto(rewritten)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def evaluate(model: onnx.ModelProto) -> np.ndarray:
    outputs = ReferenceEvaluator(model).run(None, {"x": X})
    assert isinstance(outputs, list)
    return np.asarray(outputs[0])


def count(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def names(model: onnx.ModelProto, op_type: str) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == op_type]


def round_activation(x: np.ndarray) -> np.ndarray:
    """Return x on the grid that ONNX defines for DynamicQuantizeLinear: 256 codes over a range that holds zero."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255
    zero_point = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale)


def round_weight(matrix_KN: np.ndarray, largest: int = 127) -> np.ndarray:
    scale_N = np.abs(matrix_KN).max(axis=0) / largest
    return np.asarray(np.rint(matrix_KN / scale_N) * scale_N)


W = DRAW.standard_normal((8, 5)) * np.array([0.01, 0.1, 1, 10, 100])  # channels of very different size
B = DRAW.standard_normal(5)


@pytest.mark.parametrize(
    ("transposed", "alpha", "beta"),
    [(0, 1.0, 1.0), (1, 1.0, 1.0), (0, 0.5, 2.0)],
    ids=["plain", "transposed", "scaled"],
)
def test_a_gemm_computes_the_formula(transposed: int, alpha: float, beta: float) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed, alpha=alpha, beta=beta)
    model = quantized(make_model([node], w=W.T if transposed else W, b=B))
    expected = alpha * (round_activation(X) @ round_weight(W)) + beta * B
    np.testing.assert_allclose(evaluate(model), expected, rtol=TOLERANCE, atol=1e-4)
    assert count(model)["Gemm"] == 0


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (4, 7)])
def test_codes_of_weights_keep_to_their_bits(bits: int, largest: int) -> None:
    model = quantized(make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], w=W), weight_bits=bits)
    codes = next(numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == TensorProto.INT8)
    np.testing.assert_array_equal(np.abs(codes).max(axis=0), [largest] * 5)
    expected = round_activation(X) @ round_weight(W, largest)
    np.testing.assert_allclose(evaluate(model), expected, rtol=TOLERANCE, atol=1e-4)


def test_one_scale_a_weight_is_the_largest_channel_s() -> None:
    rewritten = ir.from_proto(make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], w=W))
    quantize_dynamic(rewritten.graph, per_channel=False)
    scale = np.abs(W).max() / 127
    expected = round_activation(X) @ (np.rint(W / scale) * scale)
    model = ir.to_proto(rewritten)
    np.testing.assert_allclose(evaluate(model), expected, rtol=TOLERANCE, atol=1e-3)


def attention_like() -> onnx.ModelProto:
    """Return y = relu(x q + bias) * (x k) * gemm(x v) @ w: three readers of x, and one product of its own."""
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["xq"], name="blocks.0.q/MatMul"),
        helper.make_node("Add", ["xq", "bias"], ["xqb"], name="blocks.0.q/Add"),
        helper.make_node("Relu", ["xqb"], ["queries"], name="blocks.0/Relu"),
        helper.make_node("MatMul", ["x", "k"], ["keys"], name="blocks.0.k/MatMul"),
        helper.make_node("Gemm", ["x", "v"], ["values"], name="blocks.0.v/Gemm"),
        helper.make_node("Mul", ["queries", "keys"], ["scores"], name="blocks.0/Mul"),
        helper.make_node("Mul", ["scores", "values"], ["mixed"], name="blocks.0/Mul_1"),
        helper.make_node("MatMul", ["mixed", "w"], ["y"], name="head/MatMul"),
    ]
    square = {name: DRAW.standard_normal((8, 8)) for name in ("q", "k", "v")}
    return make_model(nodes, bias=DRAW.standard_normal(8), w=W, **square)


def test_products_that_read_one_tensor_share_its_codes() -> None:
    assert count(quantized(attention_like()))["DynamicQuantizeLinear"] == 2
    assert count(quantized(attention_like()))["MatMulInteger"] == 4


def test_onnxruntime_fuses_every_product_into_one_kernel(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx.save(quantized(attention_like()), tmp_path / "m.onnx")
    layers = OnnxRuntime().inspect(tmp_path / "m.onnx", RunOptions())
    kinds = Counter(layer.op_type for layer in layers)
    assert kinds == {
        **{"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3, "DynamicQuantizeMatMul": 1},
        **{"Relu": 1, "Mul": 2},
    }
    products = [layer.precision for layer in layers if "MatMul" in layer.op_type]
    assert products == ["int8"] * 4


def test_a_plan_keeps_layers_in_float_by_name_or_prefix() -> None:
    model = quantized(attention_like(), float_layers=frozenset({"blocks.0.q", "head/MatMul", "blocks.0.vv"}))
    assert [node.name for node in model.graph.node if node.op_type == "MatMul"] == ["blocks.0.q/MatMul", "head/MatMul"]
    assert [n.name for n in model.graph.node if n.op_type == "MatMulInteger"] == [
        "blocks.0.k/MatMul",
        "blocks.0.v/Gemm",
    ]


def test_what_is_quantized_statically_stays() -> None:
    grid = {"s": np.array(0.1), "t": np.array(0.2)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["xq"], output_dtype=TensorProto.UINT8),
        helper.make_node("DequantizeLinear", ["xq", "s"], ["xd"]),
        helper.make_node("MatMul", ["xd", "w"], ["a"], name="static"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="free"),
    ]
    model = quantized(make_model(nodes, w=W, v=DRAW.standard_normal((5, 3)), **grid))
    assert (names(model, "MatMul"), names(model, "MatMulInteger")) == (["static"], ["free"])


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], {}),
        ([helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)], {"w": DRAW.standard_normal((2, 3))}),
        ([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": DRAW.standard_normal((3, 2))}),
    ],
    ids=["no product", "transposed activations", "constant on the left"],
)
def test_a_model_without_a_linear_layer_is_refused(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(RecipeError, match=r'expected a model with a linear layer for "int8_dynamic"; got none'):
        quantized(make_model(nodes, **weights))


def test_a_weight_that_is_not_finite_is_named() -> None:
    with pytest.raises(RecipeError, match=r"weight 'w': expected finite values; got NaN or infinity"):
        quantized(make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], w=np.full((8, 2), np.nan)))
