"""An ONNX file's main graph as the fusion proof asks of it: who writes what, and what is quantized."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
MOST_ELEMENTS = 4096
"""Constants larger than this are never looked into: zero points are small."""


@dataclass(frozen=True)
class FileGraph:
    """The nodes of a model's main graph; nodes go by their name, or by their first output where they have none."""

    nodes: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]
    outputs: frozenset[str]

    @cached_property
    def writers(self) -> dict[str, str]:
        """Return the node that writes each tensor."""
        return {tensor: name for name, node in self.nodes.items() for tensor in node.output if tensor}

    @cached_property
    def readers(self) -> dict[str, list[str]]:
        """Return the nodes that read each tensor."""
        found: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for tensor in node.input:
                found.setdefault(tensor, []).append(name)
        return found

    def find(self, source: str) -> str | None:
        """Return the node that a runtime calls `source`: by its own name, or by that of a tensor that it writes."""
        return source if source in self.nodes else self.writers.get(source)

    def operator(self, name: str) -> str:
        """Return a node's operator."""
        return self.nodes[name].op_type

    def is_grid(self, name: str) -> bool:
        """Tell whether a node is a Q or a DQ."""
        return self.operator(name) in (QUANTIZE, DEQUANTIZE)

    def is_constant(self, tensor: str) -> bool:
        """Tell whether a tensor is known before any inference, as written or behind a Q or a DQ."""
        writer = self.writers.get(tensor)
        if writer is None:
            return tensor in self.constants
        node = self.nodes[writer]
        return node.op_type == "Constant" or (self.is_grid(writer) and self.is_constant(node.input[0]))

    def before_grid(self, tensor: str) -> str:
        """Return the tensor of values that Q/DQ stand for, or the tensor itself."""
        writer = self.writers.get(tensor)
        return self.before_grid(self.nodes[writer].input[0]) if writer and self.is_grid(writer) else tensor

    def is_dequantized(self, tensor: str) -> bool:
        """Tell whether a DQ writes a tensor."""
        writer = self.writers.get(tensor)
        return writer is not None and self.operator(writer) == DEQUANTIZE

    def has_zero_point(self, tensor: str) -> bool:
        """Tell whether the DQ that writes a tensor has a zero point that is not zero."""
        writer = self.writers.get(tensor)
        inputs = [] if writer is None else list(self.nodes[writer].input)
        zero_point = self.constants.get(inputs[2]) if len(inputs) > 2 else None
        if zero_point is None or _num_elements(zero_point) > MOST_ELEMENTS:
            return False
        return bool(numpy_helper.to_array(zero_point).any())

    def is_quantized_output(self, name: str) -> bool:
        """Tell whether Qs alone read what a node writes."""
        readers = [reader for tensor in self.nodes[name].output for reader in self.readers.get(tensor, [])]
        return bool(readers) and all(self.operator(reader) == QUANTIZE for reader in readers)

    def dynamic_product(self, name: str) -> str | None:
        """Return the product with ranges found at run time that a node is a part of, or None: its scales, its bias."""
        products = (product for product in self.dynamic_products if name == product or name.startswith(f"{product}/"))
        return next(products, None)

    @cached_property
    def dynamic_products(self) -> tuple[str, ...]:
        """Return the products on codes whose ranges are found at run time."""
        return tuple(name for name, node in self.nodes.items() if node.op_type == "MatMulInteger")

    def between(self, starts: Iterable[str], ends: Iterable[str]) -> set[str]:
        """Return the nodes on any path from `starts` to `ends`, without those."""
        starts, ends = set(starts), set(ends)
        return (self._walk(starts, forward=True) & self._walk(ends, forward=False)) - starts - ends

    def _walk(self, names: Iterable[str], *, forward: bool) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            node = self.nodes[name]
            if forward:
                waiting += [reader for tensor in node.output for reader in self.readers.get(tensor, [])]
            else:
                waiting += [self.writers[tensor] for tensor in node.input if tensor in self.writers]
        return found


def read_graph(model: onnx.ModelProto) -> FileGraph:
    """Return the main graph of a model, with or without its external data."""
    graph = model.graph
    nodes = {node.name or node.output[0]: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return FileGraph(nodes, constants, frozenset(output.name for output in graph.output))


def _num_elements(tensor: onnx.TensorProto) -> int:
    size = 1
    for length in tensor.dims:
        size *= length
    return size
