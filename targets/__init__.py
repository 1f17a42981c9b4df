"""Floor 2: where models run. Standard library and NumPy at module level; never torch.

The union is the registry: a target is added by one file and one word in it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Tuple, Type, Union

from targets.null import Null
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino
from targets.target import Target
from targets.tensorrt import TensorRt

AnyTarget = Union[OnnxRuntime, OpenVino, TensorRt, Null]
"""Every runtime; `kind` tells them apart."""

TARGETS: Tuple[Type[OnnxRuntime], Type[OpenVino], Type[TensorRt], Type[Null]] = (OnnxRuntime, OpenVino, TensorRt, Null)
"""The same, as classes."""


def reference_target() -> Target:
    """Return the target that evaluates ONNX as written: what parity is judged against."""
    return OnnxRuntime(graph_optimization="none") if find_spec("onnxruntime") else Null()
