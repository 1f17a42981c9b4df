"""Names of an export: by module, the same in float and int8."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from edge_networks import Residual8
from exports import captured, infer, parse

from pipeline.export.names import CLASSES, SCOPES, name_grids, name_nodes, plain_name

LAYERS = ("Conv", "Gemm", "Add")


def test_float_and_int8_exports_of_a_network_call_equal_layers_by_equal_names() -> None:
    names = [
        [node.name for node in captured(Residual8, is_int8=is_int8).graph if node.op_type in LAYERS]
        for is_int8 in (False, True)
    ]
    assert names[0] == names[1]
    assert names[0][:4] == [
        "network.conv1/Conv",
        "network.layer1.0.conv1/Conv",
        "network.layer1.0.conv2/Conv",
        "network.layer1.0/Add",
    ]
    assert names[0][-1] == "network.linear/Gemm"


def test_names_are_unique_and_tensors_follow_them() -> None:
    graph = captured(Residual8, is_int8=True).graph
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)
    assert [value.name for value in (*graph.inputs, *graph.outputs)] == ["image", "logits"]
    inner = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    assert all(value.name == f"{value.producer().name}:{value.index()}" for value in inner)


def from_modules(*scopes: str | None) -> ir.Graph:
    """Return a chain of Relus, each called in a module; None where the exporter lost it."""
    steps = [f"t{i + 1} = Relu(t{i})" for i in range(len(scopes))]
    graph = parse(f"g (float[1] t0) => (float[1] t{len(scopes)}) {{ {' '.join(steps)} }}", opset=18).graph
    for node, scope in zip(graph, scopes, strict=True):
        if scope is not None:
            node.metadata_props.update(
                {SCOPES: repr(["", scope, "relu"]), CLASSES: repr(["Net", "Block", "aten.relu"])}
            )
    name_nodes(graph)
    return graph


def test_repeats_in_one_module_are_counted_in_order_and_a_second_call_is_the_same_module() -> None:
    graph = from_modules("block", "block", "other", "block@1", "")
    assert [node.name for node in graph] == ["block/Relu", "block/Relu_1", "other/Relu", "block/Relu_2", "/Relu"]


def test_a_node_that_lost_its_module_belongs_where_all_its_neighbours_do() -> None:
    assert [node.name for node in from_modules("a.b.c", None, "a.b.d")][1] == "a.b/Relu"
    assert [node.name for node in from_modules("ab", None, "ac")][1] == "/Relu"


def test_a_graph_without_modules_keeps_its_names() -> None:
    assert [node.name for node in from_modules(None, None)] == ["Relu_0", "Relu_1"]


ROUNDED = """g (float[1, 4] x) => (float[1, 4] y)
    <float s = {0.5}, uint8 z = {128}, float t = {0.25}, int8[4, 4] dq0 = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
     14, 15}, float[4] w_s = {1, 2, 3, 4}, int8[4] w_z = {0, 0, 0, 0}> {
    a = QuantizeLinear(x, s, z)
    b = DequantizeLinear(a, s, z)
    w = DequantizeLinear<axis = 0>(dq0, w_s, w_z)
    c = MatMul(b, w)
    d = QuantizeLinear(c, t, z)
    e = DequantizeLinear(d, t, z)
    y = Mul(e, t)
}"""


def test_grids_get_short_names_that_nothing_else_has_and_compute_the_same(tmp_path: Path) -> None:
    feeds = {"x": np.array([[-1.0, 0.5, 2.0, 40.0]], np.float32)}
    expected = infer(parse(ROUNDED, opset=18), tmp_path / "before.onnx", feeds)
    model = parse(ROUNDED, opset=18)
    name_grids(model.graph)
    name_grids(model.graph)  # a second time changes nothing
    assert [value.name for node in model.graph for value in node.outputs] == [
        "q0",
        "dq0_",
        "dq1",
        "c",
        "q1",
        "dq2",
        "y",
    ]
    assert [node.name for node in model.graph if node.op_type == "QuantizeLinear"] == [
        "QuantizeLinear_0",
        "QuantizeLinear_4",
    ]
    assert [node.name for node in model.graph if node.op_type == "DequantizeLinear"] == ["dq0_", "dq1", "dq2"]
    assert set(model.graph.initializers) == {"scale0", "uint8_128", "t", "dq0", "dq0.scale", "zero0"}  # Mul reads t
    np.testing.assert_array_equal(infer(model, tmp_path / "after.onnx", feeds), expected)


def test_parameters_lose_what_parametrizations_add() -> None:
    assert plain_name("a.parametrizations.weight.original") == "a.weight"
    assert plain_name("a.parametrizations.weight.0.scale") == "a.weight.0.scale"
    assert plain_name("original.weight") == "original.weight"
