"""The int8 file of CIFAR's ResNet-20 is small for every runtime, trained or quantized after training."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from calibration.scheme import Scheme
from pipeline.artifacts import ObservedTensor, Ranges
from pipeline.export.capture import capture
from pipeline.export.encode import encode
from pipeline.export.opset import lower
from pipeline.export.place_onnx import observed_tensors
from pipeline.export.prepare import prepare
from pipeline.export.rewrite import rewrite
from pipeline.export.tidy import tidy
from pipeline.models.resnet import ResNet
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import restore_grids
from pipeline.training.quantized_model import make_quantized
from targets import TARGETS, AnyTarget

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LARGEST = 300_000
"""270,896 weights of a byte, and 12 bytes a channel for its bias and two scales, are 280,424."""


@cache
def network() -> nn.Module:
    """Return ResNet-20 with convolutions in its shortcuts; no size depends on its weights."""
    torch.manual_seed(0)
    return ResNet(depth=20, width=16).build(3, 10).eval()


@cache
def exported(*, is_trained: bool) -> bytes:
    model = network()
    if is_trained:
        model = make_quantized(model, Scheme())
        calibrate(model, lambda index: IMAGES[index], len(IMAGES), Calibration())
        restore_grids(model)
    model = model.eval().requires_grad_(False)
    return ir.to_proto(capture(model, IMAGES[:1], 21, is_dynamic=False)).SerializeToString()


def observed(graph: ir.Graph) -> Ranges:
    """Return ranges that all differ: equal ones would share a grid."""
    tensors = [
        ObservedTensor(
            name,
            low=-1 - index / 100,
            high=1 + index / 100,
            outlier_ratio=None,
            kurtosis=3.0,
            clipped_share=0.0,
            zero_channels=0,
            num_channels=1,
            is_constant=False,
        )
        for index, name in enumerate(observed_tensors(graph))
    ]
    return Ranges(tensors=tuple(tensors), num_samples=1, cautions=())


def trained_file(target: type[AnyTarget]) -> onnx.ModelProto:
    model = ir.from_proto(onnx.ModelProto.FromString(exported(is_trained=True)))
    lower(model, target.highest_opset)
    tidy(model, name="edgeproof")
    encode(model.graph, target.encoding)
    tidy(model, name="edgeproof")
    return ir.to_proto(model)


def file_of_onnx(target: type[AnyTarget]) -> onnx.ModelProto:
    model = ir.from_proto(onnx.ModelProto.FromString(exported(is_trained=False)))
    tidy(model, name="edgeproof")
    model = prepare(model, opset=13)
    rewrite(
        model,
        "int8",
        ranges=observed(model.graph),
        scheme=target.post_training_scheme,
        encoding=target.encoding,
        highest_opset=target.highest_opset,
    )
    return ir.to_proto(model)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("write", [pytest.param(trained_file, marks=pytest.mark.slow), file_of_onnx])
def test_the_int8_file_of_resnet_20_is_small(
    write: Callable[[type[AnyTarget]], onnx.ModelProto], target: type[AnyTarget]
) -> None:
    proto = write(target)
    onnx.checker.check_model(proto, full_check=True)
    codes = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(np.prod(tensor.dims) for tensor in codes if len(tensor.dims) > 1) == 270_896
    assert proto.ByteSize() < LARGEST
    assert not proto.graph.value_info
