"""Equalised channels: the same function, and no grid that serves one channel at the cost of another."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import copy_of, draw, infer, observe, parse, quantized, signal_to_noise_db

from pipeline.export.equalize import equalize, find_links
from pipeline.export.prepare import prepare
from targets.onnxruntime import OnnxRuntime

pytest.importorskip("onnxruntime")

FEEDS = [{"x": draw(1, 8, 8, 8, seed=seed)} for seed in range(4)]
SPREAD = np.geomspace(1, 1000, 8).astype(np.float32)  # of channels: what folding a BatchNorm often leaves
WEIGHTS = {
    "w0": draw(8, 8, 1, 1, seed=1) * SPREAD.reshape(-1, 1, 1, 1), "b0": draw(8, seed=2) * SPREAD,
    "dw": draw(8, 1, 3, 3, seed=4) / SPREAD.reshape(-1, 1, 1, 1), "b1": draw(8, seed=5),
    "w2": draw(6, 8, 1, 1, seed=6) / SPREAD.reshape(1, -1, 1, 1),
    "w3": draw(6, 4, 1, 1, seed=7) / np.repeat(SPREAD.reshape(2, 4, 1, 1), 3, axis=0),
    "s": np.full((8, 1, 1), 0.3, np.float32),
}  # fmt: skip
DEPTHWISE = "y = Conv<group=8>(r,dw,b1)"
LINKED = {
    f"a = Conv(x,w0,b0) r = Relu(a) {DEPTHWISE}": ("r",),
    f"a = Conv(x,w0) r = MaxPool<kernel_shape=[2,2]>(a) {DEPTHWISE}": ("r",),
    "a = Conv(x,w0,b0) r = LeakyRelu<alpha=0.2>(a) y = Conv(r,w2)": ("r",),
    "a = Conv(x,w0,b0) y = Conv<group=2>(a,w3)": ("a",),
    "a = Conv(x,w0,b0) t = Conv(a,w2) r = Relu(a) u = Conv<group=2>(r,w3) y = Add(t,u)": ("a", "r"),
}
NOT_LINKED = (
    f"a = Conv(x,w0,b0) r = Sigmoid(a) {DEPTHWISE}",
    f"a = Conv(x,w0,b0) r = PRelu(a,s) {DEPTHWISE}",
    "a = Conv(x,w0,b0) r = Relu(a) t = Conv<group=8>(r,dw,b1) y = Add(t,r)",
    "a = Conv(x,w0,b0) r = Relu(a) t = Conv(r,w0,b0) y = Relu(t)",
)


def model_of(body: str) -> ir.Model:
    used = {name: array for name, array in WEIGHTS.items() if f"{name}," in body or f"{name})" in body}
    return prepare(parse(f"{body}", **used), opset=17)


def equalized(model: ir.Model, folder: Path) -> ir.Model:
    copied = copy_of(model)
    links = find_links(copied.graph)
    names = tuple(name for link in links for name in link.tensors)
    probed = copy_of(model)
    values = {value.name: value for node in probed.graph for value in node.outputs}
    probed.graph.outputs.extend(values[name] for name in names)
    seen = [infer(probed, each, folder) for each in FEEDS]
    equalize(links, {name: np.max([np.abs(each[name]).max(axis=(0, 2, 3)) for each in seen], axis=0) for name in names})
    return copied


@pytest.mark.parametrize("body", LINKED)
def test_the_model_computes_the_same_and_its_int8_form_far_better(body: str, tmp_path: Path) -> None:
    model = model_of(body)
    assert tuple(name for link in find_links(model.graph) for name in link.tensors) == LINKED[body]
    even = equalized(model, tmp_path)
    wanted = infer(model, FEEDS[0], tmp_path)["y"]
    np.testing.assert_allclose(
        infer(even, FEEDS[0], tmp_path)["y"], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max()
    )
    before, after = (
        signal_to_noise_db(
            wanted, infer(quantized(each, observe(each, FEEDS, tmp_path), OnnxRuntime), FEEDS[0], tmp_path)["y"]
        )
        for each in (model, even)
    )
    assert after > before + 3


@pytest.mark.parametrize("body", NOT_LINKED)
def test_what_is_not_linear_in_the_size_shared_or_read_by_others_is_left_alone(body: str) -> None:
    assert find_links(model_of(body).graph) == ()


def test_channels_before_a_depthwise_convolution_become_equal_and_dead_ones_stay(tmp_path: Path) -> None:
    dead = {**WEIGHTS, "w0": WEIGHTS["w0"] * (np.arange(8) != 3).reshape(-1, 1, 1, 1).astype("f")}
    dead["b0"] = WEIGHTS["b0"] * (np.arange(8) != 3)
    used = {name: dead[name].astype(np.float32) for name in ("w0", "b0", "dw", "b1")}
    model = prepare(parse(f"a = Conv(x,w0,b0) r = Relu(a) {DEPTHWISE}", **used), opset=17)
    even = equalized(model, tmp_path)
    even.graph.outputs.append(next(node for node in even.graph if node.op_type == "Relu").outputs[0])
    sizes = np.max([infer(even, each, tmp_path)["r"].max(axis=(0, 2, 3)) for each in FEEDS], axis=0)
    assert sizes[3] == 0
    np.testing.assert_allclose(np.delete(sizes, 3), sizes[0], rtol=1e-4)
