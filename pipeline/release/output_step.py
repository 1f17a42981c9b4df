"""One quantization step of a model's output, read from its ONNX file. Rule: zero where it cannot be said.

Two forms are known: an output that is itself on a grid, and the last linear layer, whose input and weights are on grids
and whose output is float: there a step is what one code of its input changes at most, scale * largest weight.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

LINEAR = ("Gemm", "MatMul")


def output_step(model: onnx.ModelProto) -> float:
    """Return one step of the first output, in its own unit; 0 where the model does not tell."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    node = makers.get(graph.output[0].name)
    if node is not None and node.op_type == "Add":  # a bias of its own
        node = next((makers[name] for name in node.input if name in makers and name not in constants), None)
    if node is None:
        return 0.0
    if node.op_type == "DequantizeLinear" and node.input[1] in constants:
        return float(_array(constants, node.input[1]).max())
    if node.op_type not in LINEAR:
        return 0.0
    grids = [makers.get(name) for name in node.input[:2]]
    if not all(grid is not None and grid.op_type == "DequantizeLinear" for grid in grids):
        return 0.0
    weights = [grid for grid in grids if grid is not None and grid.input[0] in constants]
    codes = [grid for grid in grids if grid is not None and grid.input[0] not in constants]
    if len(weights) != 1 or len(codes) != 1 or codes[0].input[1] not in constants:
        return 0.0
    if _array(constants, weights[0].input[1]).ndim > 1:  # a scale for each block of weights
        return 0.0
    return float(_array(constants, codes[0].input[1]).max() * np.abs(_values(weights[0], constants)).max(initial=0.0))


def _values(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> np.ndarray:
    """Return what a DequantizeLinear of constants gives."""
    codes, scale = (_array(constants, name) for name in node.input[:2])
    zero_point = _array(constants, node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros_like(scale)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [scale.size if index == axis % codes.ndim and scale.ndim else 1 for index in range(codes.ndim)]
    centred: np.ndarray = codes.astype(np.float64) - zero_point.astype(np.float64).reshape(shape)
    return centred * scale.astype(np.float64).reshape(shape)


def _array(constants: Mapping[str, onnx.TensorProto], name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(constants[name]))
