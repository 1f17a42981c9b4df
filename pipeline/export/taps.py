"""Taps: a copy of an ONNX model that also gives tensors from its middle. Rule: nothing else of the model changes."""

from collections.abc import Sequence

import onnx

from pipeline.errors import DataError

NEAREST = 5
"""Names of the model's own tensors that a refusal lists."""


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of `proto` whose outputs are its own, in their order, and then the tensors `names`.

    Element types come from the model where it tells them, else from ONNX's shape inference; shapes are left open. What
    is an output already is not repeated. Runtimes do not fuse across an output, so a model with taps may execute other
    operators than the model without them.

    Raises:
        DataError: a name is no tensor that a node of the model's graph writes, or that it takes as an input, or its
            element type cannot be told.
    """
    present = {output.name for output in proto.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in present]
    types = element_types(proto)
    for name in wanted:
        if name not in types:
            known = ", ".join(list(types)[:NEAREST])
            raise DataError(f"with_outputs: expected the name of a tensor of the model ({known}, ...); got {name!r}")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, types[name], None) for name in wanted)
    return copy


def element_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the ONNX element type of every tensor of the graph whose type can be told, inputs first, in its order."""
    graph = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False).graph
    told = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in told if value.type.HasField("tensor_type")}
    written = [value.name for value in graph.input] + [name for node in graph.node for name in node.output if name]
    return {name: types[name] for name in written if types.get(name)}


def batched_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of one sample of every tensor that keeps the model's batch as its first axis, where it is known.

    An open batch, or one of any size, counts as the first axis of the model's first input; other open axes count as 1.
    """
    graph = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    images = next((value for value in graph.input if value.name not in constants), None)
    if images is None or not images.type.tensor_type.shape.dim:
        return {}
    batch = _size(images.type.tensor_type.shape.dim[0])
    told = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    shapes = {name: [_size(dim) for dim in each.shape.dim] for name, each in told.items() if each.HasField("shape")}
    return {
        name: tuple(size if isinstance(size, int) else 1 for size in shape[1:])
        for name, shape in shapes.items()
        if shape and shape[0] == batch
    }


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    return dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param
