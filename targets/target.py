"""The seam between the chain and a runtime: Target and Session, and the values that cross it.

Rule: devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Literal, Mapping, Optional, Protocol, Tuple, runtime_checkable

import numpy as np

from calibration.scheme import Encoding, Scheme
from targets.fusion import FloatCause

Arrays = Dict[str, np.ndarray]
"""Tensors by name, in the model's own types and shapes."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type (NumPy's name) and shape of one input or output; an unknown dimension is None."""

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]


@dataclass(frozen=True)
class Layer:
    """One executed operator: what really runs, after the runtime's own fusions."""

    name: str
    op_type: str
    precision: str
    """Of the computation: int8, fp32, bf16, fp16, or another element type's name; never of the storage alone."""
    time_ms: Optional[float] = None
    """Time of one inference in this operator, the mean or the median of several, where the runtime counts it."""
    reads: Tuple[str, ...] = ()
    """Names of the executed operators whose outputs it reads, where the runtime tells; inputs and weights are none."""
    sources: Tuple[str, ...] = ()
    """What it computes, as names of nodes (or of their outputs) in the model's file, where the runtime tells."""
    is_conversion: bool = False
    """Whether it only turns values into codes, codes into values, or codes of one grid into those of another."""


@dataclass(frozen=True)
class RunOptions:
    """How a model is to be run: a part of every measurement's context."""

    threads: int = 1
    precision: str = "fp32"
    """The float type pinned for what is not int8: fp32 (also for int8 models), bf16 or fp16."""


FloatType = Literal["fp32", "bf16", "fp16"]
"""Float types that models can compute in, the most exact first."""


class Session(Protocol):
    """A loaded model, ready to infer."""

    @property
    def inputs(self) -> Tuple[TensorSpec, ...]:
        """The model's inputs, in its order."""
        ...

    @property
    def outputs(self) -> Tuple[TensorSpec, ...]:
        """The model's outputs, in its order."""
        ...

    def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
        """Return a function that infers once on `feeds`, host to host, with as little Python as possible.

        Every call reads `feeds` anew, so a caller may refill them. The arrays that it returns may be
        overwritten by its next call. Raises ModelRefused where the feeds do not fit the inputs.
        """
        ...


class Target(Protocol):
    """A runtime: data that the chain obeys, what it says of itself, and three methods; all run ON the device."""

    @property
    def kind(self) -> str:
        """The word that names it in a recipe."""
        ...

    @property
    def scheme(self) -> Scheme:
        """The grid on which quantized models for it are trained."""
        ...

    @property
    def post_training_scheme(self) -> Scheme:
        """The grid on which ONNX files are quantized for it without training."""
        ...

    @property
    def encoding(self) -> Encoding:
        """The form of Q/DQ that it fuses."""
        ...

    @property
    def highest_opset(self) -> int:
        """The highest ONNX opset that it reads."""
        ...

    @property
    def artifact_suffix(self) -> str:
        """How the name of what `compile` writes ends."""
        ...

    @property
    def float_types(self) -> Tuple[FloatType, ...]:
        """The float types that it computes in on some processor; `find_float_types` tells of the one at hand."""
        ...

    @property
    def floats_in_file(self) -> bool:
        """Whether the float type is the file's own; else the model is float32 and an option pins the type."""
        ...

    @property
    def dynamic(self) -> bool:
        """Whether int8 with activation ranges found at run time is fused, and so can win."""
        ...

    @property
    def float_causes(self) -> Tuple[FloatCause, ...]:
        """Why it computes operators in float between quantized ones; patterns before their parts."""
        ...

    def runtime_version(self) -> str:
        """Import the runtime and return its version: a process that did this, and no more, is a memory baseline.

        Raises DeviceError where the runtime, or the processor that it is to use, is missing.
        """
        ...

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Return those of `float_types` that this processor has instructions for. Raises as `runtime_version`."""
        ...

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Write to `artifact` what this runtime loads in the field, from an ONNX file.

        Raises DeviceError where the runtime is missing and ModelRefused where it refuses the model.
        """
        ...

    def open(self, artifact: Path, options: RunOptions) -> Session:
        """Load a compiled artifact. Raises as `compile`."""
        ...

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """List the executed graph in execution order."""
        ...


@runtime_checkable
class NamesProcessor(Protocol):
    """A target whose artifacts depend on more of a device than its CPU and the runtime's version."""

    def read_processor(self) -> Dict[str, str]:
        """Return what they depend on, by name. Raises DeviceError where it does not answer."""
        ...
