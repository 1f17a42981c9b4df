"""Fold what scales and shifts channels into the weights before it: BatchNormalization, and arithmetic with constants.

Rule: weights that are shared stay as they are for their other readers. Sums and products are taken in float64.
"""

import numpy as np
import onnx_ir as ir

from pipeline.export.operators import constant, is_read_once

CHANNELS_OF_OUTPUT = 1
"""The axis of channels in what Conv, ConvTranspose and Gemm give."""


def fold_into_weights(graph: ir.Graph) -> None:
    """Rewrite a graph in place, so that every Conv, ConvTranspose and Gemm does all that is per channel by itself."""
    for node in list(graph):
        _write_plainly(graph, node)
    for node in list(graph):
        if node.op_type == "MatMul":
            _join_bias(graph, node)
        if node.op_type == "AveragePool":
            _join_padding(node)
    for node in list(graph):
        if node.op_type == "Gemm":
            _fold_factors(graph, node)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            while _fold_reader(graph, node):
                pass


def _write_plainly(graph: ir.Graph, node: ir.Node) -> None:
    """Write a Sum of two as Add, and Sub and Div by a constant as Add and Mul."""
    if node.op_type == "Sum" and len(node.inputs) == 2:
        _replace(graph, node, ir.node("Add", node.inputs, name=node.name))
    source = node.inputs[0]
    if node.op_type not in ("Sub", "Div") or source is None or not is_read_once(source):
        return  # x / sqrt(2), beside another reader of x, begins the Gelu that runtimes fuse
    array = constant(node.inputs[1])
    if array is None or array.dtype != np.float32 or (node.op_type == "Div" and not array.all()):
        return
    assert node.inputs[1] is not None
    is_sub = node.op_type == "Sub"
    inverse = -array if is_sub else (1 / array.astype(np.float64)).astype(np.float32)
    value = _initializer(graph, f"{node.inputs[1].name}.{'negative' if is_sub else 'inverse'}", inverse)
    _replace(graph, node, ir.node("Add" if is_sub else "Mul", [source, value], name=node.name))


def _join_bias(graph: ir.Graph, node: ir.Node) -> None:
    """Write a product of rank 2 and the bias added to it as one Gemm."""
    product = node.outputs[0]
    weight = constant(node.inputs[1])
    add = _only_reader(product)
    if weight is None or weight.ndim != 2 or product.shape is None or len(product.shape) != 2 or add is None:
        return
    bias = next((value for value in add.inputs if value is not product), None)
    array = constant(bias) if add.op_type == "Add" else None
    if array is None or array.shape not in ((weight.shape[1],), (1, weight.shape[1])):
        return
    gemm = ir.node("Gemm", [*node.inputs, bias], {"alpha": 1.0, "beta": 1.0}, name=node.name)
    _replace(graph, add, gemm)
    graph.remove(node, safe=True)


def _join_padding(node: ir.Node) -> None:
    """Let an AveragePool pad its image with zeros by itself, where a Pad before it does."""
    source = node.inputs[0]
    pad = None if source is None else source.producer()
    if pad is None or pad.op_type != "Pad" or pad.attributes.get_string("mode", "constant") != "constant":
        return
    pads, fill = constant(pad.inputs[1]), constant(pad.inputs[2]) if len(pad.inputs) > 2 else np.zeros(1)
    has_axes = len(pad.inputs) > 3 and pad.inputs[3] is not None
    if pads is None or fill is None or fill.any() or has_axes or (pads < 0).any():
        return
    begins, ends = pads.reshape(2, -1).tolist()
    has_own = any(node.attributes.get_ints("pads", []))
    is_ceiled = node.attributes.get_int("ceil_mode", 0) != 0
    if (
        any(begins[:2] + ends[:2])
        or has_own
        or is_ceiled
        or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    ):
        return
    node.attributes["pads"] = ir.AttrInt64s("pads", begins[2:] + ends[2:])
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, pad.inputs[0])


def _fold_factors(graph: ir.Graph, node: ir.Node) -> None:
    """Take alpha and beta of a Gemm into its constants, and write its bias as one number a channel."""
    weight, bias = _weight_and_bias(node)
    if weight is None or node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
        return
    channels = weight.shape[0 if node.attributes.get_int("transB", 0) else 1]
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if has_bias and (bias is None or bias.size not in (1, channels) or (bias.ndim and bias.shape[-1] != bias.size)):
        return
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1.0:
        _set(graph, node, 1, weight * alpha)
    if bias is not None and (beta != 1.0 or bias.shape != (channels,)):
        _set(graph, node, 2, np.broadcast_to(bias.reshape(-1) * beta, (channels,)))
    node.attributes.pop("alpha", None)
    node.attributes.pop("beta", None)


def _fold_reader(graph: ir.Graph, node: ir.Node) -> bool:
    """Take the one reader of a node's output into its weights, if it scales or shifts channels; return whether."""
    weight, bias = _weight_and_bias(node)
    reader = _only_reader(node.outputs[0])
    is_open = bias is None and len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or reader is None or is_open or "alpha" in node.attributes or "beta" in node.attributes:
        return False
    channels = _num_channels(node, weight)
    rank = 2 if node.op_type == "Gemm" else weight.ndim
    affine = _affine(reader, node.outputs[0], rank, channels)
    if affine is None:
        return False
    scale, shift = affine
    if not (scale == 1).all():
        _set(graph, node, 1, weight * _along_outputs(node, weight, scale))
    if bias is not None or shift.any():
        _set(graph, node, 2, (0.0 if bias is None else bias.reshape(-1).astype(np.float64)) * scale + shift)
    name, shape, kind = reader.outputs[0].name, reader.outputs[0].shape, reader.outputs[0].type
    ir.convenience.replace_all_uses_with(reader.outputs[0], node.outputs[0], replace_graph_outputs=True)
    graph.remove(reader, safe=True)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, shape, kind
    return True


def _affine(node: ir.Node, value: ir.Value, rank: int, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift, float64[channels], of a node that does nothing else to a value."""
    if node.op_type == "BatchNormalization":
        return _affine_of_norm(node, value, channels)
    if node.op_type not in ("Add", "Mul"):
        return None
    array = constant(next((other for other in node.inputs if other is not value), None))
    if array is None or array.ndim > rank or array.dtype != np.float32:
        return None
    shape = (*[1] * (rank - array.ndim), *array.shape)
    if array.size not in (1, channels) or shape[CHANNELS_OF_OUTPUT] != array.size:
        return None
    numbers = np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))
    return (np.ones(channels), numbers) if node.op_type == "Add" else (numbers, np.zeros(channels))


def _affine_of_norm(node: ir.Node, value: ir.Value, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    arrays = [constant(parameter) for parameter in node.inputs[1:5]]
    numbers = [array.astype(np.float64) for array in arrays if array is not None and array.size == channels]
    is_training = node.attributes.get_int("training_mode", 0) or any(output.uses() for output in node.outputs[1:])
    if node.inputs[0] is not value or len(numbers) != 4 or is_training:
        return None
    gamma, beta, mean, variance = numbers
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


def _num_channels(node: ir.Node, weight: np.ndarray) -> int:
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * node.attributes.get_int("group", 1)
    return int(weight.shape[1 if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else 0])


def _along_outputs(node: ir.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return a scale per output channel in a shape that multiplies the weights."""
    if node.op_type == "Gemm":
        return scale.reshape((-1, 1) if node.attributes.get_int("transB", 0) else (1, -1))
    if node.op_type == "Conv":
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    group = node.attributes.get_int("group", 1)  # ConvTranspose: [inputs, outputs / group, ...], a block a group
    per_group = np.repeat(scale.reshape(group, -1), len(weight) // group, axis=0)
    return per_group.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _weight_and_bias(node: ir.Node) -> tuple[np.ndarray | None, np.ndarray | None]:
    weight, bias = (constant(value) for value in (*node.inputs[1:3], None)[:2])
    return (weight if weight is not None and weight.dtype == np.float32 and weight.ndim > 1 else None), bias


def _only_reader(value: ir.Value) -> ir.Node | None:
    return value.consumers()[0] if is_read_once(value) else None


def _set(graph: ir.Graph, node: ir.Node, position: int, array: np.ndarray) -> None:
    """Give a node a constant of its own: under the old name, where nobody else reads the old one."""
    old = node.inputs[position] if position < len(node.inputs) else None
    owned = np.ascontiguousarray(array.astype(np.float32))
    if old is not None and is_read_once(old):
        old.const_value, old.shape = ir.tensor(owned, name=old.name), ir.Shape(owned.shape)
        return
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    source = old if old is not None else node.inputs[1]
    assert source is not None
    suffix = "folded" if old is not None else "bias"
    node.replace_input_with(position, _initializer(graph, f"{source.name}.{suffix}", owned))


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _replace(graph: ir.Graph, node: ir.Node, new: ir.Node) -> None:
    """Put a node of one output in the place of another, under its output's name."""
    old = node.outputs[0]
    new.outputs[0].name, new.outputs[0].shape, new.outputs[0].type = old.name, old.shape, old.type
    graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
