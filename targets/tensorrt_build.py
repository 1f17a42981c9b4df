"""Builds engines through TensorRT's Python API: one code path for 8.5 to 11, where names that vanished are probed for.

Rule: Q/DQ in the file and nothing else make int8; float types come from the file. What 8.x and DLAs need besides are
flags. Devices carry this file: Python 3.8, standard library only; TensorRT is handed in.

Nothing here was executed with TensorRT itself: contract tests hold it (tests/targets/test_tensorrt_contract.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

from targets.errors import DeviceError, ModelRefused
from targets.onnx_nodes import read_nodes
from targets.tensorrt_words import explain, in_one_line

if TYPE_CHECKING:
    import tensorrt as trt

CODES = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class BuildPlan:
    """What the builder is told."""

    precision: str
    """The float type of the file: fp32 or fp16."""
    processor: str
    """GPU or DLA."""
    dla_core: int
    largest_batch: int
    """Of inputs whose batch is open."""
    workspace_mb: Optional[int]
    """None: all that is free."""

    def flags(self) -> Dict[str, str]:
        """Return what tells two engines of one file apart."""
        return {
            "processor": self.processor if self.processor == "GPU" else f"DLA {self.dla_core}",
            "precision": self.precision,
            "largest_batch": str(self.largest_batch),
            "workspace_mb": "any" if self.workspace_mb is None else str(self.workspace_mb),
        }


def make_log(runtime: ModuleType) -> "trt.ILogger":
    """Return a logger that keeps errors in `messages`, which TensorRT tells nowhere else."""

    class Log(runtime.ILogger):  # type: ignore[misc, name-defined]  # a class of the module handed in
        """Keeps errors."""

        def __init__(self) -> None:
            runtime.ILogger.__init__(self)
            self.messages: List[str] = []

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            """Keep what is at least an error."""
            if severity in (runtime.ILogger.ERROR, runtime.ILogger.INTERNAL_ERROR):
                self.messages.append(msg)

    return Log()


def require_buildable(content: bytes, plan: BuildPlan) -> bool:
    """Tell whether an ONNX file holds codes; raises ModelRefused where its processor could not compute it."""
    try:
        has_codes = any(node.op_type in CODES for node in read_nodes(content))
    except ValueError:
        has_codes = False  # no ONNX: the parser says so in its words
    if plan.processor == "DLA" and has_codes:
        raise ModelRefused(
            'target.processor: expected "GPU" for an int8 model; got "DLA", which computes int8 by calibration inside '
            "of TensorRT only (implicit quantization, gone in TensorRT 11), not by the Q/DQ of a file; set "
            'precision = "fp16" to deploy to the DLA, or processor = "GPU"'
        )
    if plan.processor == "DLA" and plan.precision != "fp16":
        raise ModelRefused(
            f'precision: expected "fp16" on a DLA, which does not compute in float32; got "{plan.precision}"; '
            'set precision = "fp16", or processor = "GPU"'
        )
    return has_codes


def build_engine(runtime: ModuleType, model: Path, plan: BuildPlan, timing_cache: Optional[Path]) -> bytes:
    """Return the serialized engine of an ONNX file.

    Args:
        runtime: the module `tensorrt`.
        model: one file, weights included.
        plan: what the builder is told.
        timing_cache: file of kernel timings, read where it fits and written; None for none.

    Raises:
        ModelRefused: parser or builder refuse the model; quotes the reason in one line.
        DeviceError: there is no DLA.
    """
    content = model.read_bytes()
    has_codes = require_buildable(content, plan)
    log = make_log(runtime)
    builder = runtime.Builder(log)
    is_strong = is_strongly_typed(runtime, plan)
    network = builder.create_network(creation_flags(runtime, is_strong))
    parser = runtime.OnnxParser(network, log)
    if not parser.parse(content, str(model)):
        raise _refused(runtime, _parser_reason(parser, log.messages))
    config = builder.create_builder_config()
    if not is_strong:
        _set_precisions(runtime, config, plan, has_codes)
    config.clear_flag(runtime.BuilderFlag.TF32)  # float32 means float32, as on every target
    config.profiling_verbosity = runtime.ProfilingVerbosity.DETAILED
    if plan.workspace_mb is not None:
        config.set_memory_pool_limit(runtime.MemoryPoolType.WORKSPACE, plan.workspace_mb << 20)
    if plan.processor == "DLA":
        _use_dla(runtime, builder, config, plan.dla_core)
    _open_batch(builder, network, config, plan.largest_batch)
    _read_timings(config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _refused(runtime, _first(log.messages))
    _write_timings(config, timing_cache)
    return bytes(engine)


def is_strongly_typed(runtime: ModuleType, plan: BuildPlan) -> bool:
    """Tell whether every tensor has the file's type: always since 11, by choice in 10, never in 8.

    DLAs need the weak types of 10, whose builder moves tensors into the forms that they read.
    """
    if not hasattr(runtime.BuilderFlag, "FP16"):
        return True
    return plan.processor == "GPU" and hasattr(runtime.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def creation_flags(runtime: ModuleType, is_strong: bool) -> int:
    """Return the bits for `create_network`: explicit batches had to be asked for in 8, strong types in 10."""
    flags = runtime.NetworkDefinitionCreationFlag
    wanted = ("EXPLICIT_BATCH", *(("STRONGLY_TYPED",) if is_strong else ()))
    return sum(1 << int(getattr(flags, name)) for name in wanted if hasattr(flags, name))


def _set_precisions(runtime: ModuleType, config: "trt.IBuilderConfig", plan: BuildPlan, has_codes: bool) -> None:
    """Allow the types that the file holds, which a weakly typed network computes in only where it is allowed to."""
    flags = runtime.BuilderFlag
    if has_codes:
        config.set_flag(flags.INT8)
    if plan.precision == "fp16":
        config.set_flag(flags.FP16)


def _use_dla(runtime: ModuleType, builder: "trt.Builder", config: "trt.IBuilderConfig", core: int) -> None:
    if builder.num_DLA_cores <= core:
        raise DeviceError(
            'target.processor: expected DLA core {} on this device; got {} of them; set processor = "GPU"{}'.format(
                core, builder.num_DLA_cores, ", or dla_core = 0" if builder.num_DLA_cores else ""
            )
        )
    config.default_device_type = runtime.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(runtime.BuilderFlag.GPU_FALLBACK)


def _open_batch(
    builder: "trt.Builder", network: "trt.INetworkDefinition", config: "trt.IBuilderConfig", largest_batch: int
) -> None:
    """Let inputs with an open batch take 1 to `largest_batch` samples; kernels are chosen for 1."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    opened = [(each.name, tuple(each.shape)) for each in inputs if -1 in tuple(each.shape)]
    for name, sizes in opened:
        if -1 in sizes[1:] or sizes[0] != -1:
            text = "x".join("?" if size == -1 else str(size) for size in sizes)
            raise ModelRefused(
                f"input {name!r}: expected fixed sizes, apart from the batch; got {text}; export the model with a "
                "static shape, which TensorRT chooses its kernels for"
            )
    if not opened:
        return
    profile = builder.create_optimization_profile()
    for name, (_, *fixed) in opened:
        profile.set_shape(name, (1, *fixed), (1, *fixed), (largest_batch, *fixed))
    config.add_optimization_profile(profile)


def _read_timings(config: "trt.IBuilderConfig", path: Optional[Path]) -> None:
    if path is None:
        return
    content = path.read_bytes() if path.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)  # of another GPU or version


def _write_timings(config: "trt.IBuilderConfig", path: Optional[Path]) -> None:
    if path is None:
        return
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(bytes(config.get_timing_cache().serialize()))
    partial.replace(path)  # two jobs may write at once: the last one wins, and each is whole


def _parser_reason(parser: "trt.OnnxParser", messages: Sequence[str]) -> str:
    if not parser.num_errors:
        return _first(messages)
    node, op_type, message = _describe(parser.get_error(0))
    place = f"node {node!r} ({op_type}): " if op_type else ""
    objection = explain("parser", (message,), node, op_type)
    if not objection.is_fatal:  # known of the stand-in that checks without a device, not of TensorRT
        return f"{place}{objection.said}"
    return f"{place}{objection.reason}; {objection.remedy} (it said: {objection.said})"


def _describe(error: "trt.ParserError") -> Tuple[str, str, str]:
    """Return the node's name and operator, which 8.x does not tell, and what the parser says."""
    known = (error.node_name(), error.node_operator()) if hasattr(error, "node_name") else ("", "")
    return (*known, error.desc())


def _first(messages: Sequence[str]) -> str:
    return in_one_line(messages[0]) if messages else "it gives no reason"


def _refused(runtime: ModuleType, reason: str) -> ModelRefused:
    return ModelRefused(f"tensorrt {runtime.__version__} refuses the model: {reason}")
