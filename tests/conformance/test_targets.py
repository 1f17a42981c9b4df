"""What every target must do: a new one gets these tests by standing in the union."""

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.scheme import Encoding, Scheme
from targets import TARGETS, AnyTarget
from targets.devices.device import Device, ProfileRequest, open_device
from targets.errors import DeviceError, ModelRefused
from targets.target import FloatType, RunOptions, Target

FLOAT_TYPES: tuple[FloatType, ...] = get_args(FloatType)
OPTIONS = RunOptions(threads=1, precision="fp32")
TOLERANCE = 1e-5  # fp32 sums of 27 products, taken in another order


@pytest.fixture(params=TARGETS, ids=lambda target: target.kind)
def target(request: pytest.FixtureRequest) -> AnyTarget:
    instance: AnyTarget = request.param()
    try:
        instance.runtime_version()
    except DeviceError as error:
        pytest.skip(str(error))
    return instance


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return open_device("local", tmp_path / "work")


def save_model(
    path: Path, nodes: list[onnx.NodeProto], x: list[int | str], y: list[int | str], **weights: np.ndarray
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("some.vendor", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


WEIGHTS = np.random.default_rng(7).standard_normal((4, 3, 3, 3)).astype(np.float32)


def save_conv(path: Path, batch: int | str = 1, precision: FloatType = "fp32") -> Path:
    if precision == "fp16":
        return save_half(path)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    return save_model(path, nodes, [batch, 3, 8, 8], [batch, 4, 6, 6], w=WEIGHTS)


def save_half(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 4, 6, 6])],
        [numpy_helper.from_array(WEIGHTS.astype(np.float16), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def convolve(x: np.ndarray) -> np.ndarray:
    """Return relu(conv(x)) in float64, from the definition."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("ncyxhw,kchw->nkyx", windows, WEIGHTS), 0)


def make_images(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", TARGETS, ids=lambda target: target.kind)
def test_a_target_declares_its_data(kind: type[AnyTarget]) -> None:
    target: Target = kind()
    assert target == kind()
    assert isinstance(target.scheme, Scheme)
    assert isinstance(target.encoding, Encoding)
    assert 13 <= target.highest_opset <= 25
    assert [name for name in FLOAT_TYPES if name in target.float_types] == list(target.float_types)
    assert target.float_types[0] == "fp32"
    assert isinstance(target.floats_in_file, bool)
    assert isinstance(target.dynamic, bool)
    assert [other.kind for other in TARGETS].count(target.kind) == 1


def test_a_compiled_model_computes_what_numpy_does(target: AnyTarget, tmp_path: Path) -> None:
    target.compile(save_conv(tmp_path / "m.onnx"), tmp_path / "artifact", OPTIONS)
    session = target.open(tmp_path / "artifact", OPTIONS)
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("x", "float32", (1, 3, 8, 8))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.outputs] == [("y", "float32", (1, 4, 6, 6))]
    x = make_images(1)
    np.testing.assert_allclose(session.bind({"x": x})()["y"], convolve(x), atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, "n"])
def test_a_bound_inference_reads_refilled_feeds(target: AnyTarget, batch: int | str, tmp_path: Path) -> None:
    session = target.open(save_conv(tmp_path / "m.onnx", batch), OPTIONS)
    x = make_images(1)
    infer = session.bind({"x": x})
    infer()
    x[...] = make_images(1, seed=1)
    np.testing.assert_allclose(infer()["y"], convolve(make_images(1, seed=1)), atol=TOLERANCE)


def test_feeds_that_do_not_fit_are_refused(target: AnyTarget, tmp_path: Path) -> None:
    session = target.open(save_conv(tmp_path / "m.onnx"), OPTIONS)
    with pytest.raises(ModelRefused, match=r"feed 'x': expected float32 1x3x8x8; got float32 \(2, 3, 8, 8\)"):
        session.bind({"x": make_images(2)})


def test_inspect_lists_what_runs_with_its_precision(target: AnyTarget, tmp_path: Path) -> None:
    layers = target.inspect(save_conv(tmp_path / "m.onnx"), OPTIONS)
    convolutions = [layer for layer in layers if "conv" in layer.op_type.lower()]
    assert [layer.precision for layer in convolutions] == ["fp32"]
    assert all(layer.time_ms is None or layer.time_ms >= 0 for layer in layers)


@pytest.mark.parametrize("precision", FLOAT_TYPES)
def test_a_float_type_is_computed_in_where_the_processor_has_it_and_refused_elsewhere(
    target: AnyTarget, precision: FloatType, tmp_path: Path
) -> None:
    in_file: FloatType = precision if target.floats_in_file else "fp32"
    model, options = save_conv(tmp_path / "m.onnx", precision=in_file), RunOptions(precision=precision)
    if precision in target.find_float_types():
        layers = target.inspect(model, options)
        assert [layer.precision for layer in layers if "conv" in layer.op_type.lower()] == [precision]
    else:
        with pytest.raises(ModelRefused, match=f"precision: expected .*fp32.*; got '{precision}'"):
            target.open(model, options)


def test_bytes_that_are_no_model_are_refused_in_one_line(target: AnyTarget, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"garbage" * 20)
    with pytest.raises(ModelRefused, match=r"refuses the model: .+") as caught:
        target.compile(tmp_path / "m.onnx", tmp_path / "artifact", OPTIONS)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_unknown_operator_is_refused_by_name(target: AnyTarget, tmp_path: Path) -> None:
    node = helper.make_node("Sharpen", ["x"], ["y"], domain="some.vendor")
    model = save_model(tmp_path / "m.onnx", [node], [1], [1])
    with pytest.raises(ModelRefused, match="Sharpen"):
        target.compile(model, tmp_path / "artifact", OPTIONS)


def test_a_device_compiles_infers_and_profiles(target: AnyTarget, device: Device, tmp_path: Path) -> None:
    compiled = device.compile_model(target, save_conv(tmp_path / "m.onnx", "n"), tmp_path / "artifact", OPTIONS)
    assert compiled.runtime_version == target.runtime_version() == compiled.facts.identity["runtime_version"]
    assert compiled.facts.float_types == target.find_float_types()
    assert compiled.layers
    x = make_images(70)
    outputs = device.infer(target, tmp_path / "artifact", OPTIONS, {"x": x})
    np.testing.assert_allclose(outputs["y"], convolve(x), atol=TOLERANCE)
    block = device.profile(target, tmp_path / "artifact", OPTIONS, ProfileRequest(num_samples=33, max_seconds=10))
    assert block.samples_ns.shape == (33,)
    assert (block.samples_ns > 0).all()


def test_a_fixed_batch_takes_any_number_of_samples(target: AnyTarget, device: Device, tmp_path: Path) -> None:
    x = make_images(5)
    outputs = device.infer(target, save_conv(tmp_path / "m.onnx", 2), OPTIONS, {"x": x})
    np.testing.assert_allclose(outputs["y"], convolve(x), atol=TOLERANCE)


def test_an_empty_input_runs_or_is_refused_in_one_line(target: AnyTarget, device: Device, tmp_path: Path) -> None:
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [0, 3], [0, 3])
    try:
        block = device.profile(target, model, OPTIONS, ProfileRequest(num_samples=3, max_seconds=5))
        outcome = f"{len(block.samples_ns)} samples"
    except ModelRefused as error:
        outcome = str(error)
    assert outcome == "3 samples" or ("refuse" in outcome and "\n" not in outcome)
