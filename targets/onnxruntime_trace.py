"""ONNX Runtime's profile of a few inferences, read as executed layers. Rule: knows its files, never imports it.

Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from statistics import median
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple

from targets.onnx_nodes import OnnxNode
from targets.target import Layer

INTEGER_OPS = re.compile(
    r"QLinear\w+|QGemm|QAttention|QOrdered\w+|QMoE|QEmbedLayerNormalization|ConvInteger|MatMulInteger\w*|"
    r"DynamicQuantize(MatMul|LSTM)|MatMulNBits|NhwcMaxPool"
)
"""Operators that compute in int8, whatever their scales' type."""

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
"""Operators that only turn values into codes or back."""

SIZES = ("Shape", "Size")
"""Operators that read nothing of a tensor but its shape."""

PRECISIONS = {"float": "fp32", "double": "fp64", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8"}
"""Element types of a trace, as precisions; others keep their names."""

ADDED_TO_NAMES = re.compile(r"(_nchwc|_token_\d+)+$")
"""What its optimizations append to the name of the node (or of the tensor) that a new node stands for."""


def read_layers(events: List[Dict[str, object]], runs: int, nodes: Sequence[OnnxNode] = ()) -> List[Layer]:
    """Return the executed nodes of a trace (a profile, as JSON) in order of first execution.

    Args:
        events: The trace.
        runs: How many inferences it holds; the median of a node's times stands for each.
        nodes: Of the optimized graph that ran, whose edges the layers get where it can be told which is which.
    """
    spent_us: Dict[str, List[float]] = defaultdict(list)
    kinds: Dict[str, Tuple[str, str]] = {}
    for event in events:
        arguments = event.get("args")
        name = str(event["name"])
        if event.get("cat") != "Node" or not name.endswith("_kernel_time") or not isinstance(arguments, dict):
            continue
        name = name[: -len("_kernel_time")]
        spent_us[name].append(float(str(event["dur"])))
        kinds.setdefault(name, (str(arguments["op_name"]), _find_precision(arguments)))
    executed = _match([(name, op_type) for name, (op_type, _) in kinds.items()], nodes)
    writers = {tensor: name for name, node in executed.items() for tensor in node.outputs}
    layers = []
    for name, (op_type, precision) in kinds.items():
        node = executed.get(name)
        layers.append(
            Layer(
                name,
                op_type,
                precision,
                time_ms=median(spent_us[name]) * len(spent_us[name]) / runs / 1000,
                reads=() if node is None else _unique(writers[tensor] for tensor in node.inputs if tensor in writers),
                sources=() if node is None or not node.name else (ADDED_TO_NAMES.sub("", node.name),),
                is_conversion=op_type in CONVERSIONS,
            )
        )
    return layers


def drop_first_run(events: List[Dict[str, object]]) -> List[Dict[str, object]]:
    """Return what follows the first inference of a trace, which is cold."""
    first = next(index for index, event in enumerate(events) if event["name"] == "model_run")
    return events[first + 1 :]


def _match(layers: Sequence[Tuple[str, str]], nodes: Sequence[OnnxNode]) -> Dict[str, OnnxNode]:
    """Return the node of each layer, (name, operator); a graph is run in the order in which it is saved.

    Nodes without a name have one of the runtime's own making in a trace. Where the orders differ, as with the bodies of
    control flow, nodes are known by names alone.
    """
    if [op_type for _, op_type in layers] == [node.op_type for node in nodes]:
        return {name: node for (name, _), node in zip(layers, nodes)}
    by_name = {node.name: node for node in nodes if node.name}
    return {name: by_name[name] for name, op_type in layers if name in by_name and by_name[name].op_type == op_type}


def _find_precision(arguments: Mapping[str, object]) -> str:
    """Return the type that a node computes in: int8 for integer operators, else that of its floats, if any.

    The first input and the outputs tell; further inputs can be floats that nothing is computed on, such as the scales
    of a Resize that only copies codes.
    """
    op_type = str(arguments["op_name"])
    if INTEGER_OPS.fullmatch(op_type):
        return "int8"
    first = [] if op_type in SIZES else _list_types(arguments.get("input_type_shape"))[:1]
    types = [*first, *_list_types(arguments.get("output_type_shape"))]
    floats = [name for name in types if name in ("float", "double", "float16", "bfloat16")]
    return PRECISIONS.get((floats or types or ["none"])[0], (floats or types or ["none"])[0])


def _list_types(shapes: object) -> List[str]:
    return [name for entry in shapes for name in entry] if isinstance(shapes, list) else []


def _unique(names: Iterable[str]) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(names))
