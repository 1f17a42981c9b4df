"""Re-write a trained grid into a target's encoding: explicit Q/DQ with int8 weights, without changing what was learned.

Rule: codes and scales come from calibration.affine; which form is wanted comes from the target's Encoding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from calibration.affine import CODES, dequantize, quantize, rewrite_grid
from calibration.scheme import Encoding
from pipeline.export.names import plain_name
from pipeline.export.operators import INTEGER_OPS, MOVES, constant


def encode(graph: ir.Graph, encoding: Encoding, *, is_trained: bool = True) -> None:
    """Fold weights to int8 initializers and re-write every activation's grid and bias as `encoding` says.

    Args:
        graph: on the trained grid.
        encoding: the form of Q/DQ that the target fuses.
        is_trained: whether every target gets these grids and must compute the same codes; else a rounding may be left
            out that costs time.
    """
    rewriter = _Rewriter(graph, encoding)
    if encoding.residual == "skip":
        _drop_main_branch(graph)
    if not encoding.outputs:
        _drop_unread(graph)
        _drop_moved(graph)
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is not None:
            if _is_activation(node):  # a parameter that is added, say
                _rewrite_with_readers(rewriter, node)
            rewriter.fold_weight(node)
    for node in list(graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and constant(node.inputs[0]) is None:
            rewriter.rewrite_activation(node)
    for node in list(graph):
        layer, position = _layer_of_bias(node)
        if layer is not None:
            rewriter.encode_bias(node, position, layer)
    if encoding.residual == "rounded" and is_trained:
        _keep_rounding(graph)


@dataclass
class _Rewriter:
    graph: ir.Graph
    encoding: Encoding
    grids: dict[tuple[float, int, str], tuple[ir.Value, ir.Value]] = field(default_factory=dict)

    def fold_weight(self, node: ir.Node) -> None:
        """Replace float initializer -> Q by an int8 initializer; its DQ stays."""
        weight, scale, zero_point = (constant(value) for value in node.inputs)
        assert weight is not None
        assert scale is not None
        assert zero_point is not None
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)] if scale.ndim else []
        codes = quantize(weight, scale.reshape(shape), int(zero_point.flat[0]), zero_point.dtype.name)
        assert node.inputs[0] is not None
        folded = self._initializer(self._take_name(node.inputs[0]), codes)
        ir.convenience.replace_all_uses_with(node.outputs[0], folded)
        self.graph.remove(node, safe=True)

    def rewrite_activation(self, node: ir.Node) -> None:
        """Point a Q or DQ at the grid of the encoding that stands for its trained one."""
        scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
        assert scale is not None
        assert zero_point is not None
        trained, center = zero_point.dtype.name, int(zero_point)
        wanted = self.encoding.nonnegative if trained == "uint8" else self._signed(node)
        new_scale, new_zero_point = rewrite_grid(float(scale), center, trained, wanted)
        for position, value in enumerate(self._grid(new_scale, new_zero_point, wanted), start=1):
            node.replace_input_with(position, value)
        node.attributes.pop("axis", None)  # per tensor

    def _signed(self, node: ir.Node) -> str:
        """Return the codes of a Q or DQ of a tensor that can be negative."""
        source = node.inputs[0]
        if node.op_type == "DequantizeLinear" and source is not None:
            quantizer = source.producer()
            source = None if quantizer is None else quantizer.inputs[0]
        return (self.encoding.concatenated if _is_concatenated(source) else None) or self.encoding.signed

    def encode_bias(self, node: ir.Node, position: int, layer: ir.Node) -> None:
        """Store a bias as int32 codes with scale = input scale x weight scale, where they fit; else leave it as it is.

        Where the encoding wants floats it gets what the codes stand for, so that every encoding computes the same.

        Args:
            node: reads the bias.
            position: of the bias among its inputs.
            layer: the node itself, or the product without a bias of its own that it follows.
        """
        value = node.inputs[position]
        bias = constant(value)
        input_scale, weight_scale = _scale_of(layer.inputs[0]), _scale_of(layer.inputs[1])
        if value is None or bias is None or bias.ndim != 1 or input_scale is None or weight_scale is None:
            return
        weight_scale = self._widen_dead_channels(layer, bias / (input_scale * CODES["int32"][1]))
        if weight_scale.size not in (1, bias.size):
            return
        scale = np.broadcast_to((input_scale * weight_scale).astype(np.float32), bias.shape)
        if np.abs(bias / scale).max(initial=0.0) > CODES["int32"][1]:
            return
        codes = quantize(bias, scale, 0, "int32")
        name = self._take_name(value)
        if self.encoding.bias == "float32":
            node.replace_input_with(position, self._initializer(name, dequantize(codes, scale, 0)))
            return
        inputs = [self._initializer(name, codes), self._initializer(f"{name}.scale", np.ascontiguousarray(scale))]
        dequantized = ir.node("DequantizeLinear", inputs, {"axis": 0})  # int32 has no zero point but 0
        dequantized.outputs[0].name = f"{name}.dequantized"
        self.graph.insert_before(node, dequantized)
        node.replace_input_with(position, dequantized.outputs[0])

    def _widen_dead_channels(self, node: ir.Node, least: np.ndarray) -> np.ndarray:
        """Return the scales of a node's weights, raised to `least` in channels of nothing but zeros.

        Zero is zero on any grid, but the scale of such a channel is so small that its bias would not fit int32, and one
        float bias keeps the whole operator from computing in int8.
        """
        dequantize_node = node.inputs[1].producer() if node.inputs[1] is not None else None
        assert dequantize_node is not None
        codes, scale = constant(dequantize_node.inputs[0]), constant(dequantize_node.inputs[1])
        assert codes is not None
        assert scale is not None
        axis = dequantize_node.attributes.get_int("axis", 1)
        dead = ~codes.any(axis=tuple(i for i in range(codes.ndim) if i != axis % codes.ndim))
        if scale.shape != least.shape or scale.shape != dead.shape or not (dead & (np.abs(least) > scale)).any():
            return scale
        widened = np.where(dead, np.maximum(scale, 2 * np.abs(least)), scale).astype(np.float32)
        assert dequantize_node.inputs[1] is not None
        name = plain_name(str(dequantize_node.inputs[1].name))
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

    def _take_name(self, value: ir.Value) -> str:
        """Return the name of a float parameter for what stands for it; it is gone soon, unless floats read it too."""
        name = plain_name(str(value.name)).removesuffix(".float")
        if not value.is_graph_output():
            value.name = f"{name}.float"
        return name

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        while name in self.graph.initializers:
            name += "_"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value


def _is_activation(node: ir.Node) -> bool:
    """Tell a grid of one scale from the weights', which have one a channel."""
    scale = constant(node.inputs[1])
    return scale is not None and scale.ndim == 0


def _is_concatenated(value: ir.Value | None) -> bool:
    """Return whether a tensor comes out of a Concat, and was at most moved since."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type in MOVES:
        return _is_concatenated(producer.inputs[0])
    return producer is not None and producer.op_type == "Concat"


def _rewrite_with_readers(rewriter: _Rewriter, node: ir.Node) -> None:
    for each in (*node.outputs[0].consumers(), node):
        rewriter.rewrite_activation(each)


def _layer_of_bias(node: ir.Node) -> tuple[ir.Node | None, int]:
    """Return the layer that a node gives its bias, most often itself, and where among its inputs the bias is."""
    if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
        return node, 2
    if node.op_type == "Add":
        for position in (0, 1):
            other = node.inputs[1 - position]
            product = None if other is None else other.producer()
            if product is not None and product.op_type == "MatMul" and constant(node.inputs[position]) is not None:
                return product, position
    return None, 0


def _scale_of(value: ir.Value | None) -> np.ndarray | None:
    producer = None if value is None else value.producer()
    return constant(producer.inputs[1]) if producer is not None and producer.op_type == "DequantizeLinear" else None


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
    for quantize_node, dequantize_node in reversed(_activation_pairs(graph)):  # behind a mover before before it
        readers = dequantize_node.outputs[0].consumers()
        if readers and not any(map(_computes_on_codes, readers)):
            _remove_pair(graph, quantize_node, dequantize_node)


def _drop_moved(graph: ir.Graph) -> None:
    """Remove pairs that round again what was only moved since it was rounded to the same grid.

    Runtimes that want grids at inputs only move codes by themselves. One of them (CPU, 2026.4) computes wrong values
    where such pairs stand behind a Split whose parts are joined in another order.
    """
    for quantize_node, dequantize_node in reversed(_activation_pairs(graph)):
        source = quantize_node.inputs[0]
        mover = source.producer() if source is not None else None
        before = mover.inputs[0].producer() if mover is not None and mover.inputs[0] is not None else None
        if mover is None or mover.op_type not in MOVES or before is None or before.op_type != "DequantizeLinear":
            continue
        grids = [[constant(value) for value in node.inputs[1:3]] for node in (quantize_node, before)]
        if all(map(_is_same, *grids)):
            _remove_pair(graph, quantize_node, dequantize_node)


def _is_same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and np.array_equal(one, other)


def _computes_on_codes(reader: ir.Node) -> bool:
    """Return whether a node gains from codes at its input: computes on them, or hands them on to one that does."""
    if reader.op_type in MOVES:
        behind = [each for value in reader.outputs for each in value.consumers()]
        return any(each.op_type == "QuantizeLinear" or _computes_on_codes(each) for each in behind)
    return reader.op_type in INTEGER_OPS


def _drop_main_branch(graph: ir.Graph) -> None:
    """Remove the pair between a convolution and the Add that alone reads it; the skip branch keeps its own."""
    for quantize_node, dequantize_node in _main_branches(graph):
        _remove_pair(graph, quantize_node, dequantize_node)


def _keep_rounding(graph: ir.Graph) -> None:
    """Put a LeakyRelu of slope 1, which changes nothing, between a convolution and its grid, where an Add reads it.

    One runtime (CPU, 2026.4) fuses convolution, grid, Add and the grid behind, and leaves the first rounding out; only
    where that grid is the first operator behind the convolution.
    """
    for quantize_node, _ in _main_branches(graph):
        source = quantize_node.inputs[0]
        assert source is not None
        name = str(source.name).removesuffix(":0")
        unchanged = ir.node("LeakyRelu", [source], {"alpha": 1.0}, name=f"{name}/LeakyRelu")
        unchanged.outputs[0].name = f"{name}/LeakyRelu:0"
        unchanged.outputs[0].type, unchanged.outputs[0].shape = source.type, source.shape
        graph.insert_before(quantize_node, unchanged)
        quantize_node.replace_input_with(0, unchanged.outputs[0])


def _main_branches(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield the pair between a convolution and the Add that alone reads it, where the other input is on a grid too."""
    for quantize_node, dequantize_node in _activation_pairs(graph):
        readers = list(dequantize_node.outputs[0].consumers())
        source = quantize_node.inputs[0]
        producer = source.producer() if source is not None else None
        if len(readers) != 1 or readers[0].op_type != "Add" or producer is None or producer.op_type != "Conv":
            continue
        others = [value for value in readers[0].inputs if value is not dequantize_node.outputs[0]]
        if others and _scale_of(others[0]) is not None:
            yield quantize_node, dequantize_node
