"""Biases that take off what rounding adds to a layer's mean."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import copy_of, draw, infer, observe, parse

from calibration.scheme import Scheme
from pipeline.export.correct_bias import correctable, find_grids, mean_shift, shift_biases
from pipeline.export.place_onnx import quantize_graph
from pipeline.export.prepare import prepare

pytest.importorskip("onnxruntime")

IMAGES = [{"x": np.abs(draw(1, 8, 8, 8, seed=seed))} for seed in range(4)]
WEIGHTS = {"w": draw(6, 4, 1, 1, seed=1), "b": draw(6, seed=2)}
BODY = "y = Conv<group=2>(x,w,b)"


@pytest.mark.parametrize("bits", [8, 3])
def test_the_mean_of_a_corrected_layer_is_that_of_the_float_one(bits: int, tmp_path: Path) -> None:
    model = prepare(parse(BODY, **WEIGHTS), opset=17)
    scheme = Scheme(weight_bits=bits)
    ranges = observe(model, IMAGES, tmp_path)
    placed = placed_on(model, ranges, scheme)
    grids = find_grids(placed.graph)
    assert correctable(model.graph, grids) == {model.graph[0].name: "x"}
    images = np.concatenate([each["x"] for each in IMAGES])
    means = (values.mean(axis=(0, 2, 3)) for values in (images, grids["x"].round(images)))
    shift = mean_shift(model.graph[0], *means, bits)
    assert np.abs(shift).max() > (0.001 if bits == 8 else 0.05)
    expected, before = mean_output(model, tmp_path), mean_output(placed, tmp_path)
    np.testing.assert_allclose(before - expected, shift, atol=1e-5)
    shift_biases(model.graph, {str(model.graph[0].name): shift})
    np.testing.assert_allclose(mean_output(placed_on(model, ranges, scheme), tmp_path), expected, atol=1e-5)


def test_a_shared_bias_and_a_layer_in_float_are_left_alone(tmp_path: Path) -> None:
    shared = prepare(
        parse("t = Conv<group=2>(x,w,b) u = Conv<group=2>(x,v,b) y = Add(t,u)", **WEIGHTS, v=draw(6, 4, 1, 1)), opset=17
    )
    placed = placed_on(shared, observe(shared, IMAGES, tmp_path), Scheme())
    assert correctable(shared.graph, find_grids(placed.graph)) == {}
    assert correctable(prepare(parse(BODY, **WEIGHTS), opset=17).graph, {}) == {}


def placed_on(model: ir.Model, ranges: dict, scheme: Scheme) -> ir.Model:
    placed = copy_of(model)
    quantize_graph(placed.graph, ranges, scheme)
    return placed


def mean_output(model: ir.Model, folder: Path) -> np.ndarray:
    outputs = [infer(model, each, folder)["y"] for each in IMAGES]
    result: np.ndarray = np.mean(outputs, axis=(0, 1, 3, 4))
    return result
