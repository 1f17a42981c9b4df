"""What integer runtimes do with each ONNX operator: the rules by which grids are placed in a graph, and encoded.

Rule: the only home of operators' names in placement and encoding. The counterpart, for torch, is training.placement.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class Rule:
    """How one operator takes part in integer inference."""

    role: Literal["heavy", "light", "moves", "absorbed"]
    """`heavy`: gains from int8 by itself. `light`: stays in codes on the way to a heavy one, with a range of its own.
    `moves`: moves codes, whose grid stays. `absorbed`: fused into the integer operator before it."""
    operands: int | None = 1
    """How many of its first inputs it computes with; None for all."""
    gives_floats: bool = False
    """Whether runtimes compute it on codes even where its output is float."""
    gains_at_inputs: bool = True
    """Whether it gains on runtimes that want grids only where codes are read (`Encoding.outputs` is false); the others
    are fused there, in float, behind the operator before them."""


RULES = {
    "Conv": Rule("heavy", operands=2),
    "ConvTranspose": Rule("heavy", operands=2),
    "Gemm": Rule("heavy", operands=2, gives_floats=True),
    "MatMul": Rule("heavy", operands=2, gives_floats=True),
    "Add": Rule("light", operands=2),
    "Mul": Rule("light", operands=2, gains_at_inputs=False),
    "Concat": Rule("light", operands=None),
    "AveragePool": Rule("light"),
    "GlobalAveragePool": Rule("light"),
    "LeakyRelu": Rule("light", gains_at_inputs=False),
    "Sigmoid": Rule("light", gains_at_inputs=False),
    "MaxPool": Rule("moves"),
    "Reshape": Rule("moves"),
    "Flatten": Rule("moves"),
    "Transpose": Rule("moves"),
    "Squeeze": Rule("moves"),
    "Unsqueeze": Rule("moves"),
    "Slice": Rule("moves"),
    "Split": Rule("moves"),
    "Gather": Rule("moves"),
    "DepthToSpace": Rule("moves"),
    "Resize": Rule("moves"),
    "Pad": Rule("moves"),
    "Relu": Rule("absorbed"),
    "Clip": Rule("absorbed"),
}
INTEGER_OPS = {name for name, rule in RULES.items() if rule.role in ("heavy", "light") and rule.gains_at_inputs}
"""Operators that every runtime computes on codes."""
MOVES = {name for name, rule in RULES.items() if rule.role == "moves"}
"""Operators that move codes unchanged."""
HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"}
"""Operators with f(s x) = s f(x) for s > 0, channel by channel."""
QUANTIZED_PREFIXES = ("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "QGemm", "QAttention", "FakeQuantize")


def rule_of(node: ir.Node) -> Rule | None:
    """Return the rule of a node; None where it stays float: no rule, another element type, or a form without kernel."""
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None or not _is_float(node, rule):
        return None
    if node.op_type == "Add" and is_bias(node):
        return RULES["Relu"]
    return rule if _is_supported(node) else None


def operands(node: ir.Node, rule: Rule) -> list[tuple[int, ir.Value]]:
    """Return position and value of what a node computes with; never its sizes, and no bias."""
    inputs = enumerate(node.inputs if rule.operands is None else node.inputs[: rule.operands])
    return [(position, value) for position, value in inputs if value is not None]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer that no caller can replace, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def channel_axis(node: ir.Node, position: int) -> int | None:
    """Return the axis of output channels in a constant operand; None where codes have one scale for the tensor."""
    value = node.inputs[position]
    rank = None if value is None or value.shape is None else len(value.shape)
    if position != 1 or rank is None or rank < 2:
        return None
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


def is_bias(node: ir.Node) -> bool:
    """Return whether an Add gives a product with constant weights its bias."""
    for position in (0, 1):
        array, other = constant(node.inputs[position]), node.inputs[1 - position]
        product = None if other is None else other.producer()
        if array is None or other is None or product is None or product.op_type != "MatMul" or not is_read_once(other):
            continue
        if array.ndim and array.size == array.shape[-1] and constant(product.inputs[1]) is not None:
            return True
    return False


def bounds_behind(node: ir.Node) -> tuple[float, float]:
    """Return the values that an absorbed operator can give."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return -np.inf, np.inf
    limits = [constant(value) for value in (*node.inputs[1:3], None, None)][:2]
    low, high = (None if limit is None else float(limit) for limit in limits)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


def absorbed_input(node: ir.Node) -> ir.Value | None:
    """Return the tensor that an absorbed node alone reads, if it does."""
    source = next((value for value in node.inputs if value is not None and constant(value) is None), None)
    return source if source is not None and is_read_once(source) else None


def is_read_once(value: ir.Value) -> bool:
    """Return whether exactly one input of one node reads a value, and the graph does not return it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def is_kept(node: ir.Node, float_layers: frozenset[str]) -> bool:
    """Return whether a plan keeps a node in float: by its name, or by a prefix of it that ends before "." or "/"."""
    name = node.name or ""
    return any(name == layer or name.startswith((f"{layer}.", f"{layer}/")) for layer in float_layers)


def is_quantized(model: ir.Model) -> bool:
    """Return whether a model holds integer operators, or quantizes and dequantizes, already."""
    names = [node.op_type for graph in model.graphs() for node in graph]
    return any(name.startswith(QUANTIZED_PREFIXES) or name in ("MatMulInteger", "ConvInteger") for name in names)


def _is_float(node: ir.Node, rule: Rule) -> bool:
    """Return whether a node computes in float32; a heavy one whose type is not known is taken at its weights' word."""
    known = [value.dtype for _, value in operands(node, rule)] + [node.outputs[0].dtype]
    if any(dtype not in (None, ir.DataType.FLOAT) for dtype in known):
        return False
    return node.outputs[0].dtype is not None or rule.role != "light"


def _is_supported(node: ir.Node) -> bool:
    if node.op_type in ("Conv", "ConvTranspose"):
        return constant(node.inputs[1]) is not None and constant(node.inputs[0]) is None
    if node.op_type == "Gather":
        return constant(node.inputs[1]) is not None
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1
    if node.op_type == "Clip":
        return bounds_behind(node)[0] == 0.0
    return True
