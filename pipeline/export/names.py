"""Stable names: a node is called by the module that it comes from, equally in the float and the int8 export of one net.

Rule: names of modules come from what torch's exporter keeps of their hierarchy, so they must be given before it is
stripped; names of grids come from their place in the file, and are short: a small network's file is full of them.
"""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import onnx_ir as ir

from pipeline.export.operators import constant

SCOPES = "pkg.torch.onnx.name_scopes"
CLASSES = "pkg.torch.onnx.class_hierarchy"
"""Where torch 2.13 writes the modules that a node is called in, from the outside in, and their classes."""

REPEATED = re.compile(r"@\d+")
"""What torch appends to a module's path where it is called again."""

PARAMETRIZED = re.compile(r"\bparametrizations\.(\w+)(?:\.original\d*)?")
"""How torch calls a parameter that is computed, and what computes it."""

GRIDS = ("QuantizeLinear", "DequantizeLinear")


def name_nodes(graph: ir.Graph) -> None:
    """Name every node `{module path}/{OpType}` (and `_1`, `_2` for repeats in one module, in order of execution).

    What a module computes by functions is called by that module, at the root by nothing: `layer1.0/Add`, `/Add`. Output
    i of a node gets the node's name and `:i`; inputs, outputs and initializers of the graph keep theirs. A
    graph that says nothing of modules keeps all of its names.
    """
    scopes = {node: scope for node in graph if (scope := _scope(node)) is not None}
    if not scopes:
        return
    seen: Counter[str] = Counter()
    for node in graph:
        stem = f"{scopes[node] if node in scopes else _shared_scope(node, scopes)}/{node.op_type}"
        node.name = f"{stem}_{seen[stem]}" if seen[stem] else stem
        seen[stem] += 1
        for index, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}:{index}"


def name_grids(graph: ir.Graph) -> None:
    """Give short names to what only Q and DQ read and write.

    Codes are `q0`, `q1`, ... in order of execution; real values behind a DQ, and the DQ itself, `dq0`, `dq1`, ...; a
    scale is `scale0`, `scale1`, ..., or `{parameter}.scale`; a zero point is called by what it is: `uint8_128`, or
    `int32_0x16` where there are 16 of them, but those of int8 weights, which are not shared, `zero0`, `zero1`, ... A Q
    keeps its name, which tells what is rounded; so does a DQ of codes that come from outside, as an image's bytes, and
    every output of the graph.
    """
    grids = [node for node in graph if _is_grid(node)]
    wanted = _wanted_names(grids)
    constants = [value for value in wanted if value.is_initializer()]
    for value in constants:
        graph.initializers.pop(str(value.name))  # so that names can change places
    taken = _names_in(graph) - {str(value.name) for value in wanted}
    for value, name in wanted.items():
        while name in taken:
            name += "_"
        taken.add(name)
        value.name = name
    for value in constants:
        graph.register_initializer(value)
    for node in grids:
        if node.op_type == "DequantizeLinear":
            node.name = node.outputs[0].name


def plain_name(name: str) -> str:
    """Return a parameter's name without what torch's parametrization adds to it."""
    return PARAMETRIZED.sub(r"\1", name)


def _wanted_names(grids: Sequence[ir.Node]) -> dict[ir.Value, str]:
    """Return the names that Q and DQ ask for, by what they read and write, as if nothing else had one."""
    wanted: dict[ir.Value, str] = {}
    counts: Counter[str] = Counter()

    def number(stem: str) -> str:
        counts[stem] += 1
        return f"{stem}{counts[stem] - 1}"

    for node in grids:
        source, scale, zero_point = [*node.inputs, None][:3]
        if scale is not None and scale not in wanted and _is_of_grids(scale):
            is_parameter = source is not None and source.is_initializer()
            wanted[scale] = f"{source.name}.scale" if is_parameter and source is not None else number("scale")
        if zero_point is not None and zero_point not in wanted and _is_of_grids(zero_point):
            is_int8 = zero_point.const_value is not None and zero_point.const_value.dtype == ir.DataType.INT8
            is_of_weight = is_int8 and source is not None and source.is_initializer()
            wanted[zero_point] = number("zero") if is_of_weight else _name_of_codes(zero_point)
        output = node.outputs[0]
        name = number("q" if node.op_type == "QuantizeLinear" else "dq")
        if not output.is_graph_output():
            wanted[output] = name
    return wanted


def _is_grid(node: ir.Node) -> bool:
    """Tell a Q, or the DQ of its codes or of a parameter's."""
    if node.op_type not in GRIDS or node.domain not in ("", "ai.onnx"):
        return False
    source = node.inputs[0]
    quantizer = None if source is None else source.producer()
    is_rounded_here = quantizer is not None and quantizer.op_type == "QuantizeLinear"
    return node.op_type == "QuantizeLinear" or is_rounded_here or (source is not None and source.is_initializer())


def _is_of_grids(value: ir.Value) -> bool:
    """Tell a constant that nothing but Q and DQ reads, as scale or zero point."""
    is_private = value.is_initializer() and not value.is_graph_input() and not value.is_graph_output()
    return is_private and all(node.op_type in GRIDS and position > 0 for node, position in value.uses())


def _name_of_codes(value: ir.Value) -> str:
    """Return a name for equal codes; for others, which have no short one, the name that they have."""
    array = constant(value)
    if array is None or array.size == 0 or (array != array.flat[0]).any():
        return str(value.name)
    return f"{array.dtype.name}_{array.flat[0]}" + (f"x{array.size}" if array.ndim else "")


def _names_in(graph: ir.Graph) -> set[str]:
    """Return the names of all tensors and nodes of a graph and of the bodies in it."""
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    graphs = {node.graph for node in nodes if node.graph is not None} | {graph}
    values = [value for each in graphs for value in (*each.inputs, *each.initializers.values())]
    values += [value for node in nodes for value in node.outputs]
    return {str(value.name) for value in values} | {str(node.name) for node in nodes}


def _scope(node: ir.Node) -> str | None:
    """Return the path of the module that a node was called in; None where the exporter did not keep it."""
    if SCOPES not in node.metadata_props:
        return None
    scopes, classes = (ast.literal_eval(node.metadata_props.get(key, "[]")) for key in (SCOPES, CLASSES))
    is_folded_norm = len(classes) > 1 and "BatchNorm" in classes[-2] and node.op_type != "BatchNormalization"
    if is_folded_norm and (layer := _layer_of_weight(node)) is not None:
        return layer
    return REPEATED.sub("", scopes[-2]) if len(scopes) > 1 else ""


def _layer_of_weight(node: ir.Node) -> str | None:
    """Return the module that holds a node's weight: the exporter calls a layer by the norm that was folded into it."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    name = plain_name(str(weight.name)) if weight is not None and weight.is_initializer() else ""
    return name.removesuffix(".weight") if name.endswith(".weight") else None


def _shared_scope(node: ir.Node, scopes: dict[ir.Node, str]) -> str:
    """Return the innermost module that holds all of a node's neighbours; Q/DQ between them do not count."""
    neighbours = {*_near(node, forward=True), *_near(node, forward=False)}
    paths = [scopes[near].split(".") for near in neighbours if near in scopes]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return ".".join(level[0] for level in levels)


def _near(node: ir.Node, *, forward: bool) -> set[ir.Node]:
    direct = node.successors() if forward else node.predecessors()
    found: set[ir.Node] = set()
    for near in direct:
        found |= _near(near, forward=forward) if near.op_type in GRIDS else {near}
    return found
