"""What is quantized after training is written in an opset that the target reads."""

from pathlib import Path

import onnx
import pytest
from calibrated_files import calibrated_file

from pipeline.artifacts import OnnxFile, Ranges
from pipeline.errors import RecipeError
from pipeline.export.source import opset_of
from pipeline.precision.build import build_plan
from pipeline.precision.plan import Plan
from pipeline.stages.quantize_onnx import quantize_onnx
from targets.null import Null
from targets.tensorrt import TensorRt


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxFile, Ranges]:
    return calibrated_file(tmp_path_factory.mktemp("calibrated"))


@pytest.mark.parametrize(("highest", "written"), [(17, 17), (21, 19)])
def test_the_opset_is_lowered_where_the_target_reads_older_ones_only(
    calibrated: tuple[OnnxFile, Ranges], highest: int, written: int, tmp_path: Path
) -> None:
    found = quantize_onnx(tmp_path, *calibrated, TensorRt.scheme, TensorRt.encoding, highest_opset=highest)
    assert (calibrated[0].opset, found.opset, opset_of(onnx.load(found.path))) == (19, written, written)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_precision_of_a_search_is_written_so(
    calibrated: tuple[OnnxFile, Ranges], precision: str, tmp_path: Path
) -> None:
    for target, written in ((TensorRt(), 17), (Null(), 19)):
        found = build_plan(*calibrated, target, Plan(precision), tmp_path, scheme=target.scheme)
        assert found.opset == opset_of(onnx.load(found.path)) == written


def test_an_operator_that_the_target_cannot_read_is_named(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    prepared, ranges = calibrated
    model = onnx.load(prepared.path)
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    attributes = {"num_groups": 1}
    pool.CopyFrom(
        onnx.helper.make_node("GroupNormalization", [pool.input[0], "one", "one"], pool.output, "norm", **attributes)
    )
    model.graph.initializer.append(onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0]))
    path = tmp_path / "norm.onnx"
    onnx.save(model, path)
    newer = OnnxFile(path, "", 0, 19, "fp32", prepared.inputs, prepared.outputs)
    with pytest.raises(RecipeError, match=r"node norm: .*opset 17, .*GroupNormalization"):
        quantize_onnx(tmp_path, newer, ranges, TensorRt.scheme, TensorRt.encoding, highest_opset=17)
