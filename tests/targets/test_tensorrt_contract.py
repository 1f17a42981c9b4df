"""TensorRT's code against doubles with the names of its real bindings, and against NVIDIA's own builder.

Nothing here executes TensorRT: what it computes, and how fast, only a device can show.
"""

import gc
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from cuda_libraries import RUNTIME, build_driver, build_library
from onnx import TensorProto, helper, numpy_helper
from tensorrt_double import VERSIONS, CudaPythonDouble, Double

from targets.errors import DeviceError, ModelRefused
from targets.runner.caches import VARIABLE
from targets.target import Layer, RunOptions
from targets.tensorrt import TensorRt
from targets.tensorrt_artifact import read_artifact
from targets.tensorrt_build import BuildPlan, build_engine, is_strongly_typed
from targets.tensorrt_cuda import TO_DEVICE, TO_HOST, open_cuda
from targets.tensorrt_driver import probe_gpu

FP32, FP16 = RunOptions(), RunOptions(precision="fp16")
WEIGHTS = np.random.default_rng(3).standard_normal((2, 3)).astype(np.float32)
PLAN = BuildPlan("fp32", "GPU", 0, 64, None)


def save(path: Path, form: str = "fp32", batch: int | str = 1) -> Path:
    """y = x @ WEIGHTS.T, in float32, float16, or with x and the weights on int8 grids."""
    element = np.float16 if form == "fp16" else np.float32
    arrays: dict[str, np.ndarray] = {"w": WEIGHTS.T.astype(element)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")]
    if form == "int8":
        arrays = {"s": np.float32(0.05), "z": np.int8(0), "w": np.round(WEIGHTS.T / 0.05).astype(np.int8)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], name="v"),
            helper.make_node("MatMul", ["d", "v"], ["y"], name="matmul"),
        ]
    kind = TensorProto.FLOAT16 if form == "fp16" else TensorProto.FLOAT
    sides = [helper.make_tensor_value_info(name, kind, [batch, size]) for name, size in (("x", 3), ("y", 2))]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver") / "libcuda.so.1")


@pytest.fixture
def cuda(driver: Path, monkeypatch: pytest.MonkeyPatch) -> CudaPythonDouble:
    """A board whose driver answers, with cuda-python."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver.parent))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module := CudaPythonDouble())
    return module


@pytest.fixture(params=VERSIONS)
def double(request: pytest.FixtureRequest, cuda: CudaPythonDouble, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(request.param, monkeypatch)


def install(version: str, monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double(version)
    monkeypatch.setitem(sys.modules, "tensorrt", double.module)
    return double


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
def test_an_engine_computes_what_numpy_does(double: Double, form: str, tmp_path: Path) -> None:
    options, tolerance = (FP16, 1e-2) if form == "fp16" else (FP32, 0.2 if form == "int8" else 1e-6)
    TensorRt().compile(save(tmp_path / "m.onnx", form), tmp_path / "artifact", options)
    session = TensorRt().open(tmp_path / "artifact", options)
    element = "float16" if form == "fp16" else "float32"
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("x", element, (1, 3))]
    x = np.array([[1.0, -2.0, 0.5]], element)
    infer = session.bind({"x": x})
    for values in ([1.0, -2.0, 0.5], [0.25, 0.75, -1.0]):
        x[...] = values
        np.testing.assert_allclose(infer()["y"], x @ WEIGHTS.T, atol=tolerance)


@pytest.mark.parametrize(
    ("form", "flags_of_8"), [("fp32", set()), ("fp16", {"FP16"}), ("int8", {"INT8"})], ids=lambda value: str(value)
)
def test_only_tensorrt_8_is_told_precisions_and_none_computes_float32_as_tf32(
    double: Double, form: str, flags_of_8: set[str], tmp_path: Path
) -> None:
    options = FP16 if form == "fp16" else FP32
    TensorRt(workspace_mb=256).compile(save(tmp_path / "m.onnx", form), tmp_path / "artifact", options)
    (config,) = double.configs
    assert config.flags_set == (flags_of_8 if double.major == 8 else set())
    assert config.workspace == 256 << 20


def test_an_open_batch_takes_up_to_its_largest(double: Double, tmp_path: Path) -> None:
    target = TensorRt(largest_batch=4)
    target.compile(save(tmp_path / "m.onnx", batch="n"), tmp_path / "artifact", FP32)
    session = target.open(tmp_path / "artifact", FP32)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_allclose(session.bind({"x": x})()["y"], x @ WEIGHTS.T, atol=1e-6)
    with pytest.raises(ModelRefused, match=r"does not compute a feed 'x' of shape \(5, 3\)"):
        session.bind({"x": np.zeros((5, 3), np.float32)})


def test_layers_come_with_precision_sources_and_the_profiler_s_times(double: Double, tmp_path: Path) -> None:
    layers = TensorRt().inspect(save(tmp_path / "m.onnx"), FP32)
    assert layers == [Layer("matmul", "CaskMatMul", "fp32", time_ms=0.25, sources=("matmul",))]


def test_what_is_no_model_is_refused_in_one_line(double: Double, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"garbage" * 20)
    with pytest.raises(ModelRefused, match=rf"tensorrt {double.version}\.30 refuses the model: expected an ONNX file"):
        TensorRt().compile(path, tmp_path / "artifact", FP32)


def test_a_dla_computes_fp16_alone(double: Double, tmp_path: Path) -> None:
    target = TensorRt(processor="DLA", dla_core=1)
    for form, words in (("int8", "computes int8 by calibration"), ("fp32", 'expected "fp16" on a DLA')):
        with pytest.raises(ModelRefused, match=words):
            target.compile(save(tmp_path / "m.onnx", form), tmp_path / "artifact", FP32)
    target.compile(save(tmp_path / "m.onnx", "fp16"), tmp_path / "artifact", FP16)
    (config,) = double.configs
    assert config.flags_set == {"GPU_FALLBACK", *(["FP16"] if double.major < 11 else [])}
    assert config.DLA_core == 1


def test_an_engine_of_another_version_or_form_is_refused_by_its_key(
    cuda: CudaPythonDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tmp_path / "artifact"
    install("8.6.1", monkeypatch)
    TensorRt().compile(save(tmp_path / "m.onnx"), artifact, FP32)
    engine = read_artifact(artifact)
    assert engine is not None
    assert (engine.key.tensorrt, engine.key.architecture, engine.key.gpu) == ("8.6.1.30", "8.7", "Orin")
    with pytest.raises(ModelRefused, match=r"precision = fp32 \(asked for: fp16\); engines are tied"):
        TensorRt().open(artifact, FP16)
    install("10.3.0", monkeypatch)
    with pytest.raises(ModelRefused, match=r"built with TensorRT 8\.6\.1\.30 \(here 10\.3\.0\.30\); engines are tied"):
        TensorRt().open(artifact, FP32)


def test_a_damaged_engine_never_reaches_tensorrt(
    cuda: CudaPythonDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("10.3.0", monkeypatch)
    artifact = tmp_path / "artifact"
    TensorRt().compile(save(tmp_path / "m.onnx"), artifact, FP32)
    whole = artifact.read_bytes()
    for damaged, words in ((whole[:-1], "file is damaged"), (whole[:40], "expected the header of an engine")):
        artifact.write_bytes(damaged)
        with pytest.raises(ModelRefused, match=words):
            TensorRt().open(artifact, FP32)


def test_kernel_timings_are_kept_for_the_next_build_and_others_are_left_out(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "caches"))
    timings = tmp_path / f"caches/tensorrt/{double.version}.30-8.7.timings"
    for content in (double.stamp + b" timed", double.stamp + b" timed timed"):
        TensorRt().compile(save(tmp_path / "m.onnx"), tmp_path / "artifact", FP32)
        assert timings.read_bytes() == content
    timings.write_bytes(b"of another board")
    TensorRt().compile(save(tmp_path / "m.onnx"), tmp_path / "artifact", FP32)
    assert timings.read_bytes() == double.stamp + b" timed"


def test_memory_on_the_gpu_is_given_back(double: Double, cuda: CudaPythonDouble, tmp_path: Path) -> None:
    session = TensorRt().open(save(tmp_path / "m.onnx"), FP32)
    infer = session.bind({"x": np.zeros((1, 3), np.float32)})
    assert len(cuda.allocated) == 2
    del infer
    gc.collect()
    assert cuda.allocated == {}


def test_libcudart_serves_where_cuda_python_is_missing(tmp_path: Path) -> None:
    library = build_library(tmp_path / "libcudart.so", RUNTIME)
    call = open_cuda(modules=("no.such.module",), libraries=(str(tmp_path / "absent.so"), str(library)))
    given, got = np.arange(6.0), np.zeros(6)
    stream, block = call("cudaStreamCreate"), call("cudaMalloc", given.nbytes)
    assert stream == 0x700000007
    call("cudaMemcpyAsync", block, given.ctypes.data, given.nbytes, TO_DEVICE, stream)
    call("cudaMemcpyAsync", got.ctypes.data, block, given.nbytes, TO_HOST, stream)
    call("cudaStreamSynchronize", stream)
    call("cudaFree", block)
    np.testing.assert_array_equal(got, given)
    with pytest.raises(DeviceError, match="expected cudaMalloc to succeed; got CUDA error 2: out of memory"):
        call("cudaMalloc", 1 << 41)


def test_a_device_without_cuda_s_runtime_is_told_what_to_install() -> None:
    with pytest.raises(DeviceError, match="got neither the package cuda-python nor libcudart; install one: sudo apt"):
        open_cuda(modules=(), libraries=("no-such-libcudart.so",))


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("return 100;", r"got no GPU \(CUDA error 100\)"),
        ("return *(volatile int*)0;", "got SIGSEGV when it was asked"),
        ("__builtin_abort();", "got SIGABRT when it was asked"),
    ],
    ids=["no_gpu", "crash", "abort"],
)
def test_a_driver_that_is_broken_or_crashes_is_an_answer(init: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=f"expected an NVIDIA driver that answers; {words}"):
        probe_gpu(str(build_driver(tmp_path / "libcuda.so.1", init)))


def test_without_a_driver_tensorrt_is_never_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install("10.3.0", monkeypatch)
    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", None)
    monkeypatch.setenv("LD_LIBRARY_PATH", os.devnull)
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a driver here")
    probe_gpu.cache_clear()
    with pytest.raises(DeviceError, match="expected an NVIDIA driver that answers; got libcuda"):
        TensorRt().open(save(tmp_path / "m.onnx"), FP32)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="largest_batch: expected at least 1; got 0"):
        TensorRt(largest_batch=0)


@pytest.fixture
def rtx() -> ModuleType:
    """NVIDIA's builder, told which GPU it builds for, since it finds none here."""
    vendor = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'edgeproof[tensorrt-check]'")

    class Builder:
        def __init__(self, log: object) -> None:
            self._inner = vendor.Builder(log)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def create_builder_config(self) -> object:
            config = self._inner.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(vendor.ComputeCapability.SM86, 0)
            return config

    module = ModuleType("tensorrt")
    vars(module).update({**vars(vendor), "Builder": Builder})
    return module


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")  # in RTX alone
@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
def test_nvidia_s_builder_builds_what_this_code_asks_for(rtx: ModuleType, form: str, tmp_path: Path) -> None:
    model, timings = save(tmp_path / "m.onnx", form, batch="n"), tmp_path / "timings"
    plan = replace(PLAN, precision="fp16" if form == "fp16" else "fp32", workspace_mb=64)
    assert is_strongly_typed(rtx, plan)
    engine = build_engine(rtx, model, plan, timings)
    assert len(engine) > 1000
    assert build_engine(rtx, model, plan, timings)
    assert timings.stat().st_size > 0


def test_nvidia_s_parser_refuses_in_the_same_words(rtx: ModuleType, tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path / "m.onnx"))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Sharpen", "some.vendor"
    model.opset_import.append(helper.make_opsetid("some.vendor", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelRefused, match=r"refuses the model: node 'matmul' \(Sharpen\): expected operators of ONNX"):
        build_engine(rtx, tmp_path / "m.onnx", PLAN, None)
