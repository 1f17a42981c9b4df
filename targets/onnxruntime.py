"""ONNX Runtime on the CPU. Rule: the only file in which its name is imported, inside methods.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, ClassVar, Dict, Iterator, List, Literal, Mapping, Optional, Tuple, Type

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError, ModelRefused
from targets.runner.feeds import align, check_feeds, make_feeds
from targets.target import Arrays, Layer, RunOptions, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

INSPECTED_RUNS = 5
"""Runs over which the time of a layer is averaged."""

ELEMENT_TYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of element types, where NumPy's differ."""

INTEGER_OPS = re.compile(
    r"QLinear\w+|QGemm|QAttention|QOrdered\w+|QMoE|QEmbedLayerNormalization|ConvInteger|MatMulInteger\w*|"
    r"DynamicQuantize(MatMul|LSTM)|MatMulNBits|NhwcMaxPool"
)
"""Operators that compute in int8, whatever their scales' type."""

PRECISIONS = {"float": "fp32", "double": "fp64", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8"}
"""Element types of a trace, as precisions; others keep their names."""


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
    encoding: ClassVar[Encoding] = Encoding(signed="uint8", nonnegative="uint8", bias="int32", outputs=True)
    highest_opset: ClassVar[int] = 21

    def runtime_version(self) -> str:
        """Import the runtime and return its version; raises DeviceError where it is missing."""
        return str(_import_runtime().__version__)

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
            with _refusals(runtime, artifact.parent):
                session = runtime.InferenceSession(str(artifact), settings, providers=["CPUExecutionProvider"])
                feeds = make_feeds(_read_specs(session.get_inputs()), {}, seed=0)
                try:
                    for _ in range(INSPECTED_RUNS):
                        session.run(None, feeds)
                finally:
                    trace = Path(session.end_profiling())
            return read_layers(json.loads(trace.read_text(encoding="utf-8")), INSPECTED_RUNS)

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


def read_layers(events: List[Dict[str, object]], runs: int) -> List[Layer]:
    """Return the executed nodes of a trace (ONNX Runtime's profile, as JSON) in order of first execution."""
    total_us: Dict[str, float] = defaultdict(float)
    kinds: Dict[str, Tuple[str, str]] = {}
    for event in events:
        arguments = event.get("args")
        name = str(event["name"])
        if event.get("cat") != "Node" or not name.endswith("_kernel_time") or not isinstance(arguments, dict):
            continue
        name = name[: -len("_kernel_time")]
        total_us[name] += float(str(event["dur"]))
        kinds.setdefault(name, (str(arguments["op_name"]), _find_precision(arguments)))
    return [Layer(name, *kinds[name], time_ms=total / runs / 1000) for name, total in total_us.items()]


def _find_precision(arguments: Mapping[str, object]) -> str:
    """Return the type that a node computes in: int8 for integer operators, else that of its floats, if any."""
    if INTEGER_OPS.fullmatch(str(arguments["op_name"])):
        return "int8"
    types = [name for side in ("input", "output") for name in _list_types(arguments.get(f"{side}_type_shape"))]
    floats = [name for name in types if name in ("float", "double", "float16", "bfloat16")]
    return PRECISIONS.get((floats or types or ["none"])[0], (floats or types or ["none"])[0])


def _list_types(shapes: object) -> List[str]:
    return [name for entry in shapes for name in entry] if isinstance(shapes, list) else []


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
            "run: pip install 'edgeproof[onnxruntime]' (on a device of its own: pip install onnxruntime)"
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
