"""OpenVINO. Rule: the only file in which its name is imported, inside methods.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, ClassVar, Dict, Iterator, List, Literal, Mapping, Optional

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError, ModelRefused
from targets.runner.feeds import align, check_feeds, make_feeds
from targets.target import Arrays, Layer, RunOptions, TensorSpec

if TYPE_CHECKING:
    import openvino

INSPECTED_RUNS = 5
"""Runs after which the counters of a layer, which are averages, are read."""

NOT_EXECUTED = "not_executed"
"""A layer done in place, one that holds data, or one that takes less than 1 us."""

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
PRECISIONS = {
    **{"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"},
    **{"i64": "int64", "i32": "int32", "boolean": "bool"},
}
ELEMENT_TYPES = {
    **{"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "boolean": "bool", "string": "object"},
    **{"i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8"},
    **{"u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8"},
}
"""OpenVINO's names of element types, as NumPy's."""

NOISE = re.compile(
    r"Exception from .*|FrontEnd API failed with.*|Model wasn't fully converted.*|Summary:|Loading input model|"
    r"(\[ GENERAL_ERROR \] ?)|-- \S+ with a message:"
)
"""Lines of a refusal that say where in OpenVINO's sources it arose, not why."""


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO on Intel (and ARM) processors: reads ONNX itself, compiles at load time."""

    __pydantic_config__: ClassVar[Dict[str, object]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }

    kind: Literal["openvino"] = "openvino"
    """Which runtime."""
    device: Literal["CPU", "GPU", "NPU", "AUTO"] = "CPU"
    """OpenVINO's name of the processor."""

    scheme: ClassVar[Scheme] = Scheme()
    encoding: ClassVar[Encoding] = Encoding(signed="int8", nonnegative="uint8", bias="float32", outputs=False)
    highest_opset: ClassVar[int] = 21

    def runtime_version(self) -> str:
        """Import the runtime and return its version; raises DeviceError where it, or its processor, is missing."""
        runtime = _import_runtime()
        present = runtime.Core().available_devices
        if self.device != "AUTO" and not any(name.split(".")[0] == self.device for name in present):
            raise DeviceError(
                f"openvino: expected the processor {self.device}; got {', '.join(present)}; "
                f"install the driver of the {self.device}, or set device to one of those"
            )
        return str(runtime.__version__).split("-")[0]

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Compile the model on the device, so that a refusal shows here, and copy it.

        The artifact is the ONNX file: one file, read as it is. IR would be two, with 1.7 times its XML in
        bytes for an int8 model, and fp32 weights saved as fp16 unless told otherwise.
        """
        self.open(model, options)
        shutil.copyfile(model, artifact)

    def open(self, artifact: Path, options: RunOptions) -> OpenVinoSession:
        """Load a model with its float type pinned: the default computes fp32 as bf16 on some processors."""
        return OpenVinoSession(self._compile_model(artifact, options, {}))

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """List the executed layers of the runtime's model, with the counters of a few inferences."""
        compiled = self._compile_model(artifact, options, {"PERF_COUNT": True})
        session = OpenVinoSession(compiled)
        infer = session.bind(make_feeds(session.inputs, {}, seed=0))
        for _ in range(INSPECTED_RUNS):
            infer()
        operations = compiled.get_runtime_model().get_ordered_ops()
        facts = [(operation.get_friendly_name(), _read_facts(operation)) for operation in operations]
        executed = [(name, fact) for name, fact in facts if _is_executed(fact)]
        executed.sort(key=lambda item: int(item[1]["execOrder"]))
        return [_read_layer(name, fact) for name, fact in executed]

    def _compile_model(
        self, artifact: Path, options: RunOptions, extra: Mapping[str, object]
    ) -> openvino.CompiledModel:
        runtime = _import_runtime()
        settings: Dict[str, object] = {
            "INFERENCE_PRECISION_HINT": _choose_hint(options),
            "PERFORMANCE_HINT": "LATENCY",
            **extra,
        }
        if self.device == "CPU":
            settings.update({"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": options.threads})
        with _refusals(runtime, artifact.parent):
            core = runtime.Core()
            return core.compile_model(core.read_model(str(artifact)), self.device, settings)


class OpenVinoSession:
    """A compiled model with one request."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self.inputs = tuple(_read_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_read_spec(port) for port in compiled.outputs)

    def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
        """Share the feeds' memory with a request (7 us a call against 55 us for a dictionary of feeds)."""
        check_feeds(self.inputs, feeds)
        runtime = _import_runtime()
        kept = [feeds[spec.name] for spec in self.inputs]
        with _refusals(runtime):
            request = self._compiled.create_infer_request()
            for index, array in enumerate(kept):
                request.set_input_tensor(index, _make_tensor(runtime, array))
            request.infer()
            outputs = self._share_outputs(runtime, request)
        names = [spec.name for spec in self.outputs]
        run = request.infer

        def infer(_feeds: List[np.ndarray] = kept) -> Arrays:  # the default keeps the shared memory alive
            try:
                run()
            except RuntimeError as error:
                raise _refuse(runtime, error) from error
            return outputs or {name: request.get_output_tensor(index).data for index, name in enumerate(names)}

        return infer

    def _share_outputs(self, runtime: ModuleType, request: openvino.InferRequest) -> Arrays:
        """Let the request write into arrays of ours, which saves 4 us a call; none where a shape depends on data."""
        values = [request.get_output_tensor(index).data for index in range(len(self.outputs))]
        if any(value.size == 0 or value.shape != spec.shape for value, spec in zip(values, self.outputs)):
            return {}
        outputs = {spec.name: align(value) for value, spec in zip(values, self.outputs)}
        for index, array in enumerate(outputs.values()):
            request.set_output_tensor(index, _make_tensor(runtime, array))
        return outputs


def find_precision(primitive: str, precision: str) -> str:
    """Return the type that a layer computes in.

    The primitive's last word tells: `brgconv_avx512_f32` computes in float even where OpenVINO's
    `runtimePrecision`, the type of the tensors, says i8.
    """
    computed = primitive.rsplit("_", 1)[-1].lower()
    return PRECISIONS.get(computed, PRECISIONS.get(precision.lower(), precision.lower()))


def _is_executed(facts: Mapping[str, str]) -> bool:
    """Tell layers that compute from those that hold data, and from those done in place, which have no primitive.

    `not_executed` alone does not tell: it is also said of layers that take less than 1 us.
    """
    has_primitive = not facts["primitiveType"].startswith(("unknown", "undef"))
    return facts["layerType"] not in ("Const", "Input", "Output") and (
        has_primitive or facts["execTimeMcs"] != NOT_EXECUTED
    )


def _read_layer(name: str, facts: Mapping[str, str]) -> Layer:
    precision = find_precision(facts["primitiveType"], facts["runtimePrecision"])
    time_us = 0.0 if facts["execTimeMcs"] == NOT_EXECUTED else float(facts["execTimeMcs"])
    return Layer(name, facts["layerType"], precision, time_ms=time_us / 1000)


def _read_facts(operation: openvino.Node) -> Dict[str, str]:
    facts = operation.get_rt_info()
    absent = {"layerType": "unknown", "runtimePrecision": "unknown", "primitiveType": "unknown"}
    absent.update({"execTimeMcs": NOT_EXECUTED, "execOrder": "0"})
    return {key: str(facts[key].astype(str)) if key in facts else value for key, value in absent.items()}


def _read_spec(port: openvino.ConstOutput) -> TensorSpec:
    # A port has an alias for each op that was folded into it; its node keeps the name of the ONNX file.
    name = port.get_node().get_friendly_name().rsplit("/sink_port_", 1)[0]
    names = sorted(port.get_names())
    element = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise ModelRefused(
            f"tensor {name!r}: expected a known number of dimensions; got a dynamic rank; export it with one"
        )
    sizes = tuple(size.get_length() if size.is_static else None for size in shape)
    return TensorSpec(name if name in names or not names else names[0], ELEMENT_TYPES.get(element, element), sizes)


def _make_tensor(runtime: ModuleType, array: np.ndarray) -> openvino.Tensor:
    if array.size == 0:  # there is no memory to share
        return runtime.Tensor(runtime.Type(array.dtype), runtime.Shape(list(array.shape)))
    return runtime.Tensor(array, shared_memory=True)


def _choose_hint(options: RunOptions) -> str:
    if options.precision not in HINTS:
        raise ModelRefused(f"precision: expected one of {', '.join(HINTS)} for OpenVINO; got {options.precision!r}")
    return HINTS[options.precision]


def _import_runtime() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(
            f"openvino: expected the package on the device; got {error}; "
            "run: pip install 'edgeproof[openvino]' (on a device of its own: pip install openvino)"
        ) from error
    module: ModuleType = openvino
    return module


@contextmanager
def _refusals(runtime: ModuleType, folder: Optional[Path] = None) -> Iterator[None]:
    """Turn the runtime's exceptions into ModelRefused with its reason in one line, without the device's folder."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refuse(runtime, error, folder) from error


def _refuse(runtime: ModuleType, error: BaseException, folder: Optional[Path] = None) -> ModelRefused:
    version = str(runtime.__version__).split("-")[0]
    reason = find_reason(str(error) if folder is None else str(error).replace(f"{folder}/", ""))
    return ModelRefused(f"openvino {version} refuses the model: {reason}")


def find_reason(message: str) -> str:
    """Return the first line of OpenVINO's message that gives a reason rather than a place in its sources."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reasons = [line for line in lines if not NOISE.fullmatch(line)]
    plain = [line for line in reasons if not line.startswith(("Check '", "While validating"))]
    chosen = (plain or reasons or lines or ["no reason given"])[0]
    chosen = re.sub(r" failed at src/\S+:\d+:?$", " failed", chosen)
    return chosen[2:].strip() if chosen.startswith("--") else chosen
