from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets.devices.device import Device, open_device


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return open_device("local", tmp_path / "work")


@pytest.fixture
def linear_model(tmp_path: Path) -> Path:
    """y = mean over pixels of x (N, 3, 4, 4), times WEIGHTS (3, 5); the batch is open."""
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
