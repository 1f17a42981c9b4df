"""A precision chosen on a device, and the sensitivity of each layer."""

from pathlib import Path

import onnx
import pytest
from calibrated_files import RandomImages, calibrated_file
from small_models import SIZE, two_convolutions

from pipeline.artifacts import OnnxFile, PrecisionChoice, Ranges
from pipeline.export.onnx_file import write_onnx
from pipeline.precision.plan import Plan
from pipeline.precision.workbench import Exam
from pipeline.site import Site
from pipeline.stages.choose_precision import choose_precision, plan_of
from pipeline.stages.measure_sensitivity import measure_sensitivity, times_of
from targets.devices.device import open_device
from targets.null import Null
from targets.onnxruntime import OnnxRuntime
from targets.target import Layer


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxFile, Ranges]:
    return calibrated_file(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    device = open_device("local", tmp_path_factory.mktemp("work"))
    return Site(device, device.probe(Null()))


@pytest.fixture(scope="module")
def choice(
    calibrated: tuple[OnnxFile, Ranges], site: Site, tmp_path_factory: pytest.TempPathFactory
) -> PrecisionChoice:
    exam = Exam(RandomImages(), max_drop=1.0)
    folder = tmp_path_factory.mktemp("out")
    return choose_precision(folder, *calibrated, Null(), site, exam, threads=1, with_mixtures=False)


def test_what_was_not_faster_does_not_ship(choice: PrecisionChoice) -> None:
    assert plan_of(choice) == Plan("fp32")  # as written, int8 computes the same convolutions and Q/DQ beside them
    assert choice.layers == ("first", "second")
    assert choice.finalists[0].ratio == 1.0


def test_everything_that_was_tried_is_told(choice: PrecisionChoice) -> None:
    tried = {plan_of(each) for each in (*choice.finalists, *choice.explored)}
    assert tried == {Plan("fp32"), Plan("int8")}  # no linear layer, so nothing dynamic
    assert choice.refusals == ()
    assert not choice.has_labels


def test_each_layer_has_an_error_and_its_share_of_the_weights(
    calibrated: tuple[OnnxFile, Ranges], site: Site, tmp_path: Path
) -> None:
    done: list[int] = []
    found = measure_sensitivity(
        tmp_path,
        *calibrated,
        Null(),
        site,
        Exam(RandomImages(), max_drop=1.0),
        threads=1,
        on_progress=lambda count, total, metrics={}: done.append(count),
    )
    by_name = {layer.name: layer for layer in found.layers}
    assert set(by_name) == {"first", "second"}
    assert [layer.error_db for layer in found.layers] == sorted((x.error_db for x in found.layers), reverse=True)
    assert by_name["first"].weight_share == pytest.approx(0.5)  # 4 * 3 * 9 of 2 * 4 * 3 * 9 weights
    assert by_name["first"].float_ms is None  # null counts no time
    assert (found.num_samples, done) == (12, [1, 2])


def test_times_are_counted_for_the_shapes_that_open_dimensions_have(
    calibrated: tuple[OnnxFile, Ranges], site: Site, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    prepared, ranges = calibrated
    model = onnx.load(prepared.path)
    for name, size in (("height", 2), ("width", 3)):
        model.graph.input[0].type.tensor_type.shape.dim[size].dim_param = name
    first = next(node for node in model.graph.node if node.name == "first")
    next(each for each in first.attribute if each.name == "pads").ints[:] = [0] * 4  # 3 x 3 does not fit in 1 x 1
    del model.graph.value_info[:]
    opened = write_onnx(model, tmp_path / "open.onnx", precision="fp32")
    exam = Exam(RandomImages(), max_drop=1.0)
    for shapes, is_counted in (({"image": (1, 3, SIZE, SIZE)}, True), ({}, False)):
        found = measure_sensitivity(tmp_path, opened, ranges, OnnxRuntime(), site, exam, threads=1, shapes=shapes)
        assert [layer.float_ms is not None for layer in found.layers] == [is_counted] * 2


def test_a_fused_operator_counts_for_its_first_layer_and_a_conversion_for_none() -> None:
    executed = [
        Layer("q", "QuantizeLinear", "int8", 0.5, sources=("first",), is_conversion=True),
        Layer("fused", "QLinearConv", "int8", 0.2, sources=("first", "first_relu")),
        Layer("late", "Relu", "fp32", 0.1, sources=("second_relu",)),
        Layer("unknown", "Reorder", "fp32", 0.4),
    ]
    owners = {"first": "first", "first_relu": "first", "second": "second", "second_relu": "second"}
    assert times_of(executed, two_convolutions(), owners) == {"first": 0.2, "second": 0.1}
