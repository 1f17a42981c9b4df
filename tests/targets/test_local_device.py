import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets import Null, OpenVino, TensorRt
from targets.devices.bundle import build_runner, list_carried
from targets.devices.device import Device, DeviceFacts, ProfileRequest, open_device
from targets.devices.local import Local
from targets.devices.outcome import read_outcome
from targets.devices.stop import Stop
from targets.devices.transport import Completed
from targets.errors import DeviceError, Interrupted, ModelRefused
from targets.processing import Processing
from targets.runner.facts import read_sensors
from targets.runner.job import Job
from targets.target import RunOptions

JOB = Job("n1", "profile", OpenVino(device="AUTO"), RunOptions(threads=2), limit_s=9.0)
BYTES_TO_UNIT = Processing(scale=(1 / 255,) * 3, bias=(0.0, -1.0, 2.0))


def test_a_job_survives_json() -> None:
    request = ProfileRequest("end_to_end", 7, 2.5, {"x": (1, 3)}, BYTES_TO_UNIT, 4)
    job = Job("n2", "infer", Null(latency_ms=1.5), RunOptions(), 3.0, ("a/b", "c"), BYTES_TO_UNIT, request)
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(JOB.to_json()) == JOB


def test_samples_inferred_in_chunks_equal_the_closed_form(device: Device, linear_model: Path) -> None:
    x = np.random.default_rng(0).random((130, 3, 4, 4)).astype(np.float32)  # 64 + 64 + 2
    steps: list[tuple[int, int]] = []
    outputs = device.infer(
        Null(), linear_model, RunOptions(), {"x": x}, on_progress=lambda done, total: steps.append((done, total))
    )
    weights = np.arange(15).reshape(3, 5)
    np.testing.assert_allclose(outputs["y"], x.mean(axis=(2, 3)) @ weights, rtol=1e-5)
    assert steps[-1] == (130, 130)


def test_images_are_preprocessed_on_the_device(device: Device, linear_model: Path) -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    outputs = device.infer(Null(), linear_model, RunOptions(), {"x": images_NHWC}, processing=BYTES_TO_UNIT)
    means = images_NHWC.mean(axis=(1, 2)) / 255 + np.array([0.0, -1.0, 2.0])
    np.testing.assert_allclose(outputs["y"], means @ np.arange(15).reshape(3, 5), rtol=1e-5)


def test_a_profile_holds_raw_samples_and_their_context(device: Device, linear_model: Path) -> None:
    request = ProfileRequest(num_samples=20, max_seconds=20)
    block = device.profile(Null(latency_ms=2), linear_model, RunOptions(), request)
    assert (block.samples_ns.shape, block.samples_ns.dtype) == ((20,), np.int64)
    assert block.samples_ns.min() >= 2_000_000
    assert block.peak_bytes >= block.baseline_bytes > 1_000_000
    assert block.load_ms > 0
    assert block.inputs[0].shape == (None, 3, 4, 4)
    assert set(block.context["before"]) == set(block.context["after"]) == set(read_sensors())  # type: ignore[call-overload]
    json.dumps(block.context)


def test_end_to_end_times_pre_and_post_processing_too(device: Device, linear_model: Path) -> None:
    request = ProfileRequest("end_to_end", num_samples=5, max_seconds=20, processing=BYTES_TO_UNIT)
    assert len(device.profile(Null(), linear_model, RunOptions(), request).samples_ns) == 5


def test_a_profile_whose_made_up_shapes_do_not_run_asks_for_shapes(device: Device, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    with pytest.raises(ModelRefused, match="unknown dimensions were taken as 1: give the shapes of x"):
        device.profile(Null(), path, RunOptions(), ProfileRequest())
    request = ProfileRequest(num_samples=3, shapes={"x": (1, 3)})
    assert len(device.profile(Null(), path, RunOptions(), request).samples_ns) == 3


def test_external_weights_travel_within_the_artifact(device: Device, tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    device.compile_model(Null(), path, tmp_path / "artifact", RunOptions())
    weights = onnx.load(str(tmp_path / "artifact")).graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(weights), np.arange(64))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelRefused, match="expected its external weights beside it"):
        device.compile_model(Null(), path, tmp_path / "again", RunOptions())


def test_the_facts_name_the_runtime_and_no_host(device: Device) -> None:
    facts = device.probe(Null())
    assert set(facts.identity) == {"arch", "cpu", "cpu_features", "logical_cores", "os", "runtime", "runtime_version"}
    assert facts.identity["runtime_version"] == onnx.__version__
    assert facts.digest == DeviceFacts(dict(reversed(facts.identity.items())), {}).digest
    assert facts.digest != DeviceFacts({**facts.identity, "arch": "other"}, {}).digest


def test_a_missing_sensor_says_so() -> None:
    values = read_sensors().values()
    assert all(not isinstance(value, str) or len(value) > 1 for value in values)
    assert 0 not in [value for value in values if not isinstance(value, (list, float))]


def test_a_job_that_hangs_is_killed_and_leaves_nothing(linear_model: Path, tmp_path: Path) -> None:
    device = Device("local", lambda: Local(tmp_path / "jobs"), job_timeout_s=1.0)
    with pytest.raises(DeviceError, match=r"linear.onnx: on local: expected the job 'profile' of null to end within 1"):
        device.profile(Null(latency_ms=60_000), linear_model, RunOptions(), ProfileRequest(max_seconds=0.1))
    assert list((tmp_path / "jobs").iterdir()) == []


def test_an_interrupted_job_ends_its_processes_and_removes_its_folder(tmp_path: Path) -> None:
    pids = []
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Local(tmp_path) as local:
        local.run(["-c", program], timeout_s=60, on_line=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "hint"), [(signal.SIGSEGV, "crashed"), (signal.SIGKILL, "memory runs out")])
def test_a_killed_process_is_reported_by_its_signal(number: signal.Signals, hint: str, tmp_path: Path) -> None:
    with Local(tmp_path) as local:
        completed = local.run(["-c", f"import os; os.kill(os.getpid(), {int(number)})"], timeout_s=30)
    with pytest.raises(DeviceError, match=f"m.onnx: expected the job 'profile' .* got {number.name} .*{hint}"):
        read_outcome("", completed, JOB, "m.onnx", 30)


def test_a_result_counts_only_with_its_nonce() -> None:
    completed = Completed(0, ("hello",))
    assert read_outcome('{"nonce": "n1", "x": 1}', completed, JOB, "m", 1)["x"] == 1
    with pytest.raises(DeviceError, match="exit status 0 and no result: hello"):
        read_outcome('{"nonce": "other", "x": 1}', completed, JOB, "m", 1)
    with pytest.raises(DeviceError, match="no result"):
        read_outcome('{"nonce": "n1", "x"', completed, JOB, "m", 1)


def test_an_unknown_device_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="device 'orin': expected one of local") as caught:
        open_device("orin", tmp_path)
    assert caught.value.exit_code == 4


def test_a_runtime_that_is_missing_fails_on_the_device(device: Device) -> None:
    with pytest.raises(DeviceError, match="device 'local': on local: tensorrt: expected") as caught:
        device.probe(TensorRt())
    assert caught.value.exit_code == 4


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="expected a folder that can be written"):
        open_device("local", tmp_path / "file" / "work").probe(Null())


def test_the_runner_is_the_same_bytes_each_time_and_carries_its_own_sources(tmp_path: Path) -> None:
    assert build_runner.__wrapped__() == build_runner()
    names = [name for name, _ in list_carried()]
    assert "calibration/scheme.py" in names
    assert not [name for name in names if name.startswith(("targets/devices", "pipeline"))]
    (tmp_path / "runner.pyz").write_bytes(build_runner())
    program = "import sys; sys.path.insert(0, 'runner.pyz'); import targets.runner.main as m; print(m.__file__)"
    lines: list[str] = []
    with Local(tmp_path / "jobs") as local:
        local.push(tmp_path / "runner.pyz", "runner.pyz")
        assert local.run(["-c", program], timeout_s=30, on_line=lines.append).returncode == 0
    assert "runner.pyz" in lines[-1]


def test_a_stop_ends_the_job_and_leaves_nothing(tmp_path: Path) -> None:
    stop, program = Stop(), "print('up', flush=True); import time; time.sleep(60)"
    with pytest.raises(Interrupted), Local(tmp_path / "work", stop) as device:
        device.run(["-c", program], 60, lambda line: threading.Thread(target=stop.set).start())
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(Interrupted), Local(tmp_path / "work", stop):
        raise AssertionError("it began")
