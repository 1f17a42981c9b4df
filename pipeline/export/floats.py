"""Store a float graph in float16, for runtimes that compute in the types of the file.

Rule: whoever feeds and reads the model sees float32 still; what ONNX, or a plan, has in float32 only is cast around.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx.defs import OpSchema
from onnx_ir.passes import common

from pipeline.errors import RecipeError
from pipeline.export.operators import is_kept

LARGEST = float(np.finfo(np.float16).max)
HALF, FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT
GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
ADVICE = 'keep what reads it in float32, or deploy it with precision = "bf16" or "fp32"'


def to_float16(model: ir.Model, *, float_layers: frozenset[str] = frozenset()) -> None:
    """Turn weights and operators to float16, in place; inputs and outputs of the graph stay float32.

    Activations above 65,504 become infinite at run time, which no graph tells: parity shows it.

    Args:
        model: float32, without control flow.
        float_layers: names of nodes that stay in float32, or prefixes of them that end before "." or "/".

    Raises:
        RecipeError: a constant does not fit float16, or the graph has control flow.
    """
    common.ShapeInferencePass()(model)
    opset = model.graph.opset_imports.get("", 1)
    converter = _Converter(model.graph)
    for node in list(model.graph):
        if any(attribute.type in GRAPHS for attribute in node.attributes.values()):
            raise RecipeError(
                f'precision: expected a model without control flow for "fp16"; got {node.op_type} {node.name!r}; '
                'deploy it with precision = "fp32"'
            )
        schema = None if is_kept(node, float_layers) else _find_schema(node, opset)
        if schema is not None and _takes_half(node, schema):
            converter.convert(node, schema)
        else:
            converter.keep(node)
    converter.restore_outputs()
    converter.restore_names()


@dataclass
class _Converter:
    graph: ir.Graph
    cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def convert(self, node: ir.Node, schema: OpSchema) -> None:
        """Let a node compute in float16."""
        for position, value in enumerate(node.inputs):
            if value is not None and value.dtype == FULL and _allows_half(_formal(schema.inputs, position)):
                node.replace_input_with(position, self._in(HALF, value, node))
        for position, value in enumerate(node.outputs):
            if value.dtype == FULL and _allows_half(_formal(schema.outputs, position)):
                value.dtype = HALF
        self._convert_attributes(node)

    def keep(self, node: ir.Node) -> None:
        """Let a node compute in float32."""
        for position, value in enumerate(node.inputs):
            if value is not None and value.dtype == HALF:
                node.replace_input_with(position, self._in(FULL, value, node))

    def restore_outputs(self) -> None:
        """Cast the graph's outputs back to float32, under their own names."""
        for position, value in enumerate(self.graph.outputs):
            if value.dtype == HALF:
                node = ir.node("Cast", [value], {"to": FULL}, name=f"{value.name}/Cast")
                name, value.name = value.name, f"{value.name}.half"
                node.outputs[0].name = name
                node.outputs[0].dtype, node.outputs[0].shape = FULL, value.shape
                self.graph.append(node)
                self.graph.outputs[position] = node.outputs[0]

    def restore_names(self) -> None:
        """Give rounded constants the names of those that nobody reads any more."""
        for (value, _), rounded in self.cast.items():
            if rounded.const_value is not None and not value.uses():
                name = value.name
                value.name = f"{name}.float32"
                rounded.name = name

    def _in(self, dtype: ir.DataType, value: ir.Value, reader: ir.Node) -> ir.Value:
        """Return `value` in `dtype`: a constant anew, anything else behind one Cast."""
        key = (value, dtype)
        if key not in self.cast:
            is_constant = value.const_value is not None and not value.is_graph_input()
            self.cast[key] = self._round(value) if is_constant else self._cast(value, dtype, reader)
        return self.cast[key]

    def _cast(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}/Cast")
        node.outputs[0].name = f"{value.name}.{dtype.name.lower()}"
        node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
        self.graph.insert_before(reader, node)
        return node.outputs[0]

    def _round(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}.float16"
        rounded = ir.val(name, const_value=ir.tensor(_round(value.const_value.numpy(), str(value.name)), name=name))
        self.graph.register_initializer(rounded)
        return rounded

    def _convert_attributes(self, node: ir.Node) -> None:
        """Turn what a node makes, rather than reads, to float16."""
        for name in ("to", "dtype"):
            if name in node.attributes and node.attributes.get_int(name, 0) == FULL and node.outputs[0].dtype == HALF:
                node.attributes[name] = ir.AttrInt64(name, HALF)
        if node.op_type in ("Constant", "ConstantOfShape") and node.outputs[0].dtype == HALF:
            value = node.attributes.get_tensor("value", None)
            array = np.zeros(1, np.float32) if value is None else value.numpy()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_round(array, str(node.outputs[0].name))))


def _round(array: np.ndarray, name: str) -> np.ndarray:
    """Return the constant in float16; infinities stay, as masks need them."""
    too_large = np.isfinite(array) & (np.abs(array) > LARGEST)
    if too_large.any():
        raise RecipeError(
            f"{name}: expected constants within {LARGEST:g} for float16; got {array[too_large].flat[0]:g}, which would "
            f"be infinite; {ADVICE}"
        )
    return array.astype(np.float16)


def _find_schema(node: ir.Node, opset: int) -> OpSchema | None:
    """Return the operator's definition; None for those of other domains."""
    if node.domain or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, opset)


def _takes_half(node: ir.Node, schema: OpSchema) -> bool:
    """Return whether all float activations that a node reads or gives may be float16; constants may stay float32."""
    read = [
        _formal(schema.inputs, position)
        for position, value in enumerate(node.inputs)
        if value is not None and value.dtype in (FULL, HALF) and value.const_value is None
    ]
    given = [_formal(schema.outputs, position) for position, value in enumerate(node.outputs) if value.dtype == FULL]
    formals = [*read, *given]
    return bool(formals) and all(_allows_half(formal) for formal in formals)


def _formal(formals: Sequence[OpSchema.FormalParameter], position: int) -> OpSchema.FormalParameter:
    """Return the definition of an input or output; the last one may stand for any number."""
    return formals[min(position, len(formals) - 1)]


def _allows_half(formal: OpSchema.FormalParameter) -> bool:
    return "tensor(float16)" in formal.types
