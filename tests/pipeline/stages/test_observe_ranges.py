"""Calibration of ONNX files: ranges are those of the float model's tensors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from small_models import two_convolutions

from calibration.ranges import MinMax
from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile
from pipeline.errors import DataError
from pipeline.export.onnx_file import write_onnx
from pipeline.export.source import read_source
from pipeline.export.tapped import Evaluator
from pipeline.stages.observe_ranges import observe_ranges
from pipeline.stages.prepare_onnx import prepare_onnx
from pipeline.stages.quantize_onnx import quantize_onnx
from pipeline.tasks.feeds import ArrayFeeds, Row
from targets import Null, OnnxRuntime

EVALUATOR = Evaluator(Null(), "any")


@dataclass(frozen=True)
class Calibration:
    prepared: OnnxFile
    feeds: ArrayFeeds
    images: np.ndarray


@pytest.fixture
def calibration(tmp_path: Path) -> Calibration:
    onnx.save(two_convolutions(normalized=True), tmp_path / "given.onnx")
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    (tmp_path / "prepared").mkdir()
    prepared = prepare_onnx(tmp_path / "prepared", read_source(tmp_path / "given.onnx"), opset=13)
    rows = tuple(Row((tmp_path / "images.npz",), place) for place in range(4))
    return Calibration(prepared, ArrayFeeds(prepared.inputs, rows), images)


def test_min_max_ranges_are_the_extremes_that_onnxruntime_computes(calibration: Calibration, tmp_path: Path) -> None:
    found = observe_ranges(tmp_path, calibration.prepared, calibration.feeds, MinMax(), Scheme(), EVALUATOR)
    ranges = {tensor.name: (tensor.low, tensor.high) for tensor in found.tensors}
    model = onnx.load(calibration.prepared.path)
    names = [name for name in ranges if name != "image"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = [session.run(names, {"image": image[None]}) for image in calibration.images]
    for name, of_images in zip(names, zip(*values, strict=True), strict=True):
        assert ranges[name] == pytest.approx((np.min(of_images), np.max(of_images)), rel=1e-5, abs=1e-6)
    assert ranges["image"] == (calibration.images.min(), calibration.images.max())
    assert len(names) >= 2


def test_a_layer_of_the_plan_stays_float_and_the_other_becomes_int8(calibration: Calibration, tmp_path: Path) -> None:
    ranges = observe_ranges(tmp_path, calibration.prepared, calibration.feeds, MinMax(), Scheme(), EVALUATOR)
    target = OnnxRuntime()
    found = quantize_onnx(
        tmp_path, calibration.prepared, ranges, target.scheme, target.encoding, ("second",), highest_opset=21
    )
    model = onnx.load(found.path)
    weights = {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}
    kinds = sorted(str(dtype) for dtype in weights.values() if dtype in (np.int8, np.float32))
    convolutions = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    assert weights[convolutions["second"]] == np.float32
    assert "int8" in kinds
    assert convolutions["first"] not in weights  # it comes out of a DequantizeLinear


def test_a_tensor_that_is_not_finite_is_named_with_its_sample(calibration: Calibration, tmp_path: Path) -> None:
    model = onnx.load(calibration.prepared.path)
    for tensor in model.graph.initializer:
        if numpy_helper.to_array(tensor).ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e38), tensor.name))
    broken = write_onnx(model, tmp_path / "broken.onnx", precision="fp32")
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"tensor '\w+' of sample 1: .* infinite"):
        observe_ranges(tmp_path, broken, calibration.feeds, MinMax(), Scheme(), EVALUATOR)
