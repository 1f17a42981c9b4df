"""What a model takes: normalized floats, or an image's bytes with normalization and layout inside the graph.

Legend: N images, H height, W width, C channels.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from pipeline.export.operators import constant
from targets.processing import Processing

SAME_GRID = 1e-6
"""Relative difference of scales up to which bytes count as codes: float32's rounding."""


def take_bytes(graph: ir.Graph, processing: Processing, *, has_uint8: bool) -> None:
    """Make the first input uint8[N, H, W, C] of a graph that takes normalized float32[N, C, H, W].

    Where the grid of a quantized input is that of bytes (a mean of 0, a brightest pixel of 255), they are its codes.
    Else they are scaled by DequantizeLinear, one operator for a cast and a multiplication, where the runtime has uint8,
    and a bias is added. There they are transposed first, while they are small; others may not move bytes ("Transpose:
    first input has type UInt8", one parser says), and cast first.

    Args:
        graph: changed in place; encoded already, if int8.
        processing: scale and bias of each channel, as a device would apply them outside.
        has_uint8: whether Q/DQ of uint8 are fused by whom it is for; a float graph gets plain arithmetic.
    """
    floats = graph.inputs[0]
    assert floats.shape is not None
    name = str(floats.name)
    batch, channels, height, width = floats.shape
    floats.name = f"{name}.float"
    image = ir.val(name, dtype=ir.DataType.UINT8, shape=ir.Shape([batch, height, width, channels]))
    entry = _Entry(graph, name)
    graph.inputs[0] = image
    readers = list(floats.consumers())
    if all(_has_grid_of_bytes(node, processing) for node in readers):
        codes = entry.transpose(image)
        for node in readers:
            ir.convenience.replace_all_uses_with(node.outputs[0], codes, replace_graph_outputs=True)
            graph.remove(node, safe=True)
    else:
        ir.convenience.replace_all_uses_with(floats, entry.normalize(image, processing, has_uint8=has_uint8))


class _Entry:
    """The operators between an input and what reads it, at the beginning of a graph."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self._graph, self._name, self._first = graph, name, next(iter(graph))

    def add(self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, int | list[int]]) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"{self._name}/{op_type}")
        node.outputs[0].name = f"{node.name}:0"
        self._graph.insert_before(self._first, node)
        return node.outputs[0]

    def transpose(self, image: ir.Value) -> ir.Value:
        return self.add("Transpose", [image], {"perm": [0, 3, 1, 2]})

    def normalize(self, image: ir.Value, processing: Processing, *, has_uint8: bool) -> ir.Value:
        scale, bias = (np.array(values, np.float32) for values in (processing.scale, processing.bias))
        if np.ptp(scale) == 0:
            scale = scale[0]
        if has_uint8:
            inputs = [self._constant("scale", scale), self._constant("zero_point", np.zeros(scale.shape, np.uint8))]
            result = self.add("DequantizeLinear", [self.transpose(image), *inputs], {"axis": 1} if scale.ndim else {})
        else:
            result = self.transpose(self.add("Cast", [image], {"to": int(ir.DataType.FLOAT)}))
            factor = scale.reshape(1, -1, 1, 1) if scale.ndim else scale
            result = self.add("Mul", [result, self._constant("scale", factor)], {})
        if bias.any():
            result = self.add("Add", [result, self._constant("bias", bias.reshape(1, -1, 1, 1))], {})
        return result

    def _constant(self, what: str, array: np.ndarray) -> ir.Value:
        name = f"{self._name}.{what}"
        while name in self._graph.initializers:  # the grid of a quantized input is called so too
            name += "_"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value


def _has_grid_of_bytes(node: ir.Node, processing: Processing) -> bool:
    """Tell whether a Q gives every normalized byte its own value as code."""
    if node.op_type != "QuantizeLinear" or any(processing.bias):
        return False
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or zero_point is None or scale.ndim or zero_point.dtype != np.uint8 or zero_point != 0:
        return False
    return bool(np.allclose(processing.scale, float(scale), rtol=SAME_GRID, atol=0))
