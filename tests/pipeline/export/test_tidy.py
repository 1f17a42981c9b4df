"""Means over images become pooling, however an exporter writes them."""

from pathlib import Path

import numpy as np
import pytest
from exports import infer, parse

from pipeline.export.tidy import restore_global_average_pool

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)

POOLED = ["GlobalAveragePool", "Flatten"]

MEANS = {
    "axes_as_input": (18, "y = ReduceMean(x, a)", "<int64[2] a = {3, 2}>", ["GlobalAveragePool"]),
    "negative_axes": (18, "y = ReduceMean(x, a)", "<int64[2] a = {-1, -2}>", ["GlobalAveragePool"]),
    "axes_as_attribute": (13, "y = ReduceMean<axes = [2, 3]>(x)", "", ["GlobalAveragePool"]),
    "axes_dropped": (18, "y = ReduceMean<keepdims = 0>(x, a)", "<int64[2] a = {2, 3}>", POOLED),
    "attribute_and_dropped": (13, "y = ReduceMean<axes = [-2, -1], keepdims = 0>(x)", "", POOLED),
    "one_axis": (18, "y = ReduceMean(x, a)", "<int64[1] a = {3}>", ["ReduceMean"]),
    "all_axes": (18, "y = ReduceMean(x)", "", ["ReduceMean"]),
}


@pytest.mark.parametrize("case", MEANS)
def test_a_mean_over_both_image_axes_is_pooling(case: str, tmp_path: Path) -> None:
    opset, nodes, constants, operators = MEANS[case]
    model = parse(f"g (float[2, 3, 4, 5] x) => (float[] y) {constants} {{ {nodes} }}", opset=opset)
    expected = infer(model, tmp_path / "before.onnx", {"x": X})
    restore_global_average_pool(model.graph)
    assert [node.op_type for node in model.graph] == operators
    got = infer(model, tmp_path / "after.onnx", {"x": X})
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_codes_stand_on_both_sides_of_pooling_where_the_mean_was_rounded(tmp_path: Path) -> None:
    text = """g (float[2, 3, 4, 5] x) => (float[] y) <int64[2] a = {2, 3}, float s = {0.01}, int8 z = {0}> {
        m = ReduceMean<keepdims = 0>(x, a)
        q = QuantizeLinear(m, s, z)
        y = DequantizeLinear(q, s, z)
    }"""
    expected = infer(parse(text, opset=18), tmp_path / "before.onnx", {"x": X})
    model = parse(text, opset=18)
    restore_global_average_pool(model.graph)
    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert [node.op_type for node in model.graph] == ["GlobalAveragePool", *pair, "Flatten", *pair]
    np.testing.assert_array_equal(infer(model, tmp_path / "after.onnx", {"x": X}), expected)
