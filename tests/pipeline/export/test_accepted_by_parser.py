"""What is exported for TensorRT is accepted by NVIDIA's parser and builder: every network, both ways, every form."""

from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from calibrated_students import calibrated_student
from onnx_graphs import observe, quantized

from pipeline.export.capture import capture
from pipeline.export.input_form import take_bytes
from pipeline.export.opset import lower
from pipeline.export.prepare import prepare
from pipeline.models import AnyModel
from pipeline.models.mobilenet import MobileNetV2, MobileNetV3
from pipeline.models.resnet import ResNet
from pipeline.models.vit import VisionTransformer
from pipeline.stages.export_onnx import Export, export_onnx
from targets.processing import Processing
from targets.tensorrt import TensorRt

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'edgeproof[tensorrt-check]'")

CLASSES, SIZE = 5, 16
IMAGES = torch.randn(32, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
PROCESSING = Processing(scale=(1 / 60, 1 / 61, 1 / 62), bias=(-2.0, -2.1, -1.9))
MODELS: dict[str, AnyModel] = {
    "resnet8": ResNet(depth=8, width=8),
    "resnet8_padded": ResNet(depth=8, width=8, shortcut="A"),
    "resnet20": ResNet(depth=20, width=8),
    "mobilenet_v2": MobileNetV2(width=0.25),
    "mobilenet_v3": MobileNetV3(width=0.25),  # hardswish, squeeze-excite
    "vit": VisionTransformer(image_size=SIZE, width=48, depth=2),
    "vit_class_token": VisionTransformer(image_size=SIZE, width=48, depth=1, pooling="class_token", stem="patches"),
}
QUICK = ("resnet8", "static", "uint8_nhwc")
CASES = [
    pytest.param(name, batch, form, marks=() if (name, batch, form) == QUICK else pytest.mark.slow)
    for name in MODELS
    for batch in ("static", "dynamic")
    for form in ("float32_nchw", "uint8_nhwc")
]


def require_accepted(path: Path) -> None:
    model = onnx.load(path)
    assert {each.version for each in model.opset_import} == {TensorRt.highest_opset}
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    acceptance = TensorRt().check_model(path, {}, timeout_s=300)
    assert (acceptance.verdict, acceptance.objections) == ("accepted", ())
    assert acceptance.size_bytes


@pytest.mark.parametrize(("name", "batch", "form"), CASES)
def test_what_was_trained_is_accepted(name: str, batch: str, form: str, tmp_path: Path) -> None:
    trained = calibrated_student(tmp_path, MODELS[name], IMAGES, CLASSES)
    model = export_onnx(
        tmp_path,
        trained,
        Export(batch=batch, input=form),
        encoding=TensorRt.encoding,
        highest_opset=TensorRt.highest_opset,
        processing=PROCESSING,
    )
    require_accepted(model.path)


@pytest.mark.parametrize(("name", "batch", "form"), CASES)
def test_what_was_quantized_after_training_is_accepted(name: str, batch: str, form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    prepared = ir.from_proto(_prepared(name, batch))
    feeds = [{"image": image[None].numpy()} for image in IMAGES[:8]]
    model = quantized(prepared, observe(prepared, feeds, tmp_path), TensorRt)
    lower(model, TensorRt.highest_opset)
    if form == "uint8_nhwc":
        take_bytes(model.graph, PROCESSING, has_uint8=False)
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(model), path)
    require_accepted(path)


@cache
def _prepared(name: str, batch: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = MODELS[name].build(3, CLASSES).eval()
    example = torch.zeros(1 if batch == "static" else 2, 3, SIZE, SIZE)
    return ir.to_proto(prepare(capture(network, example, 18, is_dynamic=batch == "dynamic"), opset=13))
