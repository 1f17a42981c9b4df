"""A model that takes bytes gives the logits that the same model gives for what they become outside."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from edge_networks import Residual8
from exports import captured, infer
from small_networks import IMAGE

from pipeline.export.encode import encode
from pipeline.export.input_form import take_bytes
from pipeline.export.tidy import tidy
from targets import TARGETS, AnyTarget
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino
from targets.processing import Processing

CHANNELS, HEIGHT, WIDTH = IMAGE
BYTES = np.random.default_rng(5).integers(0, 256, (16, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
PROCESSING = Processing(scale=(1 / 60, 1 / 61, 1 / 62, 1 / 63), bias=(-2.0, -2.1, -1.9, -2.2))


def made(target: type[AnyTarget], *, is_int8: bool, takes_bytes: bool) -> ir.Model:
    model = captured(Residual8, is_int8=is_int8)
    tidy(model, name="test")
    if is_int8:
        encode(model.graph, target.encoding)
    if takes_bytes:
        take_bytes(model.graph, PROCESSING, has_uint8=is_int8 and target.encoding.nonnegative == "uint8")
    tidy(model, name="test")
    return model


@pytest.mark.parametrize("is_int8", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_bytes_give_the_logits_of_what_they_become(target: type[AnyTarget], is_int8: bool, tmp_path: Path) -> None:
    fused = target() if target is OpenVino else OnnxRuntime()
    for runtime in (OnnxRuntime(graph_optimization="none"), fused):
        floats = made(target, is_int8=is_int8, takes_bytes=False)
        expected = infer(floats, tmp_path / "floats.onnx", {"image": PROCESSING.preprocess(BYTES)}, runtime)
        bytes_in = made(target, is_int8=is_int8, takes_bytes=True)
        got = infer(bytes_in, tmp_path / "bytes.onnx", {"image": BYTES}, runtime)
        # Rounding of float32 in the sums; on codes it moves one to the other side here and there.
        assert np.abs(got - expected).max() < (0.01 * expected.std() if is_int8 else 1e-5)


def test_bytes_whose_grid_was_trained_are_the_codes() -> None:
    model = made(OnnxRuntime, is_int8=True, takes_bytes=False)
    first = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    scale, zero_point = (ir.tensor(array) for array in (np.float32(1 / 255), np.uint8(0)))
    for node in (first, *first.outputs[0].consumers()):
        for position, tensor in enumerate((scale, zero_point), start=1):
            value = ir.val(f"{node.name}.grid_{position}", const_value=tensor)
            model.graph.register_initializer(value)
            node.replace_input_with(position, value)
    take_bytes(model.graph, Processing(scale=(1 / 255,) * 4, bias=(0.0,) * 4), has_uint8=True)
    before_convolution = [node.op_type for node in model.graph][:2]
    assert before_convolution == ["Transpose", "DequantizeLinear"]
    assert "image.float" not in {value.name for node in model.graph for value in node.inputs if value is not None}


def test_what_stands_before_the_network_is_as_little_as_the_runtime_needs() -> None:
    def entry(target: type[AnyTarget], *, is_int8: bool) -> list[str]:
        names = [str(node.name) for node in made(target, is_int8=is_int8, takes_bytes=True).graph]
        return [name.removeprefix("image/") for name in names if name.startswith("image/")]

    assert entry(OnnxRuntime, is_int8=True) == ["Transpose", "DequantizeLinear", "Add"]
    assert entry(OnnxRuntime, is_int8=False) == ["Cast", "Transpose", "Mul", "Add"]
