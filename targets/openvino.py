"""OpenVINO. Rule: the only file in which its name is imported, inside methods.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, ClassVar, Dict, Iterator, List, Literal, Mapping, Optional, Sequence, Tuple

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError, ModelRefused
from targets.fusion import FloatCause
from targets.runner.caches import find_cache
from targets.runner.feeds import align, check_feeds, make_feeds
from targets.target import Arrays, FloatType, Layer, RunOptions, TensorSpec

if TYPE_CHECKING:
    import openvino

COLD_RUNS, INSPECTED_RUNS = 5, 20
"""Inferences that do not count in the time of a layer, because the first of them packs weights, and those that do."""

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

FLOAT_KERNEL = "a float kernel only"
FOLDED_NORM = "use BatchNorm in the student, which folds into the convolution before it"

ADDED_TO_NAMES = re.compile(r"(/WithoutBiases|/DequantizationMultiply|_original)+$")
"""What its transformations append to the name of the node that a layer stands for."""

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
    """OpenVINO's name of the processor; AUTO lets it choose among those present."""
    model_cache: bool = field(default=False, metadata={"omitted_when_default": True})
    """Whether what was compiled is kept on the device (CACHE_DIR), which shortens loading, on GPU and NPU by minutes;
    applications must set it too to load as fast."""

    scheme: ClassVar[Scheme] = Scheme()
    post_training_scheme: ClassVar[Scheme] = Scheme(signed="skewed")  # zero point 0 is up to 15 % faster elsewhere
    encoding: ClassVar[Encoding] = Encoding(
        signed="int8",
        nonnegative="uint8",
        bias="float32",
        outputs=False,
        residual="rounded",
        concatenated="uint8",  # 2026.4.1 computes wrong values from int8 that comes out of a Concat
    )
    highest_opset: ClassVar[int] = 21
    artifact_suffix: ClassVar[str] = ".onnx"
    float_causes: ClassVar[Tuple[FloatCause, ...]] = (
        FloatCause(
            ("HardSigmoid", "Mul"),
            "HardSwish (as HardSigmoid and Mul)",
            "HardSigmoid has a reference kernel only",
            "write it as one operator: HardSwish of opset 14, from torch's Hardswish",
        ),
        FloatCause(
            ("HardSigmoid",), "HardSigmoid", "a reference kernel only", "use Sigmoid in the student, which is fused"
        ),
        FloatCause(("Softmax",), "Softmax", FLOAT_KERNEL, "none is needed: float is its way in attention"),
        FloatCause(("LayerNormalization",), "LayerNorm", FLOAT_KERNEL, FOLDED_NORM),
        FloatCause(
            ("Resize",), "interpolation", "only nearest neighbours are taken of codes", 'upsample with mode="nearest"'
        ),
        FloatCause(("Exp",), "Exp", FLOAT_KERNEL, "take it out of the student"),
    )
    float_types: ClassVar[Tuple[FloatType, ...]] = ("fp32", "bf16", "fp16")
    floats_in_file: ClassVar[bool] = False
    dynamic: ClassVar[bool] = False  # it decomposes DynamicQuantizeLinear into float operators

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

    def read_processor(self) -> Dict[str, str]:
        """Return the processors that it computes on, beside the CPU, which every identity names."""
        if self.device == "CPU":
            return {}
        core = _import_runtime().Core()
        names = core.available_devices if self.device == "AUTO" else [self.device]
        return {"processors": ", ".join(f"{name}: {core.get_property(name, 'FULL_DEVICE_NAME')}" for name in names)}

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Return the float types that OpenVINO counts among the processor's capabilities."""
        runtime = _import_runtime()
        with _refusals(runtime):
            return self._read_float_types(runtime.Core())

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
        for _ in range(COLD_RUNS - 1):  # one was run by `bind`
            infer()
        cold = {layer.name: layer for layer in read_layers(compiled.get_runtime_model().get_ordered_ops())}
        for _ in range(INSPECTED_RUNS):
            infer()
        warm = read_layers(compiled.get_runtime_model().get_ordered_ops())
        return [replace(layer, time_ms=_time_when_warm(cold.get(layer.name, layer), layer)) for layer in warm]

    def _compile_model(
        self, artifact: Path, options: RunOptions, extra: Mapping[str, object]
    ) -> openvino.CompiledModel:
        runtime = _import_runtime()
        core = runtime.Core()
        settings: Dict[str, object] = {
            "INFERENCE_PRECISION_HINT": self._choose_hint(core, options),
            "PERFORMANCE_HINT": "LATENCY",
            **extra,
        }
        on_cpu = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": options.threads}
        if self.device == "CPU":
            settings.update(on_cpu)
        elif self.device == "AUTO":  # without fallback: else it begins on the CPU, and changes while it is measured
            settings.update({"DEVICE_PROPERTIES": {"CPU": on_cpu}, "ENABLE_STARTUP_FALLBACK": False})
        cache = find_cache("openvino") if self.model_cache else None
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        with _refusals(runtime, artifact.parent):
            return core.compile_model(core.read_model(str(artifact)), self.device, settings)

    def _choose_hint(self, core: openvino.Core, options: RunOptions) -> str:
        """Refuse what the processor lacks: asked for f16, say, OpenVINO 2026.4 silently computes in bf16 or f32."""
        present = ("fp32",) if options.precision == "fp32" else self._read_float_types(core)
        if options.precision not in present:
            raise ModelRefused(
                f"precision: expected one of {', '.join(present)}, which OpenVINO computes in on this {self.device}; "
                f"got {options.precision!r}"
            )
        return HINTS[options.precision]

    def _read_float_types(self, core: openvino.Core) -> Tuple[FloatType, ...]:
        capabilities = core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        return tuple(name for name in self.float_types if name.upper() in capabilities)


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
        given = [feeds[spec.name] for spec in self.inputs]
        kept = [array if array.flags.writeable else array.copy() for array in given]  # what is shared must be writable
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


def read_layers(operations: Sequence[openvino.Node]) -> List[Layer]:
    """Return the executed layers of a runtime model in their order, with what each reads and its counted time."""
    facts = {operation.get_friendly_name(): _read_facts(operation) for operation in operations}
    read = {operation.get_friendly_name(): _read_edges(operation) for operation in operations}
    executed = sorted(
        (name for name, fact in facts.items() if _is_executed(fact)), key=lambda name: int(facts[name]["execOrder"])
    )
    layers = []
    for name in executed:
        fact = facts[name]
        reads = tuple(dict.fromkeys(found for edge in read[name] for found in _executed_before(edge, facts, read)))
        time_us = 0.0 if fact["execTimeMcs"] == NOT_EXECUTED else float(fact["execTimeMcs"])
        sources = tuple(ADDED_TO_NAMES.sub("", source) for source in fact["originalLayersNames"].split(",") if source)
        layers.append(
            Layer(
                name,
                fact["layerType"],
                find_precision(fact["primitiveType"], fact["runtimePrecision"]),
                time_ms=time_us / 1000,
                reads=reads,
                sources=tuple(dict.fromkeys(sources)),
                is_conversion=_converts(fact, [facts[edge] for edge in read[name]]),
            )
        )
    return layers


def _time_when_warm(cold: Layer, warm: Layer) -> float:
    """Return the mean time of the runs after the cold ones: counters are averages since the beginning."""
    total_ms = (COLD_RUNS + INSPECTED_RUNS) * (warm.time_ms or 0.0)
    return max(0.0, (total_ms - COLD_RUNS * (cold.time_ms or 0.0)) / INSPECTED_RUNS)


def _executed_before(name: str, facts: Mapping[str, Dict[str, str]], read: Mapping[str, List[str]]) -> Iterator[str]:
    """Yield the layer of that name, or those before it where it is not executed."""
    if _is_executed(facts[name]):
        yield name
    else:
        for edge in read[name]:
            yield from _executed_before(edge, facts, read)


def _read_edges(operation: openvino.Node) -> List[str]:
    return [port.get_source_output().get_node().get_friendly_name() for port in operation.inputs()]


def _converts(facts: Mapping[str, str], before: Sequence[Mapping[str, str]]) -> bool:
    """Tell a layer that only re-types or re-scales; a Reorder that keeps the type only changes the layout.

    Subgraphs of nothing but QuantizeLinear are found by their sources, in the model's file.
    """
    if facts["layerType"] in ("Reorder", "Convert"):
        return any(
            PRECISIONS.get(layer["outputPrecisions"]) != PRECISIONS.get(facts["outputPrecisions"])
            for layer in before[:1]
        )
    return facts["layerType"] in ("FakeQuantize", "Quantize")


def _is_executed(facts: Mapping[str, str]) -> bool:
    """Tell layers that compute from those that hold data, and from those done in place, which have no primitive.

    `not_executed` alone does not tell: it is also said of layers that take less than 1 us.
    """
    has_primitive = not facts["primitiveType"].startswith(("unknown", "undef"))
    return facts["layerType"] not in ("Const", "Input", "Output") and (
        has_primitive or facts["execTimeMcs"] != NOT_EXECUTED
    )


def _read_facts(operation: openvino.Node) -> Dict[str, str]:
    facts = operation.get_rt_info()
    absent = {"layerType": "unknown", "runtimePrecision": "unknown", "primitiveType": "unknown"}
    absent.update({"execTimeMcs": NOT_EXECUTED, "execOrder": "0", "originalLayersNames": "", "outputPrecisions": ""})
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


def _import_runtime() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(
            f"openvino: expected the package on the device; got {error}; "
            f"install it there: {sys.executable} -m pip install openvino"
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
