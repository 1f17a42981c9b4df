"""What belongs to one runtime alone; what all must do is in tests/conformance."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from targets import TARGETS, AnyTarget, Null, OnnxRuntime, OpenVino, TensorRt, reference_target
from targets.errors import DeviceError, ModelRefused
from targets.onnx_nodes import OnnxNode
from targets.onnxruntime import saturates_int8
from targets.onnxruntime_trace import drop_first_run, read_layers
from targets.openvino import find_precision, find_reason
from targets.runner.caches import VARIABLE
from targets.target import Layer, RunOptions

RECIPE = TypeAdapter(Annotated[AnyTarget, Field(discriminator="kind")])


def test_a_recipe_names_a_target_by_its_kind() -> None:
    assert RECIPE.validate_json('{"kind": "openvino", "device": "GPU"}') == OpenVino(device="GPU")
    assert RECIPE.validate_json('{"kind": "null", "latency_ms": 2}') == Null(latency_ms=2.0)
    assert RECIPE.validate_json('{"kind": "tensorrt"}') == TensorRt()


@pytest.mark.parametrize(
    "text", ['{"kind": "onnx"}', '{"kind": "null", "latency": 2}', '{"kind": "openvino", "device": 1}']
)
def test_a_recipe_with_an_unknown_kind_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RECIPE.validate_json(text)


def test_the_schema_documents_every_field_of_every_target() -> None:
    definitions = RECIPE.json_schema()["$defs"]
    assert {definitions[target.__name__]["properties"]["kind"]["const"] for target in TARGETS} == {
        target.kind for target in TARGETS
    }
    for definition in definitions.values():
        assert definition["additionalProperties"] is False
        assert all("description" in field for field in definition["properties"].values())


@pytest.mark.parametrize("target", [OnnxRuntime(), OpenVino(), TensorRt(), Null()])
def test_a_missing_runtime_names_what_to_install(target: AnyTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"null": "onnx"}.get(target.kind, target.kind)
    monkeypatch.setitem(sys.modules, package, None)  # how Python spells: this import fails
    monkeypatch.setenv("PATH", "")  # trtexec, which serves in the package's place
    with pytest.raises(DeviceError, match="pip install"):
        target.runtime_version()


def test_openvino_without_its_processor_names_those_present() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(DeviceError, match=r"expected the processor NPU; got CPU"):
        OpenVino(device="NPU").runtime_version()


def test_openvino_chooses_the_processor_by_itself_and_computes_what_numpy_does(linear_model: Path) -> None:
    pytest.importorskip("openvino")
    target = OpenVino(device="AUTO")
    x = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    expected = x.mean((2, 3)) @ np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(target.open(linear_model, RunOptions()).bind({"x": x})()["y"], expected, rtol=1e-5)
    assert target.inspect(linear_model, RunOptions())
    assert target.read_processor()["processors"].startswith("CPU: ")


def test_openvino_keeps_what_it_compiled_only_where_it_is_told_to(
    linear_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "caches"))
    OpenVino().open(linear_model, RunOptions())
    assert not (tmp_path / "caches").exists()
    OpenVino(model_cache=True).open(linear_model, RunOptions())
    (blob,) = (tmp_path / "caches" / "openvino").iterdir()
    elsewhere = tmp_path / "elsewhere.onnx"
    elsewhere.write_bytes(linear_model.read_bytes())
    written_ns = blob.stat().st_mtime_ns
    OpenVino(model_cache=True).open(elsewhere, RunOptions())  # the next job's copy of it
    assert [path.stat().st_mtime_ns for path in blob.parent.iterdir()] == [written_ns]


def test_onnxruntime_refuses_a_float_type_that_it_cannot_pin(tmp_path: object) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ModelRefused, match="expected fp32 for onnxruntime; got 'bf16'"):
        OnnxRuntime().open(tmp_path, RunOptions(precision="bf16"))  # type: ignore[arg-type]


def test_the_reference_target_runs_onnx_as_written() -> None:
    assert reference_target() in (OnnxRuntime(graph_optimization="none"), Null())


def test_a_trace_becomes_layers_with_mean_times_and_computed_precisions() -> None:
    def event(name: str, kind: str, dur: int, inputs: list[str], outputs: list[str]) -> dict[str, object]:
        shapes = {"input_type_shape": [{t: [1]} for t in inputs], "output_type_shape": [{t: [1]} for t in outputs]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": {"op_name": kind, **shapes}}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
        event("q", "QuantizeLinear", 10, ["float", "float", "uint8"], ["uint8"]),
        event("conv", "QLinearConv", 40, ["uint8", "float", "uint8", "int8"], ["uint8"]),
        event("pool", "MaxPool", 5, ["uint8"], ["uint8"]),
        event("conv", "QLinearConv", 60, ["uint8", "float", "uint8", "int8"], ["uint8"]),
    ]
    assert read_layers(events, runs=2) == [
        Layer("q", "QuantizeLinear", "fp32", 0.005, is_conversion=True),
        Layer("conv", "QLinearConv", "int8", 0.05),
        Layer("pool", "MaxPool", "int8", 0.0025),
    ]


def test_layers_read_what_the_optimized_graph_says_also_where_its_nodes_have_no_name() -> None:
    def event(name: str, kind: str, dur: int) -> dict[str, object]:
        shapes = {"input_type_shape": [{"float": [1]}], "output_type_shape": [{"float": [1]}]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": {"op_name": kind, **shapes}}

    run = [event("a/Conv_nchwc", "Conv", 3), event("HardSigmoid_4", "HardSigmoid", 2), event("Mul_5", "Mul", 1)]
    end = {"cat": "Session", "name": "model_run", "dur": 9, "args": {}}
    nodes = [
        OnnxNode("a/Conv_nchwc", "Conv", ("image", "w"), ("t",)),
        OnnxNode("", "HardSigmoid", ("t",), ("u",)),
        OnnxNode("", "Mul", ("t", "u"), ("v",)),
    ]
    layers = read_layers(drop_first_run([*run, end, *run, end]), 1, nodes)
    assert [(layer.name, layer.reads, layer.sources) for layer in layers] == [
        ("a/Conv_nchwc", (), ("a/Conv",)),
        ("HardSigmoid_4", ("a/Conv_nchwc",), ()),
        ("Mul_5", ("a/Conv_nchwc", "HardSigmoid_4"), ()),
    ]


@pytest.mark.parametrize(
    ("primitive", "precision", "expected"),
    [
        ("brgconv_avx512_amx_I8", "u8", "int8"),
        ("brgconv_avx512_f32", "i8", "fp32"),  # int8 tensors, float computation
        ("brgemm_avx512_bf16", "bf16", "bf16"),
        ("unknown_dynamic", "f32", "fp32"),
    ],
)
def test_openvino_computes_in_what_its_primitive_says(primitive: str, precision: str, expected: str) -> None:
    assert find_precision(primitive, precision) == expected


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", ["avx2", "avx512f"], True),
        ("AMD64", [], True),  # unknown features: the runtime itself knows where its option is needless
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], False),
        ("aarch64", ["asimd", "asimddp"], False),
    ],
)
def test_int8_products_overflow_on_x86_without_vnni_alone(machine: str, features: list[str], expected: bool) -> None:
    assert saturates_int8(machine, features) is expected


def test_openvino_s_reason_is_found_among_its_source_locations() -> None:
    # As OpenVINO 2026.4.1 wrote it for a Loop with one input too many.
    message = (
        "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at src/frontends/report.cpp:151:\n"
        "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted. Failed operations detailed log:\n"
        "-- Loop-11 with a message:\nCheck '(a >= b)' failed at src/frontends/onnx/frontend/src/op/loop.cpp:310:\n"
        "While validating ONNX node '<Node(Loop): while_loop_0>':\nThe provided loop body does not match\n\nSummary:\n"
    )
    assert find_reason(message) == "The provided loop body does not match"
    assert find_reason("Check 'false' failed at src/a.cpp:1:\n") == "Check 'false' failed"
