"""The fusion proof: shares, stray Q/DQ, islands, and causes that the file or the plan tells."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from micro_nets import CHANNELS, Net, between_convolutions, one

from pipeline.artifacts import FloatIsland, FusionProof
from pipeline.export.dynamic import quantize_dynamic
from pipeline.export.tidy import tidy
from pipeline.fusion.prove import prove_fusion
from targets import AnyTarget, OnnxRuntime, OpenVino
from targets.target import Layer, RunOptions

RUNTIMES = (OnnxRuntime(), OpenVino())


def prove(target: AnyTarget, proto: onnx.ModelProto, folder: Path, plan: frozenset[str] = frozenset()) -> FusionProof:
    pytest.importorskip(target.kind)
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return prove_fusion(target.inspect(path, RunOptions()), path, target, plan=plan)


def inside(proof: FusionProof) -> list[FloatIsland]:
    return [island for island in proof.islands if island.is_inside]


def with_float_constant(net: Net, x: str) -> str:
    return net.add("Add", x, net.const(np.ones((1, CHANNELS, 1, 1), np.float32)))


def with_float_weights(net: Net, x: str) -> str:
    return net.conv(x, weight=net.const(np.ones((CHANNELS, CHANNELS, 1, 1), np.float32)), size=1)


def with_float_output(net: Net, x: str) -> str:
    return net.add("Sin", net.conv(x))


def with_zero_points(net: Net, x: str) -> str:
    return net.conv(x, weight=net.weight(CHANNELS, CHANNELS, 3, 3, zero_point=3))


@pytest.mark.parametrize(
    ("target", "build", "subject", "reason"),
    [
        (OnnxRuntime(), with_float_constant, "Add", "a constant that is not quantized"),
        (OpenVino(), with_float_weights, "Conv", "its weights are float in the file"),
        (OnnxRuntime(), with_float_output, "Conv", "the file does not quantize its output"),
        (OnnxRuntime(), one("Sin"), "Sin", "unknown"),
        (OpenVino(), with_zero_points, "Conv", "its weights have a zero point"),
    ],
)
def test_what_no_table_declares_is_explained_by_the_file(
    target: AnyTarget, build: Callable[[Net, str], str], subject: str, reason: str, tmp_path: Path
) -> None:
    (island,) = inside(prove(target, between_convolutions(build, target.encoding.signed), tmp_path))
    assert island.subject == subject
    assert island.reason.startswith(reason)


def test_a_product_with_another_tensor_is_not_taken_for_an_activation(tmp_path: Path) -> None:
    def excited(net: Net, x: str) -> str:
        pooled = net.quantized(net.conv(net.quantized(net.add("GlobalAveragePool", x)), size=1))
        return net.add("Mul", x, net.add("HardSigmoid", pooled, alpha=1 / 6, beta=0.5))

    for target in RUNTIMES:
        (island,) = inside(prove(target, between_convolutions(excited, target.encoding.signed), tmp_path))
        assert island.subject == "HardSigmoid"


def test_a_plan_explains_what_it_keeps_in_float(tmp_path: Path) -> None:
    proto = between_convolutions(one("Tanh"), "uint8")
    name = next(node.name for node in proto.graph.node if node.op_type == "Tanh")
    (island,) = inside(prove(OnnxRuntime(), proto, tmp_path, plan=frozenset({name.partition("/")[0]})))
    assert (island.subject, island.reason) == (name, "kept in float by the plan")
    assert island.num_conversions == 2


def dynamic_between(folder: Path, plan: frozenset[str]) -> FusionProof:
    """Return the proof of a product with dynamic activations whose bias a runtime adds in float by itself."""
    net = Net("uint8")
    product = net.add("MatMul", "image", net.const(np.ones((32, 32), np.float32)))
    model = ir.from_proto(net.model(net.add("Add", product, net.const(np.ones(32, np.float32)))))
    model.graph[0].name = "block/MatMul"
    quantize_dynamic(model.graph)
    tidy(model, name="test")
    onnx.save(ir.to_proto(model), folder / "model.onnx")
    layers = [
        Layer("first", "QGemm", "int8", 1.0),
        Layer("scaled", "Mul", "fp32", 1.0, reads=("first",), sources=("block/MatMul/Mul",)),
        Layer("last", "QGemm", "int8", 1.0, reads=("scaled",)),
    ]
    return prove_fusion(layers, folder / "model.onnx", OnnxRuntime(), plan=plan)


@pytest.mark.parametrize(("plan", "words"), [({"block"}, ", by the plan"), (set(), "")], ids=["planned", "everywhere"])
def test_a_layer_with_dynamic_activations_is_not_called_one_in_float(
    plan: set[str], words: str, tmp_path: Path
) -> None:
    (island,) = inside(dynamic_between(tmp_path, frozenset(plan)))
    assert (island.subject, island.reason) == ("block/MatMul", f"computes with dynamic activations{words}")


@pytest.mark.parametrize("target", RUNTIMES, ids=lambda target: target.kind)
def test_a_second_grid_on_one_tensor_strays(target: AnyTarget, tmp_path: Path) -> None:
    def build(net: Net, x: str) -> str:
        return net.add("Add", net.quantized(net.conv(x)), net.quantized(net.conv(net.quantized(x, scale=0.05))))

    proof = prove(target, between_convolutions(build, target.encoding.signed), tmp_path)
    assert not inside(proof)
    assert proof.strays
    assert all({stray.before, stray.after} <= {*executed(target, tmp_path)} for stray in proof.strays)


def executed(target: AnyTarget, folder: Path) -> list[str]:
    return [layer.name for layer in target.inspect(folder / "model.onnx", RunOptions())]


@pytest.mark.parametrize("target", RUNTIMES, ids=lambda target: target.kind)
def test_a_network_of_what_fuses_has_neither_strays_nor_islands(target: AnyTarget, tmp_path: Path) -> None:
    proof = prove(target, between_convolutions(one("LeakyRelu"), target.encoding.signed), tmp_path)
    assert (proof.strays, inside(proof)) == ((), [])
    assert proof.int8_time_share is not None
    shares = (proof.int8_time_share, proof.float_time_share, proof.conversion_time_share)
    assert sum(share for share in shares if share is not None) == pytest.approx(1.0)


@pytest.mark.parametrize("target", RUNTIMES, ids=lambda target: target.kind)
def test_a_float_model_has_no_islands(target: AnyTarget, tmp_path: Path) -> None:
    net = Net("uint8")
    x = net.conv("image", weight=net.const(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32)))
    proof = prove(target, net.model(net.add("GlobalAveragePool", net.add("Relu", x))), tmp_path)
    assert (proof.int8_operators, proof.conversions, proof.islands, proof.int8_time_share) == (0, 0, (), 0.0)


def test_float_operators_that_touch_are_one_island_and_its_qdq_count_with_it(tmp_path: Path) -> None:
    net = Net("uint8")
    path = tmp_path / "model.onnx"
    onnx.save(net.model(net.add("Relu", "image")), path)
    layers = [
        Layer("q", "QuantizeLinear", "fp32", 1.0, is_conversion=True),
        Layer("conv", "QLinearConv", "int8", 10.0, reads=("q",)),
        Layer("dq", "DequantizeLinear", "fp32", 2.0, reads=("conv",), is_conversion=True),
        Layer("a", "Sin", "fp32", 3.0, reads=("dq",)),
        Layer("b", "Cos", "fp32", 4.0, reads=("a",)),
        Layer("q2", "QuantizeLinear", "fp32", 5.0, reads=("b",), is_conversion=True),
        Layer("conv2", "QLinearConv", "int8", 15.0, reads=("q2",)),
    ]
    proof = prove_fusion(layers, path, OnnxRuntime())
    (island,) = proof.islands
    assert (island.layers, island.num_conversions, island.time_share) == (("a", "b"), 2, 14 / 40)
    assert (proof.int8_operators, proof.float_operators, proof.conversions, proof.strays) == (2, 2, 3, ())


def test_without_edges_nothing_is_said_of_strays(tmp_path: Path) -> None:
    net = Net("uint8")
    path = tmp_path / "model.onnx"
    onnx.save(net.model(net.add("Relu", "image")), path)
    proof = prove_fusion([Layer("a", "Conv", "int8"), Layer("b", "Relu", "fp32")], path, OnnxRuntime())
    assert (proof.has_edges, proof.strays, proof.int8_time_share) == (False, (), None)
