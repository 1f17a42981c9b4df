"""Plans as files on a device: built once, timed in turns, and judged against the float model."""

from pathlib import Path

import onnx
import pytest
from calibrated_files import RandomImages, calibrated_file

from pipeline.artifacts import OnnxFile, Ranges
from pipeline.errors import RecipeError
from pipeline.precision.plan import Plan
from pipeline.precision.workbench import NO_ERROR_DB, Exam, OnnxWorkbench
from targets.devices.device import open_device
from targets.null import Null
from targets.target import RunOptions

FP32, INT8, DYNAMIC = Plan("fp32"), Plan("int8"), Plan("int8_dynamic")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxFile, Ranges]:
    return calibrated_file(tmp_path_factory.mktemp("calibrated"))


def workbench(calibrated: tuple[OnnxFile, Ranges], folder: Path, exam: Exam | None = None) -> OnnxWorkbench:
    device = open_device("local", folder / "work")
    return OnnxWorkbench(*calibrated, Null(), device, 1, exam or Exam(RandomImages(), max_drop=0.1), folder)


def test_every_plan_has_a_latency_in_every_round(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    rows = workbench(calibrated, tmp_path).compare([FP32, INT8], rounds=3)
    assert [len(row) for row in rows] == [3, 3]
    assert min(map(min, rows)) > 0


def test_what_cannot_be_built_or_run_has_none_and_a_reason(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    bench = workbench(calibrated, tmp_path)
    rows = bench.compare([FP32, DYNAMIC, Plan("bf16"), INT8], rounds=2)
    assert [len(row) for row in rows] == [2, 0, 0, 2]
    assert "expected a model with a linear layer" in bench.refusals[DYNAMIC]
    assert "expected fp32, which null evaluates in" in bench.refusals[Plan("bf16")]
    with pytest.raises(RecipeError, match="linear layer"):
        bench.compare([DYNAMIC, FP32], rounds=2)


def test_float_is_without_error_and_int8_is_a_little_off(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    bench = workbench(calibrated, tmp_path)
    exact, rounded = bench.judge(FP32), bench.judge(INT8)
    assert (exact.drop, exact.error_db, exact.holds) == (0.0, NO_ERROR_DB, True)
    assert -60 < rounded.error_db < -25  # 8 bits round by 1/sqrt(12) LSB: about -50 dB a tensor of full range


def test_an_estimate_on_the_host_is_close_to_the_judgement_on_the_device(
    calibrated: tuple[OnnxFile, Ranges], tmp_path: Path
) -> None:
    bench = workbench(calibrated, tmp_path)
    assert bench.estimate(INT8).error_db == pytest.approx(bench.judge(INT8).error_db, abs=0.5)  # codes flip by one
    assert bench.num_estimated == 12


def test_a_layer_in_float_is_built_so_and_parts_less(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    bench = workbench(calibrated, tmp_path)
    mixed = Plan("int8", frozenset({"first"}))
    inputs = {node.name: node.input[1] for node in onnx.load(bench.build(mixed)).graph.node if node.op_type == "Conv"}
    assert inputs["first"] == "first.weight"
    assert inputs["second"] != "second.weight"
    assert bench.estimate(mixed).error_db < bench.estimate(INT8).error_db


def test_limits_of_error_and_size_are_limits(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    assert not workbench(calibrated, tmp_path, Exam(RandomImages(), 1.0, max_error_db=-90.0)).judge(INT8).holds
    assert not workbench(calibrated, tmp_path / "b", Exam(RandomImages(), 1.0, max_bytes=10)).judge(INT8).holds


def test_with_labels_a_drop_is_of_accuracy(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    bench = workbench(calibrated, tmp_path)
    outputs = bench.device.infer(Null(), bench.build(INT8), RunOptions(), bench._feeds)
    right_in_int8 = tuple(next(iter(outputs.values())).argmax(axis=1).tolist())
    judged = workbench(calibrated, tmp_path / "b", Exam(RandomImages(), 1.0, labels=right_in_int8)).judge(INT8)
    assert judged.drop <= 0  # nobody is better than one who is always right


def test_what_is_beside_int8_is_pinned(calibrated: tuple[OnnxFile, Ranges], tmp_path: Path) -> None:
    bench = workbench(calibrated, tmp_path)
    pinned = [bench.options(plan).precision for plan in (INT8, Plan("int8", rest="bf16"), Plan("bf16"), DYNAMIC)]
    assert pinned == ["fp32", "bf16", "bf16", "fp32"]
