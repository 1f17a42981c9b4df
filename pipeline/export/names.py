"""Stable names: a node is called by the module that it comes from, equally in the float and the int8 export of one net.

Rule: names come from what torch's exporter keeps of the module hierarchy, so they must be given before it is stripped.
"""

import ast
import re
from collections import Counter
from itertools import takewhile

import onnx_ir as ir

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


def plain_name(name: str) -> str:
    """Return a parameter's name without what torch's parametrization adds to it."""
    return PARAMETRIZED.sub(r"\1", name)


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
