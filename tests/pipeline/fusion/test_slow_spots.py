"""Where int8 loses its time: each kind on layers whose times are known."""

from dataclasses import replace
from pathlib import Path

import pytest
from micro_nets import between_convolutions, one

from pipeline.artifacts import Conversion, FloatIsland
from pipeline.fusion.prove import prove_fusion
from pipeline.fusion.slow_spots import find_slow_spots
from pipeline.report.fusion_words import slow_spot_words
from pipeline.report.report import SlowSpotFigures
from targets import OnnxRuntime
from targets.target import Layer, RunOptions

CONV = Layer("conv", "Convolution", "int8", 1.0)
SWISH = Layer("swish", "Eltwise", "int8", 0.5, reads=("conv",))
REORDER = Layer("reorder", "Reorder", "int8", 0.3, reads=("swish",))
QUANTIZE = Layer("q", "QuantizeLinear", "int8", 0.2, reads=("reorder",), is_conversion=True)
OPERATORS = {"conv": ["Conv"], "swish": ["HardSwish"], "reorder": [], "q": ["QuantizeLinear"]}
ISLAND = FloatIsland(
    subject="Tanh",
    reason="no int8 kernel",
    remedy="take ReLU",
    is_inside=True,
    operators=("Tanh",),
    nodes=("tanh",),
    layers=("tanh",),
    num_conversions=2,
    time_share=0.25,
)


def test_each_kind_has_its_cost_and_what_to_move() -> None:
    layers = [CONV, SWISH, REORDER, QUANTIZE]
    stray = Conversion("q", "QuantizeLinear", "reorder", "conv2", 0.1)
    spots = find_slow_spots(layers, OPERATORS, [], [stray])
    assert [(spot.kind, spot.time_ms, spot.time_share) for spot in spots] == [
        ("not fused", 0.5, 0.25),
        ("reformat", 0.3, 0.15),
        ("Q/DQ", pytest.approx(0.2), 0.1),
    ]
    assert spots[0].remedy == "take ReLU, which every runtime fuses"
    assert spots[2].subject == "q (between reorder and conv2)"


def test_islands_of_one_cause_are_one_spot_and_their_layers_no_other() -> None:
    reorder = replace(REORDER, name="tanh", precision="fp32")
    other = replace(ISLAND, layers=("tanh2",), time_share=0.05)
    end = replace(ISLAND, is_inside=False, layers=("softmax",))
    spots = find_slow_spots([CONV, reorder], {}, [ISLAND, other, end], [])
    (spot,) = spots
    assert (spot.kind, spot.count, spot.time_ms) == ("float island", 2, pytest.approx(0.3 * 1.3))


def test_an_activation_that_reads_no_weighted_layer_is_left_alone() -> None:
    pool = Layer("pool", "Pooling", "int8", 1.0)
    assert find_slow_spots([pool, replace(SWISH, reads=("pool",))], OPERATORS, [], []) == ()


def test_without_times_a_spot_is_told_without_its_cost() -> None:
    layers = [replace(each, time_ms=None) for each in (CONV, SWISH)]
    (spot,) = find_slow_spots(layers, OPERATORS, [], [])
    assert (spot.time_ms, spot.time_share) == (None, None)


def test_a_real_runtimes_float_island_is_found_with_its_cost(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(between_convolutions(one("Tanh"), "uint8").SerializeToString())
    layers = OnnxRuntime().inspect(path, RunOptions())
    proof = prove_fusion(layers, path, OnnxRuntime())
    spot = next(spot for spot in proof.slow_spots if spot.kind == "float island")
    assert "Tanh" in spot.subject
    assert spot.time_share == pytest.approx(proof.islands[0].time_share)
    assert spot.time_ms == pytest.approx((spot.time_share or 0) * sum(layer.time_ms or 0 for layer in layers))


def test_a_spot_in_words() -> None:
    spot = SlowSpotFigures(
        kind="reformat", subject="Reorder: a, b", remedy="move it", count=2, time_ms=0.3, time_share=0.15
    )
    assert slow_spot_words(spot) == "reformat: Reorder: a, b, 0.300 ms (15 % of the time); move it"
