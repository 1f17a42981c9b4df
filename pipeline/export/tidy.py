"""Passes that make an exported graph small, stable and easy to fuse, whatever its precision."""

import onnx_ir as ir
from onnx_ir.passes import common

from pipeline.export.names import name_grids, plain_name
from pipeline.export.operators import constant
from pipeline.export.opset import is_default, schema_of

IMAGE_AXES = [2, 3]


def tidy(model: ir.Model, *, name: str) -> None:
    """Restore GlobalAveragePool, strip what only the exporter needs, share equal initializers where
    runtimes bear it, and name grids."""
    restore_global_average_pool(model.graph)
    for run in (
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        run(model)
    _part_weights(model.graph)
    _strip_value_info(model.graph)
    _strip_defaults(model)
    for value in list(model.graph.initializers.values()):
        plain = plain_name(str(value.name))
        if plain != value.name and plain not in model.graph.initializers:
            value.name = plain
    name_grids(model.graph)
    model.graph.name = name
    model.producer_name, model.producer_version = "edgeproof", None
    model.metadata_props.clear()


def restore_global_average_pool(graph: ir.Graph) -> None:
    """Turn a mean over both image axes, which exporters write for adaptive pooling, back into the pooling operator.

    Runtimes have integer kernels for GlobalAveragePool and none for ReduceMean. Where the mean drops the axes,
    Flatten follows; a pair of Q/DQ behind the mean then stands behind both, since each moves codes by itself.
    """
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or not _is_mean_of_images(node, source):
            continue
        pool = _before(node, "GlobalAveragePool", source)
        if node.attributes.get_int("keepdims", 1):
            _replace(graph, node, pool)
            continue
        if source.shape is not None:
            pool.outputs[0].shape = ir.Shape([*source.shape[:2], 1, 1])
        _replace(graph, node, _before(node, "Flatten", _rounded_alike(node, pool.outputs[0])))


def _is_mean_of_images(node: ir.Node, source: ir.Value) -> bool:
    """Tell a mean over axes 2 and 3, counted from either end and told in the way of any opset, of a rank-4 tensor."""
    if node.op_type != "ReduceMean" or source.shape is None or len(source.shape) != 4:
        return False
    told = constant(node.inputs[1]) if len(node.inputs) > 1 else None  # since opset 18
    axes = node.attributes.get_ints("axes", ()) if told is None else told.tolist()
    return sorted(axis % 4 for axis in axes) == IMAGE_AXES


def _rounded_alike(node: ir.Node, value: ir.Value) -> ir.Value:
    """Return `value` behind copies of the Q and DQ that alone read a node, or itself where there are none."""
    readers = list(node.outputs[0].consumers())
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return value
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        value = _before(node, op_type, value, *readers[0].inputs[1:]).outputs[0]
    return value


def _before(node: ir.Node, op_type: str, *inputs: ir.Value | None) -> ir.Node:
    """Insert a node that comes from the same module as `node`."""
    new = ir.node(op_type, inputs, name=f"{node.name}/{op_type}", metadata_props=dict(node.metadata_props))
    new.outputs[0].name = f"{new.name}:0"
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, new)
    return new


def _replace(graph: ir.Graph, node: ir.Node, replacement: ir.Node) -> None:
    old, new = node.outputs[0], replacement.outputs[0]
    name, output = node.name, old.name
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    replacement.name, new.name = name, output


def _part_weights(graph: ir.Graph) -> None:
    """Give each reader of int8 weights codes and zero points of its own.

    Where an x86 processor lacks VNNI, ONNX Runtime (1.31) turns the weights of each operator into uint8, with their
    zero points, and refuses a model in which two operators share either. Layers that share weights are rare.
    """
    seen: set[ir.Value] = set()
    for node in [node for node in graph if node.op_type == "DequantizeLinear" and _holds_int8(node.inputs[0])]:
        reads, *others = node.outputs[0].uses()
        parted = [node]
        for reader, position in others:
            if reader is not reads.node:
                parted.append(_before(reader, "DequantizeLinear", *node.inputs))
                parted[-1].name = f"{node.name}/{len(parted)}"
                reader.replace_input_with(position, parted[-1].outputs[0])
        for each in parted:
            for position in (0, 2):
                value = each.inputs[position] if position < len(each.inputs) else None
                if value in seen and value is not None:
                    value = _copied(graph, value, f"{each.name}/{position}")
                    each.replace_input_with(position, value)
                if value is not None:
                    seen.add(value)


def _holds_int8(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.const_value.dtype == ir.DataType.INT8


def _copied(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    copy = ir.Value(name=name, const_value=value.const_value)
    graph.register_initializer(copy)
    return copy


def _strip_value_info(graph: ir.Graph) -> None:
    """Drop what inference, or the array itself, tells again; inputs and outputs of the graph keep theirs."""
    values = [value for node in graph for value in node.outputs]
    for value in (*values, *graph.initializers.values()):
        if not value.is_graph_input() and not value.is_graph_output():
            value.shape, value.type = None, None
            value.metadata_props.clear()


def _strip_defaults(model: ir.Model) -> None:
    """Drop attributes that say what holds without them."""
    opset = model.opset_imports.get("", 1)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        schema = schema_of(node.op_type, opset) if node.domain in ("", "ai.onnx") else None
        for attribute in list(node.attributes.values()):
            if schema is not None and is_default(attribute, schema):
                node.attributes.pop(attribute.name)
