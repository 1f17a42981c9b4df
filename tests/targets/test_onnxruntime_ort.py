"""The runtime's own format: the same bytes everywhere, the same answers, and the operators of a reduced build."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets import OnnxRuntime
from targets.errors import ModelRefused
from targets.onnxruntime_ort import OrtModel, convert_to_ort
from targets.target import RunOptions

pytest.importorskip("onnxruntime")

IMAGES_NCHW = np.random.default_rng(1).normal(size=(2, 8, 12, 12)).astype(np.float32)


def quantized_model() -> bytes:
    """Return two convolutions between uint8 grids, with int8 weights: what a student looks like."""
    random = np.random.default_rng(0)
    constants = {"scale": np.float32(0.02), "zero": np.uint8(128), "signed": np.int8(0)}
    nodes = [helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["codes0"])]
    for layer in (1, 2):
        before, weight, after = f"codes{layer - 1}", f"weight{layer}", f"codes{layer}"
        constants[weight] = random.integers(-127, 128, (8, 8, 3, 3), np.int8)
        nodes += [
            helper.make_node("DequantizeLinear", [before, "scale", "zero"], [f"{before}_floats"]),
            helper.make_node("DequantizeLinear", [weight, "scale", "signed"], [f"{weight}_floats"]),
            helper.make_node("Conv", [f"{before}_floats", f"{weight}_floats"], [f"sum{layer}"]),
            helper.make_node("QuantizeLinear", [f"sum{layer}", "scale", "zero"], [after]),
        ]
    nodes.append(helper.make_node("DequantizeLinear", ["codes2", "scale", "zero"], ["floats"]))
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 12, 12])],
        [helper.make_tensor_value_info("floats", TensorProto.FLOAT, ["batch", 8, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def infer(folder: Path, name: str, content: bytes) -> np.ndarray:
    path = folder / name
    path.write_bytes(content)
    return OnnxRuntime().open(path, RunOptions()).bind({"image": IMAGES_NCHW})()["floats"].copy()


@pytest.fixture(scope="module")
def converted() -> OrtModel:
    return convert_to_ort(quantized_model(), "arm")


def test_another_folder_and_process_write_the_same_bytes_which_name_no_folder(converted: OrtModel) -> None:
    assert convert_to_ort(quantized_model(), "arm") == converted
    for folder in {tempfile.gettempdir(), os.getcwd()}:
        assert os.fsencode(folder) not in converted.content
        assert folder not in converted.operators


def test_kernel_types_lie_in_sorted_order(converted: OrtModel) -> None:
    # Of four conversions without sorting, three differ (1.31): the table is a hash map's.
    kinds = [match.decode() for match in re.findall(rb"(?:com\.microsoft)?:[A-Z]\w+:\d+", converted.content)]
    assert "com.microsoft:QLinearConv:1" in kinds
    # Written from the end to the beginning, as this format is.
    assert kinds == sorted(kinds, reverse=True)


def test_converted_model_answers_bit_for_bit_as_the_portable_one(converted: OrtModel, tmp_path: Path) -> None:
    expected = infer(tmp_path, "model.onnx", quantized_model())
    assert len(np.unique(expected)) > 50
    assert np.array_equal(infer(tmp_path, "model.ort", converted.content), expected)


def test_operators_are_what_a_reduced_build_includes(converted: OrtModel) -> None:
    domains = {line.partition(";")[0] for line in converted.operators.splitlines()}
    assert domains == {"ai.onnx", "com.microsoft"}
    fused = re.search(r"^com\.microsoft;1;(.*)$", converted.operators, re.MULTILINE)
    assert fused is not None
    assert fused[1].startswith('QLinearConv{"inputs": {"0": ["uint8_t"]}}')


def test_what_is_no_model_is_refused_in_one_line_without_a_folder() -> None:
    with pytest.raises(
        ModelRefused, match=r"write the model as \.ort; got: .*model\.onnx failed.*edgeproof check"
    ) as e:
        convert_to_ort(b"not a model")
    assert tempfile.gettempdir() not in str(e.value)
    assert "\n" not in str(e.value)
