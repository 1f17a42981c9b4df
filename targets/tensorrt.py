"""TensorRT 8.5 to 11 on NVIDIA GPUs, Jetson too. Rule: the only file in which its name is imported, inside methods.

An engine belongs to the version, the GPU and the system that built it: it is built on the device, and its key travels
in the artifact. Devices carry this file: Python 3.8, standard library and NumPy only.

Nothing of it was executed with TensorRT itself, which needs a GPU: what holds it are tests against NVIDIA's own builder
(tensorrt-rtx) and against doubles with the names of the real bindings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

from calibration.scheme import Encoding, Scheme
from targets.acceptance import Acceptance
from targets.errors import DeviceError, ModelRefused
from targets.fusion import FloatCause
from targets.runner.caches import find_cache
from targets.runner.sensors_settings import read_jetson
from targets.target import FloatType, Layer, RunOptions, Session
from targets.tensorrt_artifact import Engine, EngineKey, read_artifact, require_same, write_artifact
from targets.tensorrt_build import BuildPlan, build_engine, make_log
from targets.tensorrt_causes import FLOAT_CAUSES
from targets.tensorrt_driver import probe_gpu

INSPECTED_RUNS = 20
ON_A_JETSON = "on a Jetson: sudo apt-get install tensorrt python3-libnvinfer"
MEND = (
    f"{ON_A_JETSON}, and name a Python that sees the system's packages (/usr/bin/python3, or a venv with "
    "--system-site-packages); elsewhere: pip install tensorrt"
)
OMITTED = {"omitted_when_default": True}
"""Metadata of fields that came later: they count in a store's key where they differ from their default."""


@dataclass(frozen=True)
class TensorRt:
    """NVIDIA TensorRT on Jetson and other NVIDIA GPUs."""

    __pydantic_config__: ClassVar[Dict[str, object]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }

    kind: Literal["tensorrt"] = "tensorrt"
    """Which runtime."""
    processor: Literal["GPU", "DLA"] = field(default="GPU", metadata=OMITTED)
    """What computes: the GPU, or a deep learning accelerator (DLA, of Xavier and Orin), which takes fp16 models only;
    layers that it lacks run on the GPU."""
    dla_core: Literal[0, 1] = field(default=0, metadata=OMITTED)
    """Which DLA."""
    largest_batch: int = field(default=64, metadata=OMITTED)
    """Samples that an engine takes at once, where the model's batch is open."""
    workspace_mb: Optional[int] = field(default=None, metadata=OMITTED)
    """MiB of device memory that kernels may use beside tensors; all that is free, unless it is set."""

    scheme: ClassVar[Scheme] = Scheme()
    post_training_scheme: ClassVar[Scheme] = Scheme()  # its zero points must be 0
    encoding: ClassVar[Encoding] = Encoding(
        signed="int8", nonnegative="int8", bias="float32", outputs=False, residual="skip"
    )
    highest_opset: ClassVar[int] = 17  # of TensorRT 8.5 and 8.6, the oldest that are served
    artifact_suffix: ClassVar[str] = ".engine"
    float_causes: ClassVar[Tuple[FloatCause, ...]] = FLOAT_CAUSES
    float_types: ClassVar[Tuple[FloatType, ...]] = ("fp32", "fp16")
    floats_in_file: ClassVar[bool] = True  # strong typing, the only way since TensorRT 11
    dynamic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise ValueError where a number is no size."""
        for name, value in (("largest_batch", self.largest_batch), ("workspace_mb", self.workspace_mb)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1; got {value}")

    def runtime_version(self) -> str:
        """Return TensorRT's version; raises DeviceError where it, or the GPU's driver, is missing."""
        runtime = _find_runtime()
        if runtime is not None:
            version = str(runtime.__version__)
        else:
            from targets.tensorrt_trtexec import find_trtexec, read_version

            program = find_trtexec()
            if program is None:
                raise _no_package("neither it nor trtexec")
            version = read_version(program)
        probe_gpu()
        return re.sub(r"[^\d.].*", "", version)

    def read_processor(self) -> Dict[str, str]:
        """Return GPU, architecture and driver, which results depend on besides the runtime's version."""
        gpu = probe_gpu()
        return {"gpu": gpu.name, "gpu_architecture": gpu.architecture, "cuda_driver": gpu.cuda}

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Return fp32 and, where the GPU is fast in it, fp16; 11 runs on no other GPU, and does not tell."""
        runtime = _find_runtime()
        self.runtime_version()
        is_fast = runtime is None or getattr(runtime.Builder(make_log(runtime)), "platform_has_fast_fp16", True)
        return self.float_types if is_fast else ("fp32",)

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Build an engine on this device, with its timing cache, and write it with its key."""
        write_artifact(artifact, self._build(model, options))

    def open(self, artifact: Path, options: RunOptions) -> Session:
        """Load an engine that was built here; an ONNX file is built first.

        Raises also where trtexec alone is here, which compiles and does not infer.
        """
        from targets.tensorrt_cuda import open_cuda
        from targets.tensorrt_session import TensorRtSession

        engine = self._load(artifact, options)
        return TensorRtSession(_require_runtime(), engine.content, open_cuda())

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """List what the engine's inspector tells, with times by its profiler."""
        engine = self._load(artifact, options)
        runtime = _find_runtime()
        if runtime is None:
            from targets.tensorrt_trtexec import find_trtexec, inspect_engine

            program = find_trtexec()
            assert program is not None  # `_load` asked its version
            return inspect_engine(program, engine.content)
        from targets.tensorrt_cuda import open_cuda
        from targets.tensorrt_layers import read_layers
        from targets.tensorrt_session import TensorRtSession

        session = TensorRtSession(runtime, engine.content, open_cuda())
        return read_layers(session.describe_layers(), session.time_layers(INSPECTED_RUNS))

    def find_checker(self) -> str:
        """Return what `check_model` asks; see ChecksWithoutDevice."""
        from targets.tensorrt_check import find_checker

        return find_checker()

    def check_model(self, model: Path, shapes: Mapping[str, Sequence[int]], *, timeout_s: float) -> Acceptance:
        """Ask NVIDIA's parser and builder, which need no GPU; see ChecksWithoutDevice."""
        from targets.tensorrt_check import check_model

        return check_model(model, shapes, timeout_s=timeout_s)

    def _load(self, artifact: Path, options: RunOptions) -> Engine:
        """Return the engine of an artifact, once its key was compared with this device's."""
        engine = read_artifact(artifact)
        if engine is None:
            return self._build(artifact, options)
        require_same(artifact, engine.key, self._key(options))
        return engine

    def _build(self, model: Path, options: RunOptions) -> Engine:
        key, plan = self._key(options), self._plan(options)
        timings = find_cache("tensorrt")
        cache = None if timings is None else timings / f"{key.tensorrt}-{key.architecture}.timings"
        runtime = _find_runtime()
        if runtime is not None:
            return Engine(key, build_engine(runtime, model, plan, cache))
        from targets import tensorrt_trtexec

        program = tensorrt_trtexec.find_trtexec()
        assert program is not None  # `_key` asked its version
        return Engine(key, tensorrt_trtexec.build_engine(program, model, plan, cache))

    def _key(self, options: RunOptions) -> EngineKey:
        version, gpu = self.runtime_version(), probe_gpu()
        l4t = read_jetson(Path("/")).get("l4t", "none")
        return EngineKey(version, gpu.architecture, gpu.name, l4t, self._plan(options).flags())

    def _plan(self, options: RunOptions) -> BuildPlan:
        if options.precision not in self.float_types:
            raise ModelRefused(
                "precision: expected one of {}, which TensorRT is driven in here; got {!r}".format(
                    ", ".join(self.float_types), options.precision
                )
            )
        return BuildPlan(options.precision, self.processor, self.dla_core, self.largest_batch, self.workspace_mb)


def _find_runtime() -> Optional[ModuleType]:
    """Return the package; None where it is not installed."""
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        if getattr(error, "name", None) == "tensorrt":
            return None
        raise _no_package(str(error)) from error  # installed, and broken: a library of it is missing
    module: ModuleType = tensorrt
    return module


def _require_runtime() -> ModuleType:
    runtime = _find_runtime()
    if runtime is None:
        raise _no_package("trtexec alone, which builds engines and does not infer")
    return runtime


def _no_package(got: str) -> DeviceError:
    return DeviceError(f"tensorrt: expected the package tensorrt on the device; got {got}; {MEND}")
