"""Reads names and edges of an ONNX graph from the file's bytes, where no onnx package is: on devices.

Rule: Python 3.8, standard library only. It knows the wire format of protocol buffers and six field numbers of
onnx.proto, which never change; weights are skipped, not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Tuple

GRAPH_OF_MODEL, NODE_OF_GRAPH = 7, 1
INPUT, OUTPUT, NAME, OP_TYPE = 1, 2, 3, 4
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxNode:
    """One node of the main graph."""

    name: str
    op_type: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]


def read_nodes(model: bytes) -> List[OnnxNode]:
    """Return the nodes of a serialized ModelProto's main graph, in its order.

    Raises:
        ValueError: the bytes are no protocol buffer.
    """
    nodes = []
    for graph in _fields(memoryview(model), GRAPH_OF_MODEL):
        for node in _fields(graph, NODE_OF_GRAPH):
            name, op_type = ("".join(map(_text, _fields(node, field))) for field in (NAME, OP_TYPE))
            inputs, outputs = (tuple(map(_text, _fields(node, field))) for field in (INPUT, OUTPUT))
            nodes.append(OnnxNode(name, op_type, inputs, outputs))
    return nodes


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the content of every length-delimited field of that number, in order."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == VARINT:
            _, position = _varint(message, position)
        elif kind == BYTES:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("expected a protocol buffer; got a field that is longer than its message")
            if tag >> 3 == wanted:
                yield message[position : position + length]
            position += length
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("expected a protocol buffer; got wire type {}".format(kind))


def _varint(message: memoryview, position: int) -> Tuple[int, int]:
    result, shift = 0, 0
    while True:
        if position >= len(message):
            raise ValueError("expected a protocol buffer; got one that ends within a number")
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
