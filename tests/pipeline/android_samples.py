"""Releases of ONNX Runtime whose images are no square, read as a packager reads them."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sample_release import CARD, LICENCES, compiled_model, passed_report

from pipeline.budget import Budget, LatencyBudget, Scope
from pipeline.release.golden import make_golden
from pipeline.release.manifest import Interface
from pipeline.release.payload import Payload, read_payload
from pipeline.stages.package_release import Papers, package_release
from targets.processing import Processing
from targets.target import TensorSpec

HEIGHT, WIDTH, CHANNELS = 5, 4, 3
LABELS = ("none", 'a "quoted" \\ one', "größer")
SAMPLES = 4

Layout = Literal["float32_nchw", "uint8_nhwc"]


def sample_payload(
    folder: Path,
    layout: Layout = "float32_nchw",
    batch: int | None = None,
    *,
    scope: Scope = "model",
    licence: str = "Apache-2.0",
) -> Payload:
    """Return a release of a linear model with random weights, and with what it answers to random images."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    weights = random.normal(size=(HEIGHT * WIDTH * CHANNELS, len(LABELS))).astype(np.float32) / 10
    images = random.integers(0, 256, (SAMPLES, HEIGHT, WIDTH, CHANNELS), np.uint8)
    interface = _interface(layout, batch)
    pixels = interface.processing.preprocess(images).astype(np.float32) / (255 if layout == "uint8_nhwc" else 1)
    logits = pixels.reshape(SAMPLES, -1) @ weights
    model = replace(compiled_model(folder, _model(interface, weights), "onnxruntime"), runtime_version=_installed())
    papers = Papers(
        interface=interface,
        budget=Budget(latency=LatencyBudget(max_ms=5, scope=scope)),
        card=CARD,
        licences=LICENCES.model_copy(update={"model": licence}),
        golden=make_golden(interface, images, logits, step=0.0, noise=1e-4),
    )
    report = passed_report(model).model_copy(update={"licence": licence})
    return read_payload(package_release(folder, model, papers, report=report, report_html=b"page").path)


def _interface(layout: Layout, batch: int | None) -> Interface:
    floats = layout == "float32_nchw"
    shape = (batch, CHANNELS, HEIGHT, WIDTH) if floats else (batch, HEIGHT, WIDTH, CHANNELS)
    deviations, means = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])
    scale, bias = 1 / (255 * deviations), -means / deviations
    return Interface(
        inputs=(TensorSpec("image", "float32" if floats else "uint8", shape),),
        outputs=(TensorSpec("logits", "float32", (batch, len(LABELS))),),
        processing=Processing(scale=tuple(scale.tolist()), bias=tuple(bias.tolist()), input=layout),
        labels=LABELS,
    )


def _model(interface: Interface, weights: np.ndarray) -> bytes:
    image, output = interface.inputs[0], interface.outputs[0]
    element = onnx.TensorProto.UINT8 if image.dtype == "uint8" else onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", [image.name], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [output.name]),
    ]
    inputs = [helper.make_tensor_value_info(image.name, element, image.shape)]
    outputs = [helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, output.shape)]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.doc_string = " " * 5000  # worth compressing, as the tools of apps do where nobody tells them not to
    return bytes(model.SerializeToString())


def _installed() -> str:
    """Return the version that may write model.ort of this release."""
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return "1.30.0"
