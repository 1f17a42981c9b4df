"""The reader of ONNX graphs that devices carry, against onnx's own."""

from pathlib import Path

import onnx
import pytest

from targets.onnx_nodes import OnnxNode, read_nodes


def test_nodes_are_those_that_onnx_reads(linear_model: Path) -> None:
    expected = [
        OnnxNode(node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in onnx.load(linear_model).graph.node
    ]
    assert read_nodes(linear_model.read_bytes()) == expected
    assert [node.op_type for node in expected] == ["GlobalAveragePool", "Flatten", "MatMul"]


def test_real_models_are_read_alike(shared_data: Path) -> None:
    for name in ("fastestdet", "yolox_nano", "ultraface_slim_320_simplified"):
        path = shared_data / "onnx_models" / f"{name}.onnx"
        expected = [(node.name, tuple(node.input), tuple(node.output)) for node in onnx.load(path).graph.node]
        assert [(node.name, node.inputs, node.outputs) for node in read_nodes(path.read_bytes())] == expected


@pytest.mark.parametrize("data", [b"\x3a\x7f", b"\xff\xff", b"\x07"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected a protocol buffer"):
        read_nodes(data)
