"""The inspector's JSON of real engines, and that of TensorRT 11 by its documents, as layers."""

import json
from collections import Counter
from pathlib import Path

import pytest

from targets.errors import DeviceError
from targets.tensorrt_layers import read_layers


def tensor(name: str, kind: str) -> dict[str, str]:
    return {"Name": name, "Format/Datatype": kind}


def test_a_quantized_resnet_of_an_a100_is_int8_with_its_conversions(shared_data: Path) -> None:
    folder = shared_data / "logs" / "trtexec" / "json" / "a100_resnet_qat"
    profile = json.loads(folder.joinpath("profile.json").read_text())[1:]
    times = {each["name"]: each["averageMs"] for each in profile}
    layers = read_layers(folder.joinpath("graph.json").read_text(), times)
    assert {layer.name: layer.time_ms for layer in layers} == {name: ms for name, ms in times.items() if ms > 0}
    convolutions = [layer for layer in layers if layer.op_type == "Convolution"]
    assert Counter(layer.precision for layer in convolutions) == {"int8": 21}  # ResNet-18
    first, conv = layers[:2]
    assert (first.name, first.is_conversion, first.reads) == ("QuantizeLinear_2", True, ())
    assert conv.reads == ("QuantizeLinear_2",)
    assert conv.sources == ("conv1.weight", "QuantizeLinear_7", "Conv_9")


@pytest.mark.parametrize(("name", "precision"), [("a100_resnet_fp16", "fp16"), ("a100_resnet_fp32", "fp32")])
def test_a_float_resnet_computes_in_its_float_type(name: str, precision: str, shared_data: Path) -> None:
    path = shared_data / "logs" / "trtexec" / "json" / name / "graph.json"
    convolutions = [layer for layer in read_layers(path.read_text(), {}) if layer.op_type == "Convolution"]
    assert {layer.precision for layer in convolutions} == {precision}


def test_nodes_of_the_file_are_told_since_tensorrt_8_6(shared_data: Path) -> None:
    path = shared_data / "logs" / "trtexec" / "json" / "trt10.16_cookbook_exportLayerInfo.json"
    layers = read_layers(path.read_text(), {})
    assert layers[0].sources == ("node_conv2d", "node_relu")
    assert [layer.reads for layer in layers[:3]] == [(), ("node_conv2d + node_relu",), ("node_max_pool2d",)]
    gemm = next(layer for layer in layers if layer.op_type == "gemm")
    assert (gemm.precision, gemm.sources) == ("fp32", ("node_linear", "node_relu_2"))


def test_tensorrt_11_tells_the_type_apart_from_the_format() -> None:
    side = {"Name": "x", "Format": "Row major linear", "Datatype": "Int8"}
    text = json.dumps({"Layers": [{"Name": "c", "LayerType": "CaskConvolution", "Inputs": [side]}], "I/O Tensors": []})
    assert [layer.precision for layer in read_layers(text, {})] == ["int8"]


def test_a_layer_that_runs_nothing_stands_for_what_it_reads() -> None:
    described = [
        {"Name": "a", "LayerType": "CaskConvolution", "Outputs": [tensor("t", "Half")]},
        {"Name": "b", "LayerType": "NoOp", "Inputs": [tensor("t", "Half")], "Outputs": [tensor("u", "Half")]},
        {"Name": "PWN(c, d)", "LayerType": "PointWiseV2", "Inputs": [tensor("u", "Half")]},
    ]
    layers = read_layers(json.dumps({"Layers": described}), {})
    assert [(layer.name, layer.reads, layer.sources) for layer in layers] == [
        ("a", (), ("a",)),
        ("PWN(c, d)", ("a",), ("c", "d")),
    ]


@pytest.mark.parametrize(
    ("before", "after", "is_conversion"),
    [("Float", "Int8", True), ("Int8", "Half", True), ("Half", "Half", False)],
)
def test_a_reformat_converts_where_the_type_changes(before: str, after: str, is_conversion: bool) -> None:
    described = {"Name": "r", "LayerType": "Reformat", "Inputs": [tensor("t", before)], "Outputs": [tensor("u", after)]}
    (layer,) = read_layers(json.dumps({"Layers": [described]}), {})
    assert layer.is_conversion is is_conversion


def test_an_engine_without_details_gives_names_alone() -> None:
    (layer,) = read_layers('{"Layers": ["conv + relu"], "Bindings": ["x"]}', {"conv + relu": 0.5})
    assert (layer.op_type, layer.precision, layer.time_ms, layer.sources) == (
        "unknown",
        "unknown",
        0.5,
        ("conv", "relu"),
    )


def test_text_of_another_kind_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"expected the inspector's JSON with \"Layers\"; got 'not json'"):
        read_layers("not json", {})
