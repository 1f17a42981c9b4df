"""Sets of layers that are tried together: ideas from kinds of operators, neighbours of float ones, and blocks."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from pipeline.precision.units import units_of

MODEL = """
<ir_version: 8, opset_import: ["" : 17]> g (float[1,4,8,8] x) => (float[1,4,8,8] y)
<float[1,4,8,8] a, float[1,4,8,8] b, float[1,4,8,8] c> {
a = Conv <group=1> (x, w)
b = HardSwish (a)
c = Conv <group=4> (b, d)
y = Conv <group=1> (c, w)
}
"""
NAMES = ("stem/Conv", "blocks.0/HardSwish", "blocks.0.depth/Conv", "blocks.0.point/Conv")


def graph() -> ir.Graph:
    proto = onnx.parser.parse_model(MODEL)
    for name, shape in {"w": (4, 4, 1, 1), "d": (4, 1, 1, 1)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    for node, name in zip(proto.graph.node, NAMES, strict=True):
        node.name = name
    return ir.from_proto(proto).graph


def test_units_are_kinds_neighbours_blocks_and_single_layers() -> None:
    units = set(units_of(graph()))
    assert frozenset({"blocks.0.depth/Conv"}) in units  # depthwise, and alone
    assert frozenset({"stem/Conv", "blocks.0.point/Conv"}) in units  # the other convolutions
    assert frozenset({"stem/Conv", "blocks.0.depth/Conv"}) in units  # around the HardSwish
    assert frozenset({"blocks.0.depth/Conv", "blocks.0.point/Conv"}) in units  # blocks, blocks.0


def test_units_are_never_empty_never_everything_and_never_twice() -> None:
    units = units_of(graph())
    assert len(set(units)) == len(units)
    assert frozenset() not in units
    assert max(map(len, units)) < 3
