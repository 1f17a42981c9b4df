"""From the trained grid to each target's form: the same numbers, int8 weights, and operators that runtimes fuse."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from small_networks import (
    CLASSES,
    IMAGE,
    NETWORKS,
    Concat,
    Depthwise,
    MaxPoolFlatten,
    Residual,
    make_images,
    make_network,
)
from torch import fx, nn

from calibration.affine import quantize, scale_of_channels
from calibration.scheme import Encoding, Scheme
from pipeline.export.capture import capture
from pipeline.export.encode import encode
from pipeline.export.tidy import tidy
from pipeline.models.resnet import ResNet
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import restore_grids
from pipeline.training.quantized_model import make_quantized
from targets import TARGETS, AnyTarget
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions


class ResNet8(nn.Module):
    """The student that ships, over the small images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ResNet(depth=8, width=4).build(IMAGE[0], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


SCHEME = Scheme()
ALL = (ResNet8, *NETWORKS)
IMAGES = make_images(64, seed=1)


@cache
def quantized(kind: type[nn.Module], scheme: Scheme = SCHEME) -> fx.GraphModule:
    network = make_quantized(make_network(kind), scheme)
    calibrate(network, lambda index: make_images(64)[index], 64, Calibration())
    restore_grids(network)
    return network.eval().requires_grad_(False)


@cache
def exported(kind: type[nn.Module], scheme: Scheme = SCHEME) -> onnx.ModelProto:
    """Return the tidy graph before any encoding, with an open batch (as static ones are only smaller)."""
    model = capture(quantized(kind, scheme), torch.zeros(2, *IMAGE), 18, is_dynamic=True)
    tidy(model, name="test")
    return ir.to_proto(model)


def encoded(kind: type[nn.Module], encoding: Encoding, scheme: Scheme = SCHEME) -> onnx.ModelProto:
    fresh = onnx.ModelProto()
    fresh.CopyFrom(exported(kind, scheme))  # its arrays, and their names, are not copied by what follows
    model = ir.from_proto(fresh)
    encode(model.graph, encoding)
    tidy(model, name="test")
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def infer(proto: onnx.ModelProto, path: Path, optimization: str = "none") -> np.ndarray:
    runtime = OnnxRuntime(graph_optimization=optimization)
    onnx.save(proto, path)
    return runtime.open(path, RunOptions()).bind({"image": IMAGES.numpy()})()["logits"]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_encoding_computes_what_was_trained(
    kind: type[nn.Module], target: type[AnyTarget], reference: Path
) -> None:
    in_torch = quantized(kind)(IMAGES).numpy()
    in_onnx = infer(encoded(kind, target.encoding), reference)
    spread = in_torch.std()
    # A code may fall one step to the other side where sums differ in the last bit, or where a bias was rounded to
    # int32, or where a pair that only floats read is gone; int8 for what is never negative halves the number of steps.
    tolerance = 0.2 if target.encoding.nonnegative == "int8" else 0.05
    assert np.abs(in_onnx - in_torch).max() < tolerance * spread
    margins = np.sort(in_torch, axis=1)
    clear = margins[:, -1] - margins[:, -2] > 2 * np.abs(in_onnx - in_torch).max()
    assert (in_onnx.argmax(1) == in_torch.argmax(1))[clear].all()
    assert clear.mean() > (0.1 if target.encoding.nonnegative == "int8" else 0.7)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_weights_can_become_uint8_where_a_processor_lacks_vnni(kind: type[nn.Module], reference: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx.save(encoded(kind, OnnxRuntime.encoding), reference)
    found = []
    for setting in "01":
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", setting)
        session = onnxruntime.InferenceSession(str(reference), options)
        (logits,) = session.run(["logits"], {"image": IMAGES.numpy()})
        found.append(logits)
    np.testing.assert_array_equal(*found)


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("kind", [ResNet8, Depthwise, Concat], ids=lambda kind: kind.__name__)
def test_the_file_obeys_the_encoding(kind: type[nn.Module], target: type[AnyTarget]) -> None:
    encoding, proto = target.encoding, encoded(kind, target.encoding)
    arrays = constants(proto)
    by_output = {node.output[0]: node for node in proto.graph.node}
    grids = {
        (arrays[node.input[2]].dtype.name, int(arrays[node.input[2]]))
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear"
    }
    signed = {encoding.signed, encoding.concatenated or encoding.signed}
    assert grids <= {(encoding.nonnegative, 0)} | {(kind, 128 if kind == "uint8" else 0) for kind in signed}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    assert layers
    for node in layers:
        weight = by_output[node.input[1]]
        assert (weight.op_type, arrays[weight.input[0]].dtype) == ("DequantizeLinear", np.int8)
        bias = arrays.get(node.input[2])
        assert ("float32" if bias is not None else arrays[by_output[node.input[2]].input[0]].dtype) == encoding.bias


def test_weights_are_the_trained_codes() -> None:
    network = quantized(Depthwise)
    arrays = constants(encoded(Depthwise, Encoding(signed="int8", nonnegative="uint8", bias="float32", outputs=True)))
    for name in ("expand.0", "depthwise.0", "linear"):
        layer = network.get_submodule(name)
        weight = layer.parametrizations["weight"].original.numpy()
        scale = scale_of_channels(weight, 0).reshape(-1, *[1] * (weight.ndim - 1))
        np.testing.assert_array_equal(arrays[f"{name}.weight"], quantize(weight, scale, 0, "int8"))
        assert np.abs(arrays[f"{name}.weight"].astype(int)).max() == 127


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_name_tells_of_the_tools(kind: type[nn.Module]) -> None:
    proto = encoded(kind, OnnxRuntime.encoding)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["image", "logits"]
    assert not [name for name in constants(proto) if "parametrizations" in name or "original" in name]
    assert proto.producer_name == "edgeproof"
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_global_average_pooling_is_restored() -> None:
    operators = [node.op_type for node in encoded(ResNet8, OnnxRuntime.encoding).graph.node]
    assert operators.count("GlobalAveragePool") == 1
    assert "ReduceMean" not in operators


INTEGER = {
    ResNet8: {"QLinearConv": 9, "QLinearAdd": 3, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    Concat: {"QLinearConv": 3, "QLinearConcat": 1},
    MaxPoolFlatten: {"QLinearConv": 1, "MaxPool": 1, "NhwcMaxPool": 1, "QGemm": 2},
    Depthwise: {"QLinearConv": 3, "MaxPool": 1, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1},
}


@pytest.mark.parametrize("kind", INTEGER, ids=lambda kind: kind.__name__)
def test_onnx_runtime_computes_every_layer_in_int8(kind: type[nn.Module], reference: Path) -> None:
    onnx.save(encoded(kind, OnnxRuntime.encoding), reference)
    layers = OnnxRuntime().inspect(reference, RunOptions())
    moves = ("Transpose", "Reshape", "Flatten")
    integer = [layer.op_type for layer in layers if layer.precision == "int8" and layer.op_type not in moves]
    assert {name: integer.count(name) for name in integer} == INTEGER[kind]
    floats = [layer.op_type for layer in layers if layer.precision != "int8" and layer.op_type not in moves]
    last = ["DequantizeLinear", "GlobalAveragePool"] if kind is Concat else []  # the last layer's output stays float
    assert floats in (["QuantizeLinear", *last], ["QuantizeLinear", *last, "DequantizeLinear"])


def test_a_runtimes_fusions_agree_with_the_file_as_written(reference: Path) -> None:
    proto = encoded(ResNet8, OnnxRuntime.encoding)
    as_written, fused = infer(proto, reference), infer(proto, reference, "all")
    assert np.abs(as_written - fused).max() < 0.02 * as_written.std()  # one step in a code here and there


def test_a_pruned_channel_with_a_bias_stays_int8(reference: Path) -> None:
    class Pruned(MaxPoolFlatten):
        def __init__(self) -> None:
            super().__init__()
            layer = self.head[1]
            nn.init.zeros_(layer.weight[3].detach())
            layer.bias.data[3] = 0.7

    proto = encoded(Pruned, OnnxRuntime.encoding)
    onnx.save(proto, reference)
    layers = [layer.op_type for layer in OnnxRuntime().inspect(reference, RunOptions())]
    assert layers.count("QGemm") == 2
    assert np.abs(infer(proto, reference) - quantized(Pruned)(IMAGES).numpy()).max() < 0.01


def test_only_the_skip_branch_of_an_add_is_quantized_where_asked() -> None:
    encoding = replace(OnnxRuntime.encoding, residual="skip")
    for wanted, both in ((encoding, 1), (OnnxRuntime.encoding, 2)):
        proto = encoded(ResNet8, wanted)
        by_output = {node.output[0]: node.op_type for node in proto.graph.node}
        adds = [[by_output[name] for name in node.input] for node in proto.graph.node if node.op_type == "Add"]
        assert [inputs.count("DequantizeLinear") for inputs in adds] == [both] * 3


def test_outputs_that_only_floats_read_are_dropped_where_asked() -> None:
    def count(outputs: bool) -> int:
        encoding = replace(OnnxRuntime.encoding, outputs=outputs)
        operators = [node.op_type for node in encoded(Concat, encoding).graph.node]
        return operators.count("QuantizeLinear")

    assert count(outputs=True) >= count(outputs=False) >= 4  # the image, two branches, and what they are joined to


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme(weight_bits=4), Scheme(nonnegative="int8")], ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_other_grids_are_encoded_too(scheme: Scheme, target: type[AnyTarget], reference: Path) -> None:
    proto = encoded(Residual, target.encoding, scheme)
    in_torch = quantized(Residual, scheme)(IMAGES).numpy()
    assert np.abs(infer(proto, reference) - in_torch).max() < 0.2 * in_torch.std()
    codes = [array for array in constants(proto).values() if array.dtype == np.int8 and array.ndim > 1]
    assert max(np.abs(array.astype(int)).max() for array in codes) == 2 ** (scheme.weight_bits - 1) - 1
