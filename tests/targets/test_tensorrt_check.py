"""NVIDIA's parser and builder, asked without a GPU: what they accept, what not and why, and that they may crash."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from targets.acceptance import Acceptance
from targets.errors import DeviceError, ModelRefused
from targets.tensorrt_check import check_model
from targets.tensorrt_grid import find_objections
from targets.tensorrt_words import explain


def save(path: Path, text: str, **arrays: np.ndarray) -> Path:
    """Write a model of ONNX's own notation; `arrays` are its initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "mine": 1]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in arrays.items())
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    onnx.save(proto, path)
    return path


def quantized(path: Path, zero_point: object, weight_scale: np.ndarray | None = None, scale: object = 0.1) -> Path:
    """Write a convolution whose input is on a grid, and whose weights are on int8, one scale a channel."""
    return save(
        path,
        """g (float[1,2,4,4] x) => (float[1,3,4,4] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            w = DequantizeLinear <axis = 0> (codes, ws, wz)
            y = Conv (d, w)
        }""",
        s=np.asarray(scale, np.float32),
        z=np.asarray(zero_point),
        codes=np.ones((3, 2, 1, 1), np.int8),
        ws=np.full(3, 0.1, np.float32) if weight_scale is None else weight_scale,
        wz=np.zeros(3, np.int8),
    )


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'edgeproof[tensorrt-check]'")


def check(
    model: Path, worker: str = "targets.tensorrt_parse", timeout_s: float = 120, **shapes: list[int]
) -> Acceptance:
    return check_model(model, shapes, timeout_s=timeout_s, worker=worker)


@pytest.mark.parametrize(
    ("zero_point", "scale", "reason"),
    [
        (np.uint8(0), 0.1, "expected int8 codes; got uint8, which the parser would read as int8 and clip at 127"),
        (np.uint8(128), 0.1, "expected int8 codes; got uint8"),
        (np.int8(5), 0.1, "expected zero points of 0; got others"),
        (np.zeros(2, np.int8), [0.1, 0.2], "expected one scale for each activation; got one a channel"),
    ],
)
def test_a_grid_that_tensorrt_has_not_is_refused_in_words(
    zero_point: object, scale: object, reason: str, tmp_path: Path
) -> None:
    (objection,) = find_objections(quantized(tmp_path / "m.onnx", zero_point, scale=scale))
    assert objection.reason.startswith(reason)
    assert (objection.node, objection.num_nodes) == ("QuantizeLinear_0", 2)
    assert "edgeproof quantize" in objection.remedy


def test_the_grid_of_symmetric_int8_breaks_no_rule(tmp_path: Path) -> None:
    assert find_objections(quantized(tmp_path / "m.onnx", np.int8(0))) == ()


def test_integer_operators_and_integer_biases_are_named(tmp_path: Path) -> None:
    text = """g (float[1,4] x) => (float[1,4] y) {
        q, s, z = DynamicQuantizeLinear (x)
        b = DequantizeLinear (bias, bs, bz)
        y = Add (x, b)
    }"""
    arrays = {"bias": np.ones(4, np.int32), "bs": np.float32(0.1), "bz": np.int32(0)}
    found = find_objections(save(tmp_path / "m.onnx", text, **arrays))
    assert [each.op_type for each in found] == ["DynamicQuantizeLinear", "DequantizeLinear"]
    assert found[1].reason == "expected biases in float; got int32 codes behind DequantizeLinear"


def test_a_sound_model_is_accepted_and_its_engine_is_built(rtx: None, tmp_path: Path) -> None:
    acceptance = check(quantized(tmp_path / "m.onnx", np.int8(0)))
    assert (acceptance.verdict, acceptance.objections) == ("accepted", ())
    assert (acceptance.size_bytes or 0) > 1000
    assert acceptance.checked_with.startswith("tensorrt-rtx 1.")
    assert "no proof of speed" in acceptance.note


def test_a_custom_operator_is_refused_by_its_node(rtx: None, tmp_path: Path) -> None:
    acceptance = check(save(tmp_path / "m.onnx", "g (float[1,4] x) => (float[1,4] y) { y = mine.Odd (x) }"))
    (objection,) = acceptance.objections
    assert (acceptance.verdict, objection.judge) == ("refused", "parser")
    assert (objection.node, objection.op_type) == ("Odd_0", "Odd")
    assert objection.reason.startswith("expected operators of ONNX itself; got Odd")


@pytest.mark.parametrize("content", [b"", b"\x08\x07garbage", bytes(range(256)) * 4])
def test_what_is_no_onnx_file_is_refused(rtx: None, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    acceptance = check(path)
    assert acceptance.verdict == "refused"
    assert "expected an ONNX file" in acceptance.objections[0].reason


def test_what_only_the_stand_in_cannot_build_is_a_warning(rtx: None, tmp_path: Path) -> None:
    text = """g (float[1,9,4] boxes, float[1,2,9] scores) => (int64[n,3] y) {
        y = NonMaxSuppression (boxes, scores, most, iou)
    }"""
    acceptance = check(save(tmp_path / "m.onnx", text, most=np.int64([3]), iou=np.float32([0.5])))
    assert acceptance.verdict == "warned"
    assert not acceptance.objections[0].is_fatal
    assert "build it on the device" in acceptance.objections[0].remedy


def test_open_sizes_are_assumed_and_can_be_told(rtx: None, tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", "g (float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Relu (x) }")
    assert check(model).assumed == ("x=1..8x3x224x224",)
    assert check(model, x=[1, 3, 8, 8]).assumed == ()
    with pytest.raises(ModelRefused, match="--shape: expected a name and sizes that fit an input"):
        check(model, x=[1, 4, 8, 8])


def test_a_size_written_into_the_graph_is_refused_for_an_open_batch(rtx: None, tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[1,4] y) { y = Reshape (x, shape) }"
    acceptance = check(save(tmp_path / "m.onnx", text, shape=np.int64([1, 4])))
    assert acceptance.verdict == "refused"
    assert acceptance.objections[0].judge == "builder"


DIES_LATE = """import json, sys
step = {"step": "build", "architecture": "SM86", "assumed": {}, "unknown": []}
open(sys.argv[2], "w").write(json.dumps(step) + "\\n{half a line")
sys.exit("out of memory")
"""


@pytest.mark.parametrize(
    ("worker", "timeout_s", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, "died while starting (SIGSEGV)"),
        (DIES_LATE, 60, "died while building the engine (exit code 1)"),
        ("import time; time.sleep(60)", 0.5, "was still starting after 0.5 s"),
    ],
)
def test_a_crash_or_a_hang_over_there_is_an_answer(
    rtx: None, worker: str, timeout_s: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying.py").write_text(worker)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    acceptance = check(quantized(tmp_path / "m.onnx", np.int8(0)), worker="dying", timeout_s=timeout_s)
    assert acceptance.verdict == "undecided"
    assert words in acceptance.objections[0].reason


def test_without_the_package_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"pip install 'edgeproof\[tensorrt-check\]'"):
        check_model(tmp_path / "m.onnx", {}, timeout_s=1, package="no_such_package")


def test_an_unknown_message_is_quoted_in_one_line() -> None:
    said = "Invalid Node - a\nAssertion failed: b > 0: odd. In parse at /_src/x.cpp:3\nCuda Runtime (cudaError 35)"
    objection = explain("parser", (said,), "a", "Odd")
    assert objection.said == "b > 0: odd."
    assert objection.reason == "expected what TensorRT supports of Odd; got what it does not"
