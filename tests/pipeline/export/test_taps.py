"""Taps: tensors of a model's middle as outputs, and nothing else changed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_nets import SHAPE, Net

from pipeline.errors import DataError
from pipeline.export.taps import batched_shapes, with_outputs
from targets import reference_target
from targets.target import RunOptions


def quantized_net() -> tuple[onnx.ModelProto, str, str]:
    """Return a model, the name of a tensor of codes in it, and of one of values."""
    net = Net("uint8")
    image = net.quantized("image", nonnegative=True)
    inner = net.conv(image)
    model = net.model(net.add("GlobalAveragePool", net.quantized(inner)))
    return model, next(node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"), inner


def test_tapped_tensors_come_behind_the_models_own_outputs_with_their_types(tmp_path: Path) -> None:
    model, codes, values = quantized_net()
    before = model.SerializeToString()
    path = tmp_path / "tapped.onnx"
    onnx.save(with_outputs(model, [codes, values, codes]), path)
    session = reference_target().open(path, RunOptions())
    assert [spec.name for spec in session.outputs] == [model.graph.output[0].name, codes, values]
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    outputs = session.bind({"image": image})()
    assert (outputs[codes].dtype, outputs[values].dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(outputs[codes], np.clip(np.rint(image / np.float32(0.02)), 0, 255))
    assert model.SerializeToString() == before


def test_an_unknown_tensor_is_refused_with_names_that_are_there() -> None:
    model, _, _ = quantized_net()
    with pytest.raises(DataError, match=r"expected the name of a tensor of the model \(image, .*got 'nowhere'"):
        with_outputs(model, ["nowhere"])


def test_shapes_of_one_sample_are_told_for_tensors_that_keep_the_batch() -> None:
    model, codes, values = quantized_net()
    shapes = batched_shapes(model)
    assert shapes[codes] == shapes[values] == SHAPE[1:]
    weight = next(
        node.output[0] for node in model.graph.node if node.name.endswith("DequantizeLinear") and "c" in node.input[0]
    )
    assert weight not in shapes
