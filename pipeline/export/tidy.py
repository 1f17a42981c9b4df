"""Passes that make an exported graph small, stable and easy to fuse, whatever its precision."""

import onnx_ir as ir
from onnx_ir.passes import common


def tidy(model: ir.Model, *, name: str) -> None:
    """Restore GlobalAveragePool, strip what only the exporter needs, and share equal initializers."""
    restore_global_average_pool(model.graph)
    for run in (
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        run(model)
    _strip_value_info(model.graph)
    for value in list(model.graph.initializers.values()):
        plain = str(value.name).replace(".parametrizations", "").replace(".original", "")
        if plain != value.name and plain not in model.graph.initializers:
            value.name = plain
    model.graph.name = name
    model.producer_name, model.producer_version = "edgeproof", None
    model.metadata_props.clear()


def restore_global_average_pool(graph: ir.Graph) -> None:
    """Turn a mean over both image axes, which the exporter writes for adaptive pooling, back into the pooling operator.

    Runtimes have integer kernels for GlobalAveragePool and none for ReduceMean.
    """
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "ReduceMean" or source is None or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        axes, keepdims = node.inputs[1].const_value, node.attributes.get("keepdims")
        rank = None if source.shape is None else len(source.shape)
        if axes is None or rank != 4 or (keepdims is not None and keepdims.as_int() != 1):
            continue
        if sorted(axis % 4 for axis in axes.numpy().tolist()) != [2, 3]:
            continue
        pool = ir.node("GlobalAveragePool", [source], name=node.name)
        pool.outputs[0].name = node.outputs[0].name
        graph.insert_before(node, pool)
        ir.convenience.replace_all_uses_with(node.outputs[0], pool.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _strip_value_info(graph: ir.Graph) -> None:
    keep = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if id(value) not in keep:
                value.shape, value.type = None, None
