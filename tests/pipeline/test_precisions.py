"""What a deployment's precision means for file and runtime, and where it is refused."""

import json

import pytest

from pipeline.errors import RecipeError
from pipeline.on_device import floats_of, list_precisions, options_of, require_precision
from pipeline.recipe import Deployment
from pipeline.stages.export_onnx import FloatForm
from targets.devices.facts import DeviceFacts
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino
from targets.target import Target

WITHOUT_FP16 = DeviceFacts({"runtime_version": "9.1", "cpu": "Some CPU"}, {}, float_types=("fp32", "bf16"))


def deployment(kind: str, precision: str) -> Deployment:
    fields = {"name": "d", "target": {"kind": kind}, "precision": precision, "budget": {"latency": {"max_ms": 1.0}}}
    return Deployment.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("kind", "precision", "pinned", "floats"),
    [
        ("onnxruntime", "int8", "fp32", "fp32"),
        ("onnxruntime", "int8_dynamic", "fp32", "int8_dynamic"),
        ("openvino", "bf16", "bf16", "fp32"),
        ("openvino", "fp16", "fp16", "fp32"),  # an option pins it
        ("tensorrt", "fp16", "fp16", "fp16"),  # the file decides
    ],
)
def test_a_precision_is_pinned_by_option_or_by_file(kind: str, precision: str, pinned: str, floats: FloatForm) -> None:
    given = deployment(kind, precision)
    assert (options_of(given).precision, floats_of(given)) == (pinned, floats)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(OpenVino(), ("auto", "int8", "fp32", "bf16")), (OnnxRuntime(), ("auto", "int8", "int8_dynamic", "fp32", "bf16"))],
)
def test_what_can_ship_follows_from_runtime_and_processor(target: Target, expected: tuple[str, ...]) -> None:
    assert list_precisions(target, WITHOUT_FP16) == expected


def test_a_precision_that_the_processor_lacks_is_refused_with_those_it_has() -> None:
    require_precision(deployment("openvino", "bf16"), WITHOUT_FP16)
    with pytest.raises(RecipeError) as caught:
        require_precision(deployment("openvino", "fp16"), WITHOUT_FP16)
    assert str(caught.value) == (
        "deployments.d.precision: expected one of auto, int8, fp32, bf16, which openvino 9.1 has on Some CPU; "
        'got "fp16"; set one of those'
    )
