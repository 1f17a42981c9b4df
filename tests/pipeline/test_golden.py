"""What golden answers promise: they are the device's own, fit the model, and say how far another processor may be."""

import json
import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sample_release import INTERFACE, golden

from pipeline.release.golden import check_golden, golden_array, make_golden, noise_of, read_golden
from pipeline.release.manifest import canonical_json
from pipeline.release.output_step import output_step
from targets.errors import EdgeproofError

IMAGES_NHWC = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
LOGITS_NK = np.array([[1.0, 3.0, -2.0], [0.5, 0.5, 0.0]], np.float32)


def test_what_was_recorded_is_read_back_with_its_labels_and_scores() -> None:
    files = make_golden(INTERFACE, IMAGES_NHWC, LOGITS_NK, step=0.25, noise=0.01)
    found = read_golden(files)
    np.testing.assert_array_equal(golden_array(found.inputs, files), IMAGES_NHWC)
    np.testing.assert_array_equal(golden_array(found.outputs, files), LOGITS_NK)
    assert found.labels == (1, 0)  # the first of two that are equal
    softmax = np.exp(LOGITS_NK) / np.exp(LOGITS_NK).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.scores, softmax.max(axis=1), rtol=1e-6)
    assert found.tolerance == pytest.approx(0.25 + 0.01 * 3.0)


def test_arrays_lie_in_little_endian_without_a_header() -> None:
    files = make_golden(INTERFACE, IMAGES_NHWC, LOGITS_NK, step=0.0, noise=0.01)
    assert files["golden/images.bin"] == bytes(range(128))
    assert files["golden/logits.bin"] == LOGITS_NK.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("precision", "rest", "step", "expected"),
    [("fp32", None, 0.0, 1e-4), ("int8", None, 0.1, 1e-4), ("int8", "bf16", 0.1, 3e-2), ("int8", None, 0.0, 2e-2)],
)
def test_coarser_arithmetic_may_round_further_apart(
    precision: str, rest: str | None, step: float, expected: float
) -> None:
    assert noise_of(precision, rest, step) == expected


Files = dict[str, bytes]


def _with(**changes: object) -> Callable[[Files], None]:
    return lambda files: files.update({"golden.json": canonical_json(json.loads(files["golden.json"]) | changes)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_with(labels=[0] * 8), r"golden.json: labels: expected \[.*, the largest outputs; got \(0, 0"),
        (_with(scores=[0.5] * 8), "golden.json: scores: expected"),
        (_with(labels=[0]), r"golden.json: samples: expected 8 everywhere; got \[1, 8\]"),
        (_with(tolerance=0.0), "golden.json: tolerance: expected greater than 0"),
        (lambda files: files.pop("golden/logits.bin"), "golden/logits.bin: presence: expected the array that"),
        (lambda files: files.update({"golden/images.bin": b"short"}), "golden/images.bin: size: expected 512 bytes"),
        (
            lambda files: files.update({"golden/logits.bin": b"\xff" * 96}),
            "golden/logits.bin: values: expected finite numbers",
        ),
        (lambda files: files.update({"golden.json": b"{}"}), "golden.json: samples: expected this field; got none"),
    ],
)
def test_answers_that_do_not_fit_are_named(change: Callable[[Files], None], expected: str) -> None:
    files = dict(golden())
    assert [*check_golden(INTERFACE, files, "")] == []
    change(files)
    said = [str(difference) for difference in check_golden(INTERFACE, files, "")]
    assert any(re.match(expected, line) for line in said), said


def test_release_without_golden_answers_is_refused_by_packagers() -> None:
    with pytest.raises(EdgeproofError, match=r"golden\.json: expected golden answers; got none; deploy again"):
        read_golden({})


def _model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    constants = {
        "scale": np.float32(0.5),
        "zero": np.uint8(128),
        "codes": np.array([[1, -3], [2, 4]], np.int8),
        "scales": np.array([0.25, 0.125], np.float32),
        "zeros": np.zeros(2, np.int8),
        "bias": np.ones(2, np.float32),
    }
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 2)) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "tail", values[:1], values[1:], tensors))


QUANTIZE = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])
INPUT = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["a"])
WEIGHT = helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["w"], axis=0)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([QUANTIZE, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])], 0.5),
        ([QUANTIZE, INPUT, WEIGHT, helper.make_node("Gemm", ["a", "w"], ["y"])], 0.5 * 3 * 0.25),
        (
            [
                QUANTIZE,
                INPUT,
                WEIGHT,
                helper.make_node("MatMul", ["a", "w"], ["p"]),
                helper.make_node("Add", ["p", "bias"], ["y"]),
            ],
            0.5 * 3 * 0.25,
        ),
        ([helper.make_node("Gemm", ["x", "codes"], ["y"])], 0.0),
        ([helper.make_node("Relu", ["x"], ["y"])], 0.0),
    ],
    ids=["its own grid", "the last layer's input", "with a bias of its own", "float layer", "no layer"],
)
def test_one_code_changes_the_output_by_at_most_a_step(nodes: list[onnx.NodeProto], expected: float) -> None:
    assert output_step(_model(*nodes)) == pytest.approx(expected)
