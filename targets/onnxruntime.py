"""ONNX Runtime on the CPU. Rule: its name is imported inside methods, here and in onnxruntime_ort_writer.py alone.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Callable,
    ClassVar,
    Dict,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
)

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError, ModelRefused
from targets.fusion import FloatCause
from targets.onnx_nodes import read_nodes
from targets.onnxruntime_trace import drop_first_run, read_layers
from targets.runner.facts import read_cpu_features
from targets.runner.feeds import align, check_feeds, make_feeds
from targets.target import Arrays, FloatType, Layer, RunOptions, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

INSPECTED_RUNS = 10
"""Runs over which the time of a layer is averaged, after a cold one."""

ELEMENT_TYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of element types, where NumPy's differ."""

NO_KERNEL = "no integer kernel"
RECTIFIER = "use ReLU or ReLU6 in the student"
ELSEWHERE = f"{RECTIFIER}, or target openvino, which fuses it"
FOLDED_NORM = "use BatchNorm in the student, which folds into the convolution before it"


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime's CPU provider: one portable ONNX file, all fusions at load time."""

    __pydantic_config__: ClassVar[Dict[str, object]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }

    kind: Literal["onnxruntime"] = "onnxruntime"
    """Which runtime."""
    graph_optimization: Literal["all", "none"] = "all"
    """`all` fusions, or `none`: ONNX as written, the reference for what the runtime's fusions change."""

    scheme: ClassVar[Scheme] = Scheme()
    post_training_scheme: ClassVar[Scheme] = Scheme(signed="asymmetric")  # any zero point is as fast as 128
    encoding: ClassVar[Encoding] = Encoding(signed="uint8", nonnegative="uint8", bias="int32", outputs=True)
    highest_opset: ClassVar[int] = 21
    artifact_suffix: ClassVar[str] = ".onnx"
    float_causes: ClassVar[Tuple[FloatCause, ...]] = (
        FloatCause(("HardSwish",), "HardSwish", NO_KERNEL, ELSEWHERE),
        FloatCause(("HardSigmoid", "Mul"), "HardSwish (as HardSigmoid and Mul)", NO_KERNEL, ELSEWHERE),
        FloatCause(("Sigmoid", "Mul"), "SiLU", "no integer kernel of Sigmoid and Mul together", ELSEWHERE),
        FloatCause(("Softplus", "Tanh", "Mul"), "Mish", NO_KERNEL, ELSEWHERE),
        FloatCause(("HardSigmoid",), "HardSigmoid", NO_KERNEL, "use Sigmoid in the student, which has one"),
        FloatCause(("PRelu",), "PReLU", NO_KERNEL, "use LeakyReLU or ReLU in the student, or target openvino"),
        FloatCause(("Mish",), "Mish", NO_KERNEL, ELSEWHERE),
        FloatCause(("Gelu",), "GELU", NO_KERNEL, ELSEWHERE),
        FloatCause(("Erf",), "GELU, or another use of Erf", NO_KERNEL, ELSEWHERE),
        FloatCause(("Elu",), "ELU", NO_KERNEL, ELSEWHERE),
        FloatCause(("Tanh",), "Tanh", NO_KERNEL, f"{ELSEWHERE}; Sigmoid has one too"),
        FloatCause(("Softplus",), "Softplus", NO_KERNEL, RECTIFIER),
        FloatCause(("Exp",), "Exp", NO_KERNEL, "take it out of the student"),
        FloatCause(("LayerNormalization",), "LayerNorm", NO_KERNEL, FOLDED_NORM),
        FloatCause(("InstanceNormalization",), "InstanceNorm", NO_KERNEL, FOLDED_NORM),
        FloatCause(("GroupNormalization",), "GroupNorm", NO_KERNEL, FOLDED_NORM),
        FloatCause(
            ("BatchNormalization",),
            "BatchNorm",
            "no integer kernel, and no convolution right before it to fold it into",
            "put it right behind a convolution in the student",
        ),
        FloatCause(
            ("ReduceMean",),
            "a mean",
            NO_KERNEL,
            "average over both image axes (AdaptiveAvgPool2d(1)), whose operator has one",
        ),
        FloatCause(
            ("Resize",),
            "interpolation",
            "only nearest neighbours can be taken of codes",
            'upsample with mode="nearest" in the student',
        ),
        FloatCause(
            ("ConvTranspose",),
            "ConvTranspose",
            NO_KERNEL,
            "use nearest upsampling and a convolution in the student, or target openvino",
        ),
        FloatCause(("Pad",), "padding", NO_KERNEL, "let the convolution behind it pad with zeros"),
        FloatCause(("Sub",), "subtraction", NO_KERNEL, "add the negated tensor in the student"),
        FloatCause(("Div",), "division", NO_KERNEL, "multiply by the reciprocal, or scale the weights before it"),
        FloatCause(
            ("Relu",),
            "ReLU",
            "nothing absorbs it: another operator reads what is before it, or its grid reaches below zero",
            "let ReLU be the only reader of the operator before it",
        ),
        FloatCause(
            ("Clip",),
            "ReLU6, or another Clip",
            "nothing absorbs it: another operator reads what is before it, or its grid reaches beyond the limits",
            "let it be the only reader of the operator before it, or use ReLU",
        ),
    )
    float_types: ClassVar[Tuple[FloatType, ...]] = (
        "fp32",
    )  # float16 files run through casts to float32 (1.31, x86-64)
    floats_in_file: ClassVar[bool] = True
    dynamic: ClassVar[bool] = True

    def runtime_version(self) -> str:
        """Import the runtime and return its version; raises DeviceError where it is missing."""
        return str(_import_runtime().__version__)

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Return fp32, on every processor: its float16 kernels for some ARM ones are not driven."""
        return self.float_types

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Load the model, so that a refusal shows here, and copy it: the ONNX file is what runs in the field."""
        self.open(model, options)
        shutil.copyfile(model, artifact)

    def open(self, artifact: Path, options: RunOptions) -> OnnxRuntimeSession:
        """Load a model. Spinning threads help only where there are several."""
        runtime = _import_runtime()
        settings = self._make_settings(runtime, options)
        with _refusals(runtime, artifact.parent):
            session = runtime.InferenceSession(str(artifact), settings, providers=["CPUExecutionProvider"])
        return OnnxRuntimeSession(runtime, session)

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """List the nodes that a trace of a few inferences shows, with the mean time of each."""
        runtime = _import_runtime()
        settings = self._make_settings(runtime, options)
        with tempfile.TemporaryDirectory(prefix="trace-") as folder:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "trace")
            optimized = Path(folder) / "optimized.onnx"
            settings.optimized_model_filepath = str(optimized)
            settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            with _refusals(runtime, artifact.parent):
                session = runtime.InferenceSession(str(artifact), settings, providers=["CPUExecutionProvider"])
                feeds = make_feeds(_read_specs(session.get_inputs()), {}, seed=0)
                try:
                    for _ in range(1 + INSPECTED_RUNS):
                        session.run(None, feeds)
                finally:
                    trace = Path(session.end_profiling())
            events = drop_first_run(json.loads(trace.read_text(encoding="utf-8")))
            return read_layers(events, INSPECTED_RUNS, read_nodes(optimized.read_bytes()))

    def _make_settings(self, runtime: ModuleType, options: RunOptions) -> onnxruntime.SessionOptions:
        if options.precision != "fp32":
            raise ModelRefused(
                f"precision: expected fp32 for onnxruntime; got {options.precision!r}; "
                "it computes in the types of the file: pin fp32, or export the model in that type"
            )
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        level = "ORT_ENABLE_ALL" if self.graph_optimization == "all" else "ORT_DISABLE_ALL"
        settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.threads > 1 else "0")
        if saturates_int8(platform.machine(), read_cpu_features()):
            settings.add_session_config_entry("session.x64quantprecision", "1")
        settings.log_severity_level = 4  # refusals are raised, so its own log would only repeat them
        return settings


class OnnxRuntimeSession:
    """A loaded model."""

    def __init__(self, runtime: ModuleType, session: onnxruntime.InferenceSession) -> None:
        self._runtime = runtime
        self._session = session
        self.inputs = _read_specs(session.get_inputs())
        self.outputs = _read_specs(session.get_outputs())

    def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
        """Infer once, to see that the feeds fit, and return the fastest way to infer again.

        Outputs of known shape are written in place through an IOBinding, which saves 2 us a call against
        `session.run` (1.31, x86-64); outputs whose shape depends on data cannot be.
        """
        check_feeds(self.inputs, feeds)
        kept = dict(feeds)
        with _refusals(self._runtime):
            values = self._session.run(None, kept)
        outputs = dict(zip((spec.name for spec in self.outputs), values))
        is_static = all(_is_preallocatable(value, spec) for value, spec in zip(values, self.outputs))
        return self._bind_in_place(kept, outputs) if is_static else self._bind_by_run(kept)

    def _bind_in_place(self, feeds: Arrays, outputs: Arrays) -> Callable[[], Arrays]:
        # Arrays that the runtime returned are its own memory: results go to ours.
        owned = {name: align(value) for name, value in outputs.items()}
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in owned.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        run, errors, runtime = self._session.run_with_iobinding, _vendor_errors(self._runtime), self._runtime

        def infer(_feeds: Arrays = feeds) -> Arrays:  # the default keeps the bound memory alive
            try:
                run(binding)
            except errors as error:
                raise _refuse(runtime, error) from error
            return owned

        return infer

    def _bind_by_run(self, feeds: Arrays) -> Callable[[], Arrays]:
        names = [spec.name for spec in self.outputs]
        run, errors, runtime = self._session.run, _vendor_errors(self._runtime), self._runtime

        def infer() -> Arrays:
            try:
                return dict(zip(names, run(None, feeds)))
            except errors as error:
                raise _refuse(runtime, error) from error

        return infer


def saturates_int8(machine: str, features: Sequence[str]) -> bool:
    """Tell whether products of uint8 and int8 codes can overflow on a processor.

    x86 without VNNI adds pairs of such products in 16 bits (vpmaddubsw), which 255 x 127 x 2 exceeds. ONNX Runtime
    then needs `session.x64quantprecision`, which turns weights to uint8 at load time: slower kernels, right results. It
    knows by itself where they are not needed, so that a processor whose features are unknown counts as one without.
    """
    is_x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686", "x86")
    return is_x86 and not {"avx_vnni", "avx512_vnni"} & set(features)


def _read_specs(nodes: List[onnxruntime.NodeArg]) -> Tuple[TensorSpec, ...]:
    return tuple(TensorSpec(node.name, _read_element_type(node.type), _read_shape(node.shape)) for node in nodes)


def _read_element_type(text: str) -> str:
    """Return NumPy's name for `tensor(float)`; what is not a tensor of numbers keeps its name."""
    match = re.fullmatch(r"tensor\((\w+)\)", text)
    return ELEMENT_TYPES.get(match.group(1), match.group(1)) if match else text


def _read_shape(shape: Optional[List[object]]) -> Tuple[Optional[int], ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in shape or [])


def _is_preallocatable(value: object, spec: TensorSpec) -> bool:
    """Tell whether every inference writes the same bytes: an array of numbers, of the shape that the model declares."""
    return isinstance(value, np.ndarray) and value.dtype != object and value.size > 0 and value.shape == spec.shape


def _import_runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f"onnxruntime: expected the package on the device; got {error}; "
            f"install it there: {sys.executable} -m pip install onnxruntime"
        ) from error
    module: ModuleType = onnxruntime
    return module


def _vendor_errors(runtime: ModuleType) -> Tuple[Type[BaseException], ...]:
    """Return the exceptions of the runtime; its C++ half derives each of them from Exception, without a common root."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


@contextmanager
def _refusals(runtime: ModuleType, folder: Optional[Path] = None) -> Iterator[None]:
    """Turn the runtime's exceptions into ModelRefused with its reason in one line, without the device's folder."""
    try:
        yield
    except _vendor_errors(runtime) as error:
        raise _refuse(runtime, error, folder) from error


def _refuse(runtime: ModuleType, error: BaseException, folder: Optional[Path] = None) -> ModelRefused:
    text = str(error).strip() or type(error).__name__
    text = text if folder is None else text.replace(f"{folder}/", "")
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"Load model from .*? failed:", "", text)
    return ModelRefused(f"onnxruntime {runtime.__version__} refuses the model: {text.splitlines()[0].strip()}")
