"""Older operators compute what newer ones did; what cannot be said in them is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from edge_networks import Decoder, Transformer
from exports import IMAGES, captured, infer, parse
from torch import nn

from pipeline.errors import RecipeError
from pipeline.export.opset import lower
from pipeline.export.tidy import tidy

X = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
PADS = "<int64[2] axes = {3, -2}, int64[4] pads = {1, 0, 2, 1}>"

CASES = {
    "gelu": (20, 17, "y = Gelu(x)", ""),
    "gelu_tanh": (20, 17, 'y = Gelu<approximate = "tanh">(x)', ""),
    "mish": (18, 17, "y = Mish(x)", ""),
    "hard_swish": (14, 13, "y = HardSwish(x)", ""),
    "mean": (18, 17, "y = ReduceMean<keepdims = 1>(x, axes)", "<int64[1] axes = {-1}>"),
    "mean_of_all": (18, 17, "y = ReduceMean(x)", ""),
    "largest": (20, 17, "y = ReduceMax(x, axes)", "<int64[2] axes = {2, 3}>"),
    "split": (18, 17, "a, b, c, d = Split<axis = 3, num_outputs = 4>(x)\n y = Concat<axis = 3>(d, c, b, a)", ""),
    "pad": (18, 17, "y = Pad(x, pads, , axes)", PADS),
    "pool": (19, 17, "y = AveragePool<kernel_shape = [2, 2], dilations = [1, 1]>(x)", ""),
    "resize": (
        19,
        17,
        'y = Resize<mode = "linear", antialias = 0, keep_aspect_ratio_policy = "stretch">(x, , scales)',
        "<float[4] scales = {1, 1, 2, 2}>",
    ),
    "codes": (
        21,
        17,
        "q = QuantizeLinear<saturate = 1, block_size = 0>(x, s, z)\n y = DequantizeLinear<block_size = 0>(q, s, z)",
        "<float s = {0.01}, uint8 z = {128}>",
    ),
    "norm": (21, 17, "y = LayerNormalization(x, s)", "<float[6] s = {1, 2, 3, 4, 5, 6}>"),
}
SPLIT_SIX_IN_FOUR = "split"  # sizes 2, 2, 2 and nothing: no such split


@pytest.mark.parametrize("case", [name for name in CASES if name != SPLIT_SIX_IN_FOUR])
def test_an_older_operator_computes_what_the_newer_did(case: str, tmp_path: Path) -> None:
    current, opset, nodes, constants = CASES[case]
    text = f"g (float[1, 4, 6, 6] x) => (float[] y) {constants} {{ {nodes} }}"
    expected = infer(parse(text, opset=current), tmp_path / "newer.onnx", {"x": X})
    model = parse(text, opset=current)
    lower(model, opset)
    assert model.opset_imports[""] == opset
    assert model.graph.outputs[0].name == "y"
    got = infer(model, tmp_path / "older.onnx", {"x": X})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # rounding of float32


@pytest.mark.parametrize("kind", [Transformer, pytest.param(Decoder, marks=pytest.mark.slow)])
def test_whole_networks_compute_the_same_in_opset_17(kind: type[nn.Module], tmp_path: Path) -> None:
    feeds = {"image": IMAGES.numpy()}
    expected = infer(captured(kind, is_int8=False), tmp_path / "newer.onnx", feeds)
    model = captured(kind, is_int8=False)
    lower(model, 17)
    tidy(model, name="test")
    np.testing.assert_allclose(infer(model, tmp_path / "older.onnx", feeds), expected, rtol=1e-4, atol=1e-5)


def test_an_uneven_split_gets_its_sizes(tmp_path: Path) -> None:
    text = "g (float[1, 4, 6, 7] x) => (float[] y) { a, b, c = Split<axis = 3, num_outputs = 3>(x) y = Identity(c) }"
    model = parse(text, opset=18)
    lower(model, 17)
    x = np.random.default_rng(1).normal(size=(1, 4, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(infer(model, tmp_path / "older.onnx", {"x": x}), x[..., 6:])


REFUSED = {
    "antialias": (18, "y = Resize<antialias = 1>(x, , s)", "<float[4] s = {1, 1, 2, 2}>", "Resize_0.*antialias"),
    "computed": (18, "a = Shape(x) y = ReduceMean(x, a)", "", "ReduceMean_1.*axes that are constant"),
    "newer": (18, "y = BitwiseNot(x)", "", "BitwiseNot_0.*BitwiseNot, which begins later"),
    "empty": (18, CASES[SPLIT_SIX_IN_FOUR][2], "", "Split_0.*4 parts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_older_opset_cannot_say_is_refused_by_name(case: str) -> None:
    opset, nodes, constants, message = REFUSED[case]
    element = "int8" if case == "newer" else "float"
    model = parse(f"g ({element}[1, 4, 6, 6] x) => ({element}[] y) {constants} {{ {nodes} }}", opset=opset)
    with pytest.raises(RecipeError, match=f"node {message}"):
        lower(model, 17)


def test_a_model_that_is_old_enough_stays_as_it_is() -> None:
    model = parse("g (float[1] x) => (float[1] y) { y = Relu(x) }", opset=16)
    lower(model, 17)
    assert model.opset_imports[""] == 16
