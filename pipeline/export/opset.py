"""From newer ONNX operators to those of an older opset, as a table.

Rule: what cannot be said in older ones is refused by name.

torch's exporter starts at opset 18, and onnx.version_converter refuses or unfolds much of what it writes (onnx 1.23).
"""

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from pipeline.errors import RecipeError
from pipeline.export.operators import constant

LOWEST = 13
"""Per-channel Q/DQ begins here; nothing older is written."""

SIZED = ("Split", "Pad")
"""Operators that older opsets need to know the shapes for of what they read."""

NEUTRAL: dict[tuple[str, str], Callable[[ir.Attr], bool]] = {
    ("AveragePool", "dilations"): lambda attribute: all(size == 1 for size in attribute.as_ints()),
}
"""Attributes that say nothing though they have no default: whether a value of theirs can be left out."""


def lower(model: ir.Model, opset: int) -> None:
    """Re-write a model in place into the operators of `opset`; one that is as old already stays as it is.

    Raises:
        RecipeError: names the first node that `opset` cannot express.
    """
    assert opset >= LOWEST
    current = model.opset_imports.get("", opset)
    if current <= opset:
        return
    if any(
        node.op_type in SIZED and node.inputs[0] is not None and node.inputs[0].shape is None for node in model.graph
    ):
        common.ShapeInferencePass(check_type=False, strict_mode=False)(model)  # it was tidied before
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain not in ("", "ai.onnx"):
            continue
        since, rewrite = REWRITES.get(node.op_type, (0, None))
        if rewrite is not None and opset < since:
            rewrite(node)
        if node.graph is not None:  # it was not replaced
            _fit(node, current, opset)
    model.opset_imports[""] = opset


def _fit(node: ir.Node, current: int, opset: int) -> None:
    """Leave out attributes at their defaults, which `opset` does not know; refuse what else it does not."""
    newer, older = schema_of(node.op_type, current), schema_of(node.op_type, opset)
    if newer is None or older is None:
        raise _refused(node, f"an operator of opset {opset}", f"{node.op_type}, which begins later")
    for name in [name for name in node.attributes if name not in older.attributes]:
        attribute = node.attributes[name]
        is_neutral = NEUTRAL.get((node.op_type, name))
        if not (is_neutral(attribute) if is_neutral else is_default(attribute, newer)):
            raise _refused(node, f"a {node.op_type} of opset {opset}", f"its attribute {name} = {attribute.value}")
        node.attributes.pop(name)
    used = max((index + 1 for index, value in enumerate(node.inputs) if value is not None), default=0)
    if used > older.max_input:
        raise _refused(node, f"a {node.op_type} of opset {opset}, of {older.max_input} inputs at most", f"{used}")


def schema_of(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """Return the definition of one of ONNX's own operators; None where `opset` has none."""
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def is_default(attribute: ir.Attr, schema: onnx.defs.OpSchema) -> bool:
    """Tell whether an attribute says what its definition says by itself."""
    if attribute.name not in schema.attributes:
        return False
    default = schema.attributes[attribute.name].default_value
    if not default.name:  # it has none
        return False
    return bool(onnx.helper.get_attribute_value(default) == onnx.helper.get_attribute_value(ir.to_proto(attribute)))


def _refused(node: ir.Node, expected: str, got: str) -> RecipeError:
    return RecipeError(
        f"node {node.name}: expected {expected}, the highest that the target reads; got {got}. Replace it in the "
        "model, or deploy to a target that reads newer models"
    )


def _axes_as_attribute(node: ir.Node) -> None:
    """Reductions took their axes as an attribute before opset 18."""
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    noop = node.attributes.pop("noop_with_empty_axes", None)
    if axes is None:
        if noop is not None and noop.as_int():
            raise _refused(node, "a reduction over given axes", "one over none (noop_with_empty_axes)")
        return
    found = constant(axes)
    if found is None:
        raise _refused(node, "axes that are constant", "axes that are computed")
    if found.size:
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in found])
    node.resize_inputs(1)


def _sizes_of_split(node: ir.Node) -> None:
    """Equal parts were told by the number of outputs alone before opset 18, and the last was no smaller."""
    number = node.attributes.pop("num_outputs", None)
    if number is None or (len(node.inputs) > 1 and node.inputs[1] is not None):
        return
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    source = node.inputs[0]
    size = source.shape[axis] if source is not None and source.shape is not None else None
    if not isinstance(size, int):
        raise _refused(node, "a split of a known size", f"{size} along axis {axis}")
    part = math.ceil(size / number.as_int())
    sizes = [min(part, size - start) for start in range(0, size, part)]
    if len(sizes) != number.as_int():
        raise _refused(node, f"{number.as_int()} parts that are not empty", f"a size of {size}")
    node.resize_inputs(2)
    node.replace_input_with(1, _add_constant(node, "sizes", np.array(sizes, np.int64)))


def _pad_every_axis(node: ir.Node) -> None:
    """Paddings were given for every axis before opset 18."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return
    source, pads, axes = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[3])
    if source is None or source.shape is None or pads is None or axes is None:
        raise _refused(node, "paddings of every axis", "constant ones of some axes only, of a tensor of known rank")
    rank = len(source.shape)
    whole = np.zeros((2, rank), np.int64)
    whole[:, [int(axis) % rank for axis in axes]] = pads.reshape(2, -1)
    node.replace_input_with(1, _add_constant(node, "pads", whole.reshape(-1)))
    node.resize_inputs(3)


def _unfold_gelu(node: ir.Node) -> None:
    """Write Gelu as runtimes fuse it: x (1 + erf(x / sqrt 2)) / 2, or its approximation by tanh (opset 20)."""
    x = node.inputs[0]
    assert x is not None
    steps = _Steps(node)
    approximate = node.attributes.get("approximate")
    if approximate is not None and approximate.as_string() == "tanh":
        cubed = steps.add("Mul", steps.add("Pow", x, steps.number(3.0)), steps.number(0.044715))
        inner = steps.add("Mul", steps.add("Add", x, cubed), steps.number(math.sqrt(2 / math.pi)))
        share = steps.add("Tanh", inner)
    else:
        share = steps.add("Erf", steps.add("Div", x, steps.number(math.sqrt(2))))
    half = steps.add("Mul", steps.add("Add", share, steps.number(1.0)), steps.number(0.5))
    steps.finish("Mul", x, half)


def _unfold_mish(node: ir.Node) -> None:
    """x tanh(softplus(x)), opset 18."""
    x = node.inputs[0]
    assert x is not None
    steps = _Steps(node)
    steps.finish("Mul", x, steps.add("Tanh", steps.add("Softplus", x)))


def _unfold_hard_swish(node: ir.Node) -> None:
    """x hardsigmoid(x), opset 14."""
    x = node.inputs[0]
    assert x is not None
    steps = _Steps(node)
    steps.finish("Mul", x, steps.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


class _Steps:
    """The nodes that stand for one, before it; the last of them takes its name and its output's."""

    def __init__(self, replaced: ir.Node) -> None:
        self._replaced, self._count = replaced, 0

    def add(self, op_type: str, *inputs: ir.Value, **attributes: float) -> ir.Value:
        self._count += 1
        node = ir.node(op_type, inputs, attributes, name=f"{self._replaced.name}/{op_type}_{self._count}")
        node.outputs[0].name = f"{node.name}:0"
        assert isinstance(self._replaced.graph, ir.Graph)
        self._replaced.graph.insert_before(self._replaced, node)
        return node.outputs[0]

    def number(self, value: float) -> ir.Value:
        source = self._replaced.inputs[0]
        dtype = np.float32 if source is None or source.dtype is None else source.dtype.numpy()
        self._count += 1
        return _add_constant(self._replaced, f"number_{self._count}", np.array(value, dtype))

    def finish(self, op_type: str, *inputs: ir.Value) -> None:
        old, result = self._replaced, self.add(op_type, *inputs)
        name, output, graph = old.name, old.outputs[0].name, old.graph
        result.shape, result.type = old.outputs[0].shape, old.outputs[0].type
        assert isinstance(graph, ir.Graph)
        ir.convenience.replace_all_uses_with(old.outputs[0], result, replace_graph_outputs=True)
        producer = result.producer()
        assert producer is not None
        graph.remove(old, safe=True)
        producer.name, result.name = name, output


def _add_constant(reader: ir.Node, what: str, array: np.ndarray) -> ir.Value:
    """Add an initializer to the graph of `reader`, named after it and after what it is."""
    graph = reader.graph
    assert isinstance(graph, ir.Graph)
    name = f"{reader.name}.{what}"
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


REDUCTIONS = ("Max", "Mean", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")

REWRITES: dict[str, tuple[int, Callable[[ir.Node], None]]] = {
    **{f"Reduce{name}": (18, _axes_as_attribute) for name in REDUCTIONS},
    "Split": (18, _sizes_of_split),
    "Pad": (18, _pad_every_axis),
    "Gelu": (20, _unfold_gelu),
    "Mish": (18, _unfold_mish),
    "HardSwish": (14, _unfold_hard_swish),
}
"""Operator: the opset that began what an older one says otherwise, and how."""
