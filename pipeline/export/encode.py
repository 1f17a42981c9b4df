"""Re-write a trained grid into a target's encoding: explicit Q/DQ with int8 weights, without changing what was learned.

Rule: codes and scales come from calibration.affine; which form is wanted comes from the target's Encoding.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from calibration.affine import CODES, quantize, rewrite_grid
from calibration.scheme import Encoding

INTEGER_OPS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Concat", "AveragePool", "GlobalAveragePool"}
"""Operators that runtimes compute on codes."""
MOVES = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "DepthToSpace"}
"""Operators that move codes unchanged."""


def encode(graph: ir.Graph, encoding: Encoding) -> None:
    """Fold weights to int8 initializers and re-write every activation's grid and bias as `encoding` says."""
    rewriter = _Rewriter(graph, encoding)
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and _constant(node.inputs[0]) is not None:
            if _is_activation(node):  # a parameter that is added, say
                _rewrite_with_readers(rewriter, node)
            rewriter.fold_weight(node)
    if encoding.residual == "skip":
        _drop_main_branch(graph)
    if not encoding.outputs:
        _drop_unread(graph)
    for node in list(graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and _constant(node.inputs[0]) is None:
            rewriter.rewrite_activation(node)
    if encoding.bias == "int32":
        for node in list(graph):
            if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
                rewriter.encode_bias(node)


@dataclass
class _Rewriter:
    graph: ir.Graph
    encoding: Encoding
    grids: dict[tuple[float, int, str], tuple[ir.Value, ir.Value]] = field(default_factory=dict)

    def fold_weight(self, node: ir.Node) -> None:
        """Replace float initializer -> Q by an int8 initializer; its DQ stays."""
        weight, scale, zero_point = (_constant(value) for value in node.inputs)
        assert weight is not None
        assert scale is not None
        assert zero_point is not None
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)] if scale.ndim else []
        codes = quantize(weight, scale.reshape(shape), int(zero_point.flat[0]), zero_point.dtype.name)
        source = node.inputs[0]
        assert source is not None
        name = _plain_name(source)
        source.name = f"{name}.float"  # unused from now on, and removed with all that is
        ir.convenience.replace_all_uses_with(node.outputs[0], self._initializer(name, codes))
        self.graph.remove(node, safe=True)

    def rewrite_activation(self, node: ir.Node) -> None:
        """Point a Q or DQ at the grid of the encoding that stands for its trained one."""
        scale, zero_point = _constant(node.inputs[1]), _constant(node.inputs[2])
        assert scale is not None
        assert zero_point is not None
        trained = zero_point.dtype.name
        wanted = self.encoding.nonnegative if trained == "uint8" else self.encoding.signed
        new_scale, new_zero_point = rewrite_grid(float(scale), trained, wanted)
        for position, value in enumerate(self._grid(new_scale, new_zero_point, wanted), start=1):
            node.replace_input_with(position, value)
        node.attributes.pop("axis", None)  # per tensor

    def encode_bias(self, node: ir.Node) -> None:
        """Store a bias as int32 codes with scale = input scale x weight scale, where they fit; else leave it float."""
        bias = _constant(node.inputs[2])
        input_scale, weight_scale = _scale_of(node.inputs[0]), _scale_of(node.inputs[1])
        if bias is None or input_scale is None or weight_scale is None:
            return
        weight_scale = self._widen_dead_channels(node, bias / (input_scale * CODES["int32"][1]))
        scale = np.broadcast_to((input_scale * weight_scale).astype(np.float32), bias.shape)
        if np.abs(bias / scale).max(initial=0.0) > CODES["int32"][1]:
            return
        codes = quantize(bias, scale, 0, "int32")
        assert node.inputs[2] is not None
        name = _plain_name(node.inputs[2])
        inputs = [
            self._initializer(f"{name}.codes", codes),
            self._initializer(f"{name}.scale", np.ascontiguousarray(scale)),
            self._initializer(f"{name}.zero_point", np.zeros(bias.shape, np.int32)),
        ]
        dequantized = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"dequantize_{inputs[0].name}")
        dequantized.outputs[0].name = f"{inputs[0].name}.dequantized"
        self.graph.insert_before(node, dequantized)
        node.replace_input_with(2, dequantized.outputs[0])

    def _widen_dead_channels(self, node: ir.Node, least: np.ndarray) -> np.ndarray:
        """Return the scales of a node's weights, raised to `least` in channels of nothing but zeros.

        Zero is zero on any grid, but the scale of such a channel is so small that its bias would not fit int32, and one
        float bias keeps the whole operator from computing in int8.
        """
        dequantize_node = node.inputs[1].producer() if node.inputs[1] is not None else None
        assert dequantize_node is not None
        codes, scale = _constant(dequantize_node.inputs[0]), _constant(dequantize_node.inputs[1])
        assert codes is not None
        assert scale is not None
        dead = ~codes.reshape(len(codes), -1).any(axis=1)
        if scale.shape != least.shape or scale.shape != dead.shape or not (dead & (np.abs(least) > scale)).any():
            return scale
        widened = np.where(dead, np.maximum(scale, 2 * np.abs(least)), scale).astype(np.float32)
        assert dequantize_node.inputs[1] is not None
        name = _plain_name(dequantize_node.inputs[1])
        dequantize_node.replace_input_with(1, self._initializer(f"{name}.widened", widened))
        return widened

    def _grid(self, scale: float, zero_point: int, dtype: str) -> tuple[ir.Value, ir.Value]:
        key = (scale, zero_point, dtype)
        if key not in self.grids:
            name = f"grid_{len(self.grids)}"
            self.grids[key] = (
                self._initializer(f"{name}.scale", np.array(scale, np.float32)),
                self._initializer(f"{name}.zero_point", np.array(zero_point, dtype)),
            )
        return self.grids[key]

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        while name in self.graph.initializers:
            name += "_"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value


def _is_activation(node: ir.Node) -> bool:
    """Tell a grid of one scale from the weights', which have one a channel."""
    scale = _constant(node.inputs[1])
    return scale is not None and scale.ndim == 0


def _rewrite_with_readers(rewriter: _Rewriter, node: ir.Node) -> None:
    for each in (*node.outputs[0].consumers(), node):
        rewriter.rewrite_activation(each)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _scale_of(value: ir.Value | None) -> np.ndarray | None:
    producer = None if value is None else value.producer()
    return _constant(producer.inputs[1]) if producer is not None and producer.op_type == "DequantizeLinear" else None


def _plain_name(value: ir.Value) -> str:
    return str(value.name).replace(".parametrizations", "").replace(".original", "")


def _activation_pairs(graph: ir.Graph) -> list[tuple[ir.Node, ir.Node]]:
    """Return every Q with its only reader, a DQ."""
    pairs = []
    for node in graph:
        readers = list(node.outputs[0].consumers()) if node.op_type == "QuantizeLinear" else []
        if len(readers) == 1 and readers[0].op_type == "DequantizeLinear":
            pairs.append((node, readers[0]))
    return pairs


def _remove_pair(graph: ir.Graph, quantize_node: ir.Node, dequantize_node: ir.Node) -> None:
    source = quantize_node.inputs[0]
    assert source is not None
    ir.convenience.replace_all_uses_with(dequantize_node.outputs[0], source)
    graph.remove([dequantize_node, quantize_node], safe=True)


def _drop_unread(graph: ir.Graph) -> None:
    """Remove pairs that only float operators read."""
    for quantize_node, dequantize_node in _activation_pairs(graph):
        readers = dequantize_node.outputs[0].consumers()
        if readers and not any(reader.op_type in INTEGER_OPS | MOVES for reader in readers):
            _remove_pair(graph, quantize_node, dequantize_node)


def _drop_main_branch(graph: ir.Graph) -> None:
    """Remove the pair between a convolution and the Add that alone reads it; the skip branch keeps its own."""
    for quantize_node, dequantize_node in _activation_pairs(graph):
        readers = list(dequantize_node.outputs[0].consumers())
        source = quantize_node.inputs[0]
        producer = source.producer() if source is not None else None
        if len(readers) != 1 or readers[0].op_type != "Add" or producer is None or producer.op_type != "Conv":
            continue
        others = [value for value in readers[0].inputs if value is not dequantize_node.outputs[0]]
        if others and _scale_of(others[0]) is not None:
            _remove_pair(graph, quantize_node, dequantize_node)
