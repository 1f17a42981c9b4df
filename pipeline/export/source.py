"""Any ONNX file as it comes from elsewhere: what it takes and gives, and the files that hold its weights.

Rule: what cannot be read is refused here, in one line; the model itself is not changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from pipeline.errors import DataError
from targets.target import TensorSpec


@dataclass(frozen=True)
class Source:
    """An ONNX file of the user's; counts by the content of all its files."""

    path: Path
    weights: tuple[Path, ...] = ()
    """Files beside it that hold its large tensors."""

    def load(self) -> onnx.ModelProto:
        """Read the whole model into memory.

        Raises:
            DataError: a file of weights is missing or shorter than the model says.
        """
        proto = _parse(self.path)
        try:
            load_external_data_for_model(proto, str(self.path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path}: expected its external weights beside it; got: {reason}") from error
        return proto


def read_source(path: Path) -> Source:
    """Return the model in `path` with its files of weights.

    Raises:
        DataError: it is no ONNX model, has no input, no output or no operator, or a file of weights is missing.
    """
    proto = _parse(path)
    tensors = [tensor for tensor in _tensors(proto) if uses_external_data(tensor)]
    names = sorted({ExternalDataInfo(tensor).location for tensor in tensors})
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise DataError(
            f"{path}: expected its external weights in {path.parent / missing[0]}; got no such file; put it beside "
            "the model, or save the model as one file"
        )
    return Source(path, tuple(path.parent / name for name in names))


def inputs_of(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the inputs that a caller must feed: those without an initializer."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return tuple(_spec(value) for value in proto.graph.input if value.name not in constants)


def outputs_of(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the outputs; an unknown number of dimensions reads as none."""
    return tuple(_spec(value) for value in proto.graph.output)


def with_shapes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Return a copy whose inputs have the sizes of `shapes`, by name; shapes of all that follows are left open."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if value.name in shapes:
            tensor = value.type.tensor_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, tensor.elem_type, shapes[value.name]))
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that the model is written in; 1 where it names none."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise DataError(f"{path}: expected an ONNX model; got bytes that are none; export the model anew") from error
    graph = proto.graph
    for what, found in (("an output", graph.output), ("an operator", graph.node), ("an input", inputs_of(proto))):
        if not found:  # bytes that are not ONNX can parse as an empty message
            raise DataError(f"{path}: expected an ONNX model with at least {what}; got none")
    return proto


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    element = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
    return TensorSpec(value.name, element, shape)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _of_graph(graph)
