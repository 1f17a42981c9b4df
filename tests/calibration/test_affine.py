"""The one quantize formula, against ONNX's QuantizeLinear and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from calibration.affine import dequantize, grid_of_range, quantize, rewrite_grid, scale_of_channels, scale_of_range

ELEMENT_TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def quantize_by_onnx(values: np.ndarray, scale: float, zero_point: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and values of QuantizeLinear and DequantizeLinear, as onnx's reference evaluator computes them."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xs"]
    inputs.append(helper.make_tensor_value_info("z", ELEMENT_TYPES[dtype], None))
    outputs = [
        helper.make_tensor_value_info("q", ELEMENT_TYPES[dtype], None),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)]
    )
    feeds = {"x": values, "s": np.float32(scale), "z": np.array(zero_point, dtype)}
    codes, back = ReferenceEvaluator(model).run(None, feeds)
    return codes, back


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("uint8", 128), ("int8", 0)])
def test_codes_and_values_are_those_of_onnx(dtype: str, zero_point: int) -> None:
    values = np.random.default_rng(0).normal(0, 4, 10_000).astype(np.float32)
    scale = 2.0**-5  # a power of two: no rounding of the division can differ
    codes, back = quantize_by_onnx(values, scale, zero_point, dtype)
    np.testing.assert_array_equal(quantize(values, np.float32(scale), zero_point, dtype), codes)
    np.testing.assert_array_equal(dequantize(codes, np.float32(scale), zero_point), back)


def test_halves_round_to_even_and_codes_saturate() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 300, -300], np.float32)
    assert quantize(values, np.float32(1), 0, "int8").tolist() == [0, 2, 2, 0, -2, 127, -128]
    assert quantize(values, np.float32(1), 0, "uint8").tolist() == [0, 2, 2, 0, 0, 255, 0]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_range_fits_its_codes_to_half_a_step(low: float, width: float) -> None:
    high = low + width
    nonnegative = low >= 0
    scale = scale_of_range(low, high, nonnegative=nonnegative)
    ends = np.array([low, high])
    back = dequantize(quantize(ends, np.float64(scale), 0, "uint8" if nonnegative else "int8"), np.float64(scale), 0)
    assert np.abs(back - ends).max() <= scale * 0.5 + 1e-6 * np.abs(ends).max()  # float32 has 24 bits


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_an_asymmetric_grid_holds_zero_exactly_and_its_range_to_half_a_step(low: float, width: float) -> None:
    scale, zero_point = grid_of_range(low, low + width)
    assert 0 <= zero_point <= 255
    values = np.array([0, low, low + width])
    back = dequantize(quantize(values, np.float64(scale), zero_point, "uint8"), np.float64(scale), zero_point)
    assert back[0] == 0
    # the zero point is rounded by up to half a step, which is cut from one end
    assert np.abs(back - values).max() <= scale * (0.5 + 1e-6) + 1e-6 * np.abs(values).max()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.28, 6.0, (6.28 / 255, 11)), (-3.0, -1.0, (3 / 255, 255)), (0.5, 2.55, (0.01, 0)), (0.0, 0.0, (2.0**-40, 0))],
)
def test_an_asymmetric_grid_spends_every_code_on_the_range(
    low: float, high: float, expected: tuple[float, int]
) -> None:
    assert grid_of_range(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_an_asymmetric_range_that_is_none_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"expected a finite range .*; got \["):
        grid_of_range(low, high)


@pytest.mark.parametrize(
    ("low", "high", "nonnegative"),
    [(1.0, 0.0, True), (float("nan"), 1.0, False), (0.0, float("inf"), True), (-1, 1, True)],
)
def test_a_range_that_is_none_is_refused(low: float, high: float, nonnegative: bool) -> None:
    with pytest.raises(ValueError, match=r"expected a .*range .*; got \["):
        scale_of_range(low, high, nonnegative=nonnegative)


def test_scales_of_channels_are_largest_over_127_and_never_zero() -> None:
    weights = np.array([[[1.0, -2.54]], [[0.0, 0.0]]], np.float32)
    scales = scale_of_channels(weights, axis=0)
    np.testing.assert_allclose(scales, [0.02, 2.0**-40], rtol=1e-6)
    np.testing.assert_allclose(scale_of_channels(weights, axis=2), [1 / 127, 0.02], rtol=1e-6)
    np.testing.assert_allclose(scale_of_channels(weights, axis=0, bits=4)[0], 2.54 / 7, rtol=1e-6)


def test_a_signed_grid_keeps_its_codes_in_uint8_and_an_unsigned_one_loses_a_bit_in_int8() -> None:
    assert rewrite_grid(0.1, 0, "int8", "uint8") == (0.1, 128)
    assert rewrite_grid(0.1, 0, "uint8", "uint8") == (0.1, 0)
    scale, zero_point = rewrite_grid(0.1, 0, "uint8", "int8")
    assert zero_point == 0
    assert scale * 127 == pytest.approx(0.1 * 255)


def test_a_grid_with_its_zero_point_between_keeps_its_wider_side_in_int8() -> None:
    assert rewrite_grid(0.1, 12, "uint8", "uint8") == (0.1, 12)
    for zero_point, steps in ((12, 243), (200, 200)):
        scale, center = rewrite_grid(0.1, zero_point, "uint8", "int8")
        assert (scale * 127, center) == (pytest.approx(0.1 * steps), 0)
