"""The null target: the working fake, which evaluates ONNX as written with onnx's reference evaluator.

Rule: slow and right. Devices carry this file: Python 3.8, standard library and NumPy only at module level.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Callable, ClassVar, Dict, Iterator, List, Literal, Mapping, Tuple

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError, ModelRefused
from targets.fusion import FloatCause
from targets.runner.feeds import check_feeds
from targets.target import Arrays, FloatType, Layer, RunOptions, TensorSpec

if TYPE_CHECKING:
    import onnx
    from onnx.reference import ReferenceEvaluator


@dataclass(frozen=True)
class Null:
    """No runtime: onnx's reference evaluator, for tests of everything around a runtime."""

    __pydantic_config__: ClassVar[Dict[str, object]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }

    kind: Literal["null"] = "null"
    """Which runtime."""
    latency_ms: float = 0.0
    """Busy waiting that is added to each inference."""

    scheme: ClassVar[Scheme] = Scheme()
    post_training_scheme: ClassVar[Scheme] = Scheme()
    encoding: ClassVar[Encoding] = Encoding(signed="int8", nonnegative="uint8", bias="int32", outputs=True)
    highest_opset: ClassVar[int] = 21
    artifact_suffix: ClassVar[str] = ".onnx"
    float_causes: ClassVar[Tuple[FloatCause, ...]] = ()
    float_types: ClassVar[Tuple[FloatType, ...]] = ("fp32",)
    floats_in_file: ClassVar[bool] = True
    dynamic: ClassVar[bool] = True  # as every target whose file decides, it evaluates what stands there

    def runtime_version(self) -> str:
        """Import onnx and return its version; raises DeviceError where it is missing."""
        return str(_import_onnx().__version__)

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Return fp32: what it evaluates in on every processor."""
        return self.float_types

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Load the model, so that a refusal shows here, and copy it."""
        self.open(model, options)
        shutil.copyfile(model, artifact)

    def open(self, artifact: Path, options: RunOptions) -> NullSession:
        """Load a model; threads mean nothing here."""
        if options.precision != "fp32":
            raise ModelRefused(f"precision: expected fp32, which null evaluates in; got {options.precision!r}")
        onnx = _import_onnx()
        with _refusals():
            model = _load(onnx, artifact)
            evaluator = onnx.reference.ReferenceEvaluator(model)
        return NullSession(evaluator, _read_specs(model, "input"), _read_specs(model, "output"), self.latency_ms)

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """List the nodes of the file: they are what runs, in float."""
        with _refusals():
            graph = _load(_import_onnx(), artifact).graph
        return [Layer(node.name or f"{node.op_type}_{i}", node.op_type, "fp32") for i, node in enumerate(graph.node)]


class NullSession:
    """A loaded model."""

    def __init__(
        self,
        evaluator: ReferenceEvaluator,
        inputs: Tuple[TensorSpec, ...],
        outputs: Tuple[TensorSpec, ...],
        latency_ms: float,
    ) -> None:
        self._evaluator = evaluator
        self._latency_ns = int(latency_ms * 1e6)
        self.inputs = inputs
        self.outputs = outputs

    def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
        """Infer once, to see that the feeds fit, and return how to infer again."""
        check_feeds(self.inputs, feeds)
        kept = dict(feeds)
        names = [spec.name for spec in self.outputs]

        def infer() -> Arrays:
            end = time.perf_counter_ns() + self._latency_ns
            with _refusals():
                values = self._evaluator.run(None, kept)
            while time.perf_counter_ns() < end:
                pass
            return dict(zip(names, map(np.asarray, values)))

        infer()
        return infer


def _load(package: ModuleType, path: Path) -> onnx.ModelProto:
    model: onnx.ModelProto = package.load(str(path))
    if not model.graph.output:  # bytes that are not ONNX can parse as an empty message
        raise ValueError("the file holds no graph with outputs")
    return model


def _read_specs(model: onnx.ModelProto, side: Literal["input", "output"]) -> Tuple[TensorSpec, ...]:
    onnx = _import_onnx()
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in getattr(model.graph, side) if side == "output" or value.name not in constants]
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
        element = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else "unknown"
        specs.append(TensorSpec(value.name, str(element), shape))
    return tuple(specs)


def _import_onnx() -> ModuleType:
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise DeviceError(
            f"null: expected the package onnx; got {error}; install it there: {sys.executable} -m pip install onnx"
        ) from error
    module: ModuleType = onnx
    return module


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the evaluator raises into ModelRefused with its reason in one line."""
    from google.protobuf.message import DecodeError

    errors = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, DecodeError)
    try:
        yield
    except errors as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelRefused(f"null (onnx's reference evaluator) refuses the model: {reason}") from error
