"""The gate: a student of ReLUs runs in int8 as a whole, on every runtime that is there."""

from pathlib import Path

import pytest
import torch
from calibrated_students import calibrated_student

from pipeline.fusion.prove import prove_fusion
from pipeline.models.resnet import ResNet
from pipeline.stages.export_onnx import Export, export_onnx
from targets import AnyTarget, OnnxRuntime, OpenVino
from targets.target import RunOptions


@pytest.mark.parametrize("target", [OnnxRuntime(), OpenVino()], ids=lambda target: target.kind)
def test_resnet_8_has_no_stray_qdq_and_no_float_island(target: AnyTarget, tmp_path: Path) -> None:
    pytest.importorskip(target.kind)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trained = calibrated_student(tmp_path, ResNet(depth=8, width=16), images, 10)
    model = export_onnx(tmp_path, trained, Export(), encoding=target.encoding, highest_opset=target.highest_opset)
    proof = prove_fusion(target.inspect(model.path, RunOptions()), model.path, target)
    assert (proof.strays, proof.islands) == ((), ())
    assert (proof.conversions, proof.float_operators) == (1, 0)  # the image alone is quantized by itself
    assert proof.int8_operators == proof.num_operators - 1
