"""Float and int8 exports of the small networks, made once a test run; every call gives a fresh copy."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from edge_networks import build
from small_networks import IMAGE, make_images
from torch import nn

from calibration.scheme import Scheme
from pipeline.export.capture import capture
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import restore_grids
from pipeline.training.quantized_model import make_quantized
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions, Target

IMAGES = make_images(16, seed=1)


@cache
def quantized(kind: type[nn.Module]) -> nn.Module:
    """Return the network on its calibrated grid."""
    network = make_quantized(build(kind), Scheme())
    calibrate(network, lambda index: make_images(64)[index], 64, Calibration())
    restore_grids(network)
    return network.eval().requires_grad_(False)


def captured(kind: type[nn.Module], *, is_int8: bool) -> ir.Model:
    """Return the graph as it was captured at opset 18, with an open batch."""
    return ir.from_proto(onnx.ModelProto.FromString(_captured(kind, is_int8)))


@cache
def _captured(kind: type[nn.Module], is_int8: bool) -> bytes:
    network = quantized(kind) if is_int8 else build(kind)
    return ir.to_proto(capture(network, torch.zeros(2, *IMAGE), 18, is_dynamic=True)).SerializeToString()


def infer(model: ir.Model, path: Path, feeds: dict[str, np.ndarray], target: Target | None = None) -> np.ndarray:
    """Check a model, and return its only output on a runtime; ONNX Runtime as written, unless told otherwise."""
    model.ir_version = 10
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    target = target or OnnxRuntime(graph_optimization="none")
    outputs = target.open(path, RunOptions()).bind(feeds)()
    return next(iter(outputs.values())).copy()


def parse(text: str, *, opset: int) -> ir.Model:
    """Return a model from ONNX's own notation of a graph; every node is named by its place."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))
