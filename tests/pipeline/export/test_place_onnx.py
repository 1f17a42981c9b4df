"""The trained grid in foreign ONNX graphs: its numbers, what runtimes then compute in int8, and what stays float."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_graphs import (
    copy_of,
    draw,
    executed,
    infer,
    observe,
    operators,
    parse,
    quantized,
    signal_to_noise_db,
)
from small_networks import IMAGE, NETWORKS, make_network
from torch import nn

from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.export.capture import capture
from pipeline.export.encode import encode
from pipeline.export.operators import constant
from pipeline.export.place_onnx import Range, observed_tensors, quantizable_layers, quantize_graph
from pipeline.export.prepare import prepare
from pipeline.export.tidy import tidy
from pipeline.models.resnet import ResNet
from targets import TARGETS, AnyTarget
from targets.null import Null
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino

pytest.importorskip("onnxruntime")

FEEDS = [{"x": draw(1, 8, 8, 8, seed=seed)} for seed in range(4)]
ENDS = {"w0": draw(8, 8, 1, 1, seed=1) / 3, "b0": draw(8, seed=2), "w1": draw(8, 8, 1, 1, seed=3) / 3}


def between(body: str, **arrays: object) -> ir.Model:
    """Return a model with `body`, from a to c, between two convolutions; a float operator ends it."""
    return prepare(parse(f"a = Conv(x,w0,b0) {body} z = Conv(c,w1) y = Softmax(z)", **ENDS, **arrays), opset=17)


def round_to(values: np.ndarray, scale: float | np.ndarray, low: int, high: int) -> np.ndarray:
    """Return what the definition of QuantizeLinear and DequantizeLinear gives at zero point 0."""
    return np.clip(np.rint(values / scale), low, high) * scale


def test_the_grid_is_what_the_definition_says(tmp_path: Path) -> None:
    model = prepare(parse("a = Conv(x,w0,b0) r = Relu(a) y = Conv(r,w1)", **ENDS), opset=17)
    ranges = {"x": Range(-2.0, 1.0), "r": Range(0.0, 1.5)}
    got = infer(quantized(model, ranges, Null), FEEDS[0], tmp_path)["y"]
    x = round_to(FEEDS[0]["x"].astype(np.float64), 2 / 127, -128, 127)
    weights = [
        round_to(w.astype(np.float64), np.abs(w).max(axis=1, keepdims=True) / 127, -127, 127)
        for w in (ENDS["w0"][..., 0, 0], ENDS["w1"][..., 0, 0])
    ]
    hidden = np.einsum("oi,nihw->nohw", weights[0], x) + ENDS["b0"].reshape(-1, 1, 1)
    wanted = np.einsum("oi,nihw->nohw", weights[1], round_to(np.maximum(hidden, 0), 1.5 / 255, 0, 255))
    largest_step = 1.5 / 255 * np.abs(weights[1]).max()  # sums in float32 and the int32 bias move a code here and there
    assert np.abs(got - wanted).max() <= 1.1 * largest_step
    assert np.abs(got - wanted).mean() < 0.05 * largest_step


INTEGER = {  # between two convolutions: all that ONNX Runtime has no integer kernel for
    "t = Relu(a) c = MaxPool<kernel_shape=[2,2]>(t)": set(),
    "c = Clip(a,zero,half)": set(),
    "t = Conv(a,w0,b0) u = Add(t,a) c = Relu(u)": set(),
    "t = Relu(a) u = Conv(t,w0,b0) v = Conv(t,w1) c = Concat<axis=1>(u,t,v)": set(),
    "p, q = Split<axis=1>(a) c = Concat<axis=1>(q,p)": set(),
    "t = Reshape(a,groups) u = Transpose<perm=[0,2,1,3,4]>(t) c = Reshape(u,image)": set(),
    'c = Resize<mode="nearest">(a,,twice)': set(),
    "c = Gather<axis=1>(a,index)": set(),
    "c = LeakyRelu<alpha=0.1>(a)": set(),
    "s = Sigmoid(a) c = Mul(s,a)": set(),
    "t = Add(a,three) u = Clip(t,zero,six) v = Mul(a,u) c = Div(v,six)": set(),
    "t = Relu(a) c = Add(t,offset)": set(),
    "t = GlobalAveragePool(a) u = Squeeze(t,axes) c = Unsqueeze(u,axes)": set(),
    "t = Conv<group=8>(a,depthwise) c = AveragePool<kernel_shape=[2,2]>(t)": set(),
    "g = GlobalAveragePool(a) h = Conv(g,w0,b0) s = HardSigmoid(h) c = Mul(a,s)": {"HardSigmoid"},
    "c = HardSwish(a)": {"HardSigmoid", "Mul"},
    "c = PRelu(a,slope)": {"PRelu"},
    "t = Relu(a) c = ConvTranspose<group=2,kernel_shape=[2,2],strides=[2,2]>(t,up)": {"ConvTranspose"},
}
ARRAYS = {
    "zero": np.float32(0), "half": np.float32(0.5), "three": np.float32(3), "six": np.float32(6),
    "groups": np.array([1, 2, 4, 8, 8]), "image": np.array([1, 8, 8, 8]), "index": np.array([3, 1, 0, 2, 7, 6, 5, 4]),
    "twice": np.array([1, 1, 2, 2], np.float32), "offset": draw(8, 1, 1), "axes": np.array([2, 3]),
    "depthwise": draw(8, 1, 3, 3), "slope": np.full((8, 1, 1), 0.2, np.float32), "up": draw(8, 4, 2, 2),
}  # fmt: skip
MOVED = ("QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput", "Softmax")


def arrays_of(body: str) -> dict[str, object]:
    return {name: array for name, array in ARRAYS.items() if name in body}


@pytest.mark.parametrize("body", INTEGER)
def test_between_convolutions_all_is_fused_that_has_a_kernel(body: str, tmp_path: Path) -> None:
    ends = {**ENDS, "w1": draw(8, 24, 1, 1) / 5} if "u,t,v" in body else ENDS
    text = f"a = Conv(x,w0,b0) {body} z = Conv(c,last) y = Softmax(z)"
    model = prepare(parse(text, **ENDS, **arrays_of(body), last=ends["w1"]), opset=17)
    ranges = observe(model, FEEDS, tmp_path)
    int8 = quantized(model, ranges, OnnxRuntime)
    layers = executed(int8, OnnxRuntime(), tmp_path)
    floats = {name.split(":")[0] for name in layers if name.endswith("fp32")}
    assert floats - set(MOVED) == INTEGER[body]
    assert layers["QuantizeLinear:fp32"] == 1 + (1 if INTEGER[body] else 0)
    wanted, got = (infer(each, FEEDS[0], tmp_path, "all")["y"] for each in (model, int8))
    assert signal_to_noise_db(wanted, got) > 30


def student_graph() -> ir.Model:
    torch.manual_seed(0)
    network = ResNet(depth=8, width=8).build(3, 10).eval()
    model = capture(network, torch.zeros(1, 3, 32, 32), 18, is_dynamic=False)
    tidy(model, name="student")
    return prepare(model, opset=18)


def test_the_students_export_is_fused_fully_on_both_runtimes(tmp_path: Path) -> None:
    model = student_graph()
    ranges = observe(model, [{"image": draw(1, 3, 32, 32)}], tmp_path)
    layers = executed(quantized(model, ranges, OnnxRuntime), OnnxRuntime(), tmp_path)
    assert {name: layers[name] for name in layers if name.startswith("Q")} == {
        "QLinearConv:int8": 9, "QLinearAdd:int8": 3, "QLinearGlobalAveragePool:int8": 1, "QGemm:int8": 1,
        "QuantizeLinear:fp32": 1,
    }  # fmt: skip
    assert "DequantizeLinear:fp32" not in layers
    pytest.importorskip("openvino")
    layers = executed(quantized(model, ranges, OpenVino), OpenVino(), tmp_path)
    assert (layers["Convolution:int8"], layers["FullyConnected:int8"]) == (9, 1)


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_every_encoding_is_near_the_float_model(kind: type[nn.Module], tmp_path: Path) -> None:
    model = capture(make_network(kind), torch.zeros(1, *IMAGE), 18, is_dynamic=False)
    tidy(model, name="test")
    model = prepare(model, opset=18)
    feeds = [{"image": draw(1, *IMAGE, seed=seed)} for seed in range(8)]
    ranges = observe(model, feeds, tmp_path)
    wanted = np.stack([infer(model, feed, tmp_path)["logits"] for feed in feeds])
    for target in TARGETS:
        int8 = quantized(model, ranges, target)
        got = np.stack([infer(int8, feed, tmp_path)["logits"] for feed in feeds])
        least_db = 22 if target.encoding.nonnegative == "int8" else 25  # a bit less of what is never negative
        assert signal_to_noise_db(wanted - wanted.mean(), got - wanted.mean()) > least_db, target.kind


def grids(model: ir.Model) -> Counter[str]:
    return operators(model) & Counter({"QuantizeLinear": 99})


def plain_quantized(model: ir.Model, ranges: dict[str, Range], *float_layers: str) -> ir.Model:
    copied = copy_of(model)
    quantize_graph(copied.graph, ranges, Scheme(), float_layers=frozenset(float_layers))
    return copied


def sources_of(model: ir.Model, name: str) -> list[str]:
    """Return the kinds of node that feed a node; initializers as such."""
    node = next(node for node in model.graph if node.name == name)
    producers = [value.producer() for value in node.inputs if value is not None]
    return ["initializer" if producer is None else producer.op_type for producer in producers]


def named() -> ir.Model:
    model = parse("a = Conv(x,w0,b0) r = Relu(a) c = Conv(r,w1) y = Conv(c,w1)", **ENDS)
    for node, name in zip(model.graph, ("block.0/Conv", "block.0/Relu", "block.01/Conv", "head"), strict=True):
        node.name = name
    return prepare(model, opset=17)


@pytest.mark.parametrize("plan", ["block.0", "block.0/Conv", "block.0/Relu"])
def test_a_layer_is_kept_in_float_by_name_by_prefix_and_by_what_is_fused_into_it(plan: str, tmp_path: Path) -> None:
    model = named()
    ranges = observe(model, FEEDS, tmp_path)
    kept = plain_quantized(model, ranges, plan)
    assert sources_of(kept, "block.0/Conv")[1] == "initializer"
    assert sources_of(kept, "block.01/Conv") == ["DequantizeLinear", "DequantizeLinear"]
    assert quantizable_layers(model.graph) == ("block.0/Conv", "block.01/Conv", "head")


def test_ranges_are_observed_once_for_every_plan(tmp_path: Path) -> None:
    body = "t = Conv(a,w0,b0) u = Add(t,a) r = Relu(u) m = MaxPool<kernel_shape=[2,2]>(r) c = Flatten(m)"
    model = prepare(parse(f"a = Conv(x,w0,b0) {body} y = MatMul(c,w)", **ENDS, w=draw(392, 4)), opset=17)
    names = observed_tensors(model.graph)
    ranges = observe(model, FEEDS, tmp_path)
    plans = [str(node.name) for node in model.graph]
    for plan in plans:
        assert grids(plain_quantized(model, ranges, plan))
        assert (
            signal_to_noise_db(
                infer(model, FEEDS[0], tmp_path)["y"],
                infer(plain_quantized(model, ranges, plan), FEEDS[0], tmp_path)["y"],
            )
            > 25
        )
    assert set(names) == set(ranges) == {"x", "a", "t", "r"}


def test_one_tensor_has_one_grid_and_what_only_moves_it_has_the_same() -> None:
    model = between("m = MaxPool<kernel_shape=[1,1]>(a) t = Conv(a,w1) u = Conv(m,w1) c = Add(t,u)")
    assert observed_tensors(model.graph) == ("x", "a", "t", "u", "c", "z")
    placed = plain_quantized(model, {name: Range(-1, 1) for name in observed_tensors(model.graph)})
    by_source = {node.inputs[0].name: node for node in placed.graph if node.op_type == "QuantizeLinear"}
    assert by_source["m"].inputs[1] is by_source["a"].inputs[1]
    assert set("xamtucz") <= set(by_source)


def test_what_the_graph_returns_is_float_and_what_float_operators_compute_is_left_alone() -> None:
    model = prepare(
        parse("a = Conv(x,w0,b0) e = Exp(a) s = Mul(e,e) y = Conv(s,w1)", outputs="float[] y, float[] a", **ENDS),
        opset=17,
    )
    assert observed_tensors(model.graph) == ("x", "a", "s")  # neither y, which ends the graph, nor e
    placed = plain_quantized(model, {name: Range(-1, 1) for name in observed_tensors(model.graph)})
    assert [value.producer().op_type for value in placed.graph.outputs] == ["Conv", "Conv"]


def test_a_grid_behind_a_clip_lies_inside_it() -> None:
    model = between("c = Clip(a,zero,six)", zero=np.float32(0), six=np.float32(6))
    placed = plain_quantized(model, {"x": Range(-1, 1), "c": Range(-0.1, 7.3), "z": Range(-1, 1)})
    grid = next(node for node in placed.graph if node.op_type == "QuantizeLinear" and node.inputs[0].name == "c")
    scale, zero_point = (constant(value) for value in grid.inputs[1:])
    assert 5.999 < scale * np.float32(255) <= 6
    assert (zero_point.dtype, int(zero_point)) == (np.uint8, 0)


ASYMMETRIC = Scheme(signed="asymmetric")
SKEWED = "s = Sigmoid(a) c = Mul(s,a)"  # SiLU: from -0.28 upwards


def on_grid(model: ir.Model, ranges: dict[str, Range], target: type[AnyTarget], scheme: Scheme) -> ir.Model:
    copied = copy_of(model)
    quantize_graph(copied.graph, ranges, scheme)
    encode(copied.graph, target.encoding)
    tidy(copied, name="test")
    return copied


def test_an_asymmetric_grid_has_its_zero_point_where_the_range_asks_for_it() -> None:
    model = between("c = LeakyRelu(a)")
    ranges = {"x": Range(0, 1), "a": Range(-1.0, 1.55), "c": Range(-0.1, 2.45), "z": Range(-1, 1)}
    placed = copy_of(model)
    quantize_graph(placed.graph, ranges, ASYMMETRIC)
    found = {
        node.inputs[0].name: (*(constant(value).item() for value in node.inputs[1:]), constant(node.inputs[2]).dtype)
        for node in placed.graph
        if node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is None
    }
    assert found["x"] == (pytest.approx(1 / 255), 0, np.uint8)
    assert found["a"] == (pytest.approx(0.01), 100, np.uint8)
    assert found["c"] == (pytest.approx(0.01), 10, np.uint8)


def test_skewed_ranges_alone_are_asymmetric_where_others_are_faster_symmetric() -> None:
    model = between("c = LeakyRelu(a)")
    ranges = {"x": Range(0, 1), "a": Range(-1.0, 3.9), "c": Range(-1.0, 4.1), "z": Range(-4.1, 1)}
    copied = copy_of(model)
    quantize_graph(copied.graph, ranges, Scheme(signed="skewed"))
    activations = (
        node for node in copied.graph if node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is None
    )
    zero_points = {node.inputs[0].name: constant(node.inputs[2]) for node in activations}
    assert {name: (str(z.dtype), int(z)) for name, z in zero_points.items()} == {
        "x": ("uint8", 0), "a": ("int8", 0), "c": ("uint8", 50), "z": ("uint8", 205),
    }  # fmt: skip


def test_onnx_runtime_fuses_asymmetric_grids_and_they_are_better_for_silu(tmp_path: Path) -> None:
    model = between(SKEWED)
    ranges = observe(model, FEEDS, tmp_path)
    wanted = infer(model, FEEDS[0], tmp_path)["y"]
    layers, noise = [], []
    for scheme in (Scheme(), ASYMMETRIC):
        int8 = on_grid(model, ranges, OnnxRuntime, scheme)
        layers.append(executed(int8, OnnxRuntime(), tmp_path))
        noise.append(signal_to_noise_db(wanted, infer(int8, FEEDS[0], tmp_path, "all")["y"]))
    assert layers[0] == layers[1]
    assert noise[1] > noise[0] + 1


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_every_encoding_takes_asymmetric_grids_and_keeps_its_own_types(target: type[AnyTarget], tmp_path: Path) -> None:
    model = between(SKEWED)
    int8 = on_grid(model, observe(model, FEEDS, tmp_path), target, ASYMMETRIC)
    dtypes = {str(constant(node.inputs[2]).dtype) for node in int8.graph if node.op_type == "QuantizeLinear"}
    assert dtypes <= {target.encoding.signed, target.encoding.nonnegative}
    assert ("uint8" in dtypes) == (target.encoding.nonnegative == "uint8")
    wanted, got = (infer(each, FEEDS[0], tmp_path)["y"] for each in (model, int8))
    assert signal_to_noise_db(wanted, got) > 25


AXES = {  # channels of outputs, and so of scales
    "y = Gemm(x,w)": ((8, 5), 5),
    "y = Gemm<transB=1>(x,w)": ((5, 8), 5),
    "y = MatMul(x,w)": ((8, 5), 5),
    "t = Unsqueeze(x,axes) y = MatMul(t,w)": ((3, 8, 5), 5),
}


@pytest.mark.parametrize("body", AXES)
def test_weights_of_products_have_a_scale_a_column_of_the_result(body: str, tmp_path: Path) -> None:
    shape, channels = AXES[body]
    weights = draw(*shape) * (np.geomspace(1, 1e4, channels).reshape((-1, 1) if "transB" in body else -1)).astype("f")
    axes = {"axes": np.array([0])} if "axes" in body else {}
    model = prepare(parse(body, inputs="float[3,8] x", w=weights, **axes), opset=17)
    feeds = {"x": draw(3, 8, seed=1)}
    placed = quantized(model, observe(model, [feeds], tmp_path), OnnxRuntime)
    wanted, got = (infer(each, feeds, tmp_path)["y"].reshape(-1, channels) for each in (model, placed))
    assert all(signal_to_noise_db(wanted[:, i], got[:, i]) > 25 for i in range(channels))


def test_tied_weights_serve_a_lookup_in_float_and_a_product_in_int8(tmp_path: Path) -> None:
    body = "t = Gather(w,i) u = MatMul(t,v) y = Gemm<transB=1>(u,w)"
    model = parse(body, inputs="int64[3] i", w=draw(20, 8), v=draw(8, 8))
    model = prepare(model, opset=17)
    feeds = {"i": np.array([0, 3, 19])}
    ranges = observe(model, [feeds], tmp_path)
    int8 = quantized(model, ranges, OnnxRuntime)
    assert sorted(str(constant(v).dtype) for v in int8.graph.initializers.values() if constant(v).ndim == 2) == [
        "float32", "int8", "int8",
    ]  # fmt: skip
    wanted, got = (infer(each, feeds, tmp_path)["y"] for each in (model, int8))
    assert signal_to_noise_db(wanted, got) > 30


def test_a_bias_behind_a_product_of_any_rank_is_part_of_it(tmp_path: Path) -> None:
    model = parse("t = MatMul(x,w) y = Add(b,t)", inputs="float[2,3,8] x", w=draw(8, 5), b=draw(5))
    model = prepare(model, opset=17)
    assert quantizable_layers(model.graph) == (model.graph[0].name,)
    feeds = {"x": draw(2, 3, 8)}
    int8 = quantized(model, observe(model, [feeds], tmp_path), OnnxRuntime)
    assert executed(int8, OnnxRuntime(), tmp_path)["QGemm:int8"] == 1
    wanted, got = (infer(each, feeds, tmp_path)["y"] for each in (model, int8))
    assert signal_to_noise_db(wanted, got) > 30


def test_constant_dead_and_tied_channels_have_a_defined_grid(tmp_path: Path) -> None:
    dead = ENDS["w0"] * (np.arange(8) != 3).reshape(-1, 1, 1, 1)
    model = prepare(parse("a = Conv(x,w0,b0) r = Relu(a) c = Mul(r,z) y = Conv(c,w1)", **{**ENDS, "w0": dead},
                          z=np.zeros((1, 1, 8, 1), "f")), opset=17)  # fmt: skip
    ranges = observe(model, FEEDS, tmp_path)
    assert ranges["c"] == Range(0.0, 0.0)
    assert not infer(quantized(model, ranges, OnnxRuntime), FEEDS[0], tmp_path)["y"].any()


@pytest.mark.parametrize("limits", [Range(float("nan"), 1), Range(0, float("inf")), Range(0, 1e39)], ids=str)
def test_a_range_that_is_no_range_is_refused_by_the_tensors_name(limits: Range) -> None:
    with pytest.raises(RecipeError, match=r"model: x: expected a .*range"):
        plain_quantized(named(), dict.fromkeys(observed_tensors(named().graph), limits))


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = prepare(parse("y = Conv(x,w0,b0)", **{**ENDS, "w0": np.full((8, 8, 1, 1), np.nan, "f")}), opset=17)
    with pytest.raises(RecipeError, match=r"model: w0: expected finite weights; got NaN"):
        plain_quantized(model, {"x": Range(-1, 1)})


NOTHING = {
    "no weights": ("y = Exp(x)", {}),
    "float16": ("t = Cast<to=10>(x) u = Conv(t,h) y = Cast<to=1>(u)", {"h": draw(8, 8, 1, 1).astype(np.float16)}),
    "weights that are computed from the input": ("y = Conv(x,x)", {}),
    "another domain": ("y = mine.Conv(x,w)", {"w": draw(8, 8, 1, 1)}),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_model_without_a_layer_to_quantize_is_refused(case: str) -> None:
    body, arrays = NOTHING[case]
    model = parse(body, **arrays)
    assert quantizable_layers(model.graph) == ()
    with pytest.raises(RecipeError, match="expected at least one convolution or matrix product in float32"):
        plain_quantized(model, {})


REAL = {  # measured 2026-11 with drawn pixels: what a right file reaches, less 3 dB
    "ultraface_slim_320_simplified.onnx": (27, 42),
    "fastestdet.onnx": (11, 70),
    "light_squeezenet.onnx": (40, 26),
    "light_shufflenet.onnx": (40, 49),
    "yolox_nano.onnx": (5, 113),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", [OnnxRuntime(), OpenVino()], ids=lambda target: target.kind)
@pytest.mark.parametrize("name", REAL)
def test_real_models_run_in_int8_near_their_float_outputs(
    name: str, target: AnyTarget, shared_data: Path, tmp_path: Path
) -> None:
    noise_db, convolutions = REAL[name]
    model = prepare(ir.load(shared_data / "onnx_models" / name), opset=13)
    source = model.graph.inputs[0]
    sizes = [size if isinstance(size, int) else 1 for size in source.shape]
    feeds = [
        {source.name: np.random.default_rng(seed).random(sizes, np.float32) * (255 if "yolox" in name else 1)}
        for seed in range(5)
    ]
    int8 = quantized(model, observe(model, feeds[1:], tmp_path), type(target))
    wanted, got = (infer(each, feeds[0], tmp_path) for each in (model, int8))
    assert min(signal_to_noise_db(wanted[output], got[output]) for output in wanted) > noise_db
    layers = executed(int8, target, tmp_path)
    assert layers["QLinearConv:int8"] + layers["Convolution:int8"] == convolutions
