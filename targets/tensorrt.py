"""TensorRT: what it declares of itself, so that a recipe that names it is valid; it is not driven yet.

Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Dict, List, Literal

from calibration.scheme import Encoding, Scheme
from targets.errors import DeviceError
from targets.target import Layer, RunOptions, Session


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

    scheme: ClassVar[Scheme] = Scheme()
    encoding: ClassVar[Encoding] = Encoding(
        signed="int8", nonnegative="int8", bias="float32", outputs=False, residual="skip"
    )
    highest_opset: ClassVar[int] = 17  # of TensorRT 8.5 and 8.6, the oldest that are served

    def runtime_version(self) -> str:
        """Raise DeviceError: this version of Edgeproof does not drive TensorRT."""
        raise _not_driven()

    def compile(self, model: Path, artifact: Path, options: RunOptions) -> None:
        """Raise DeviceError."""
        raise _not_driven()

    def open(self, artifact: Path, options: RunOptions) -> Session:
        """Raise DeviceError."""
        raise _not_driven()

    def inspect(self, artifact: Path, options: RunOptions) -> List[Layer]:
        """Raise DeviceError."""
        raise _not_driven()


def _not_driven() -> DeviceError:
    return DeviceError(
        "tensorrt: expected a runtime that this version of Edgeproof drives; got tensorrt, whose recipes it checks but "
        "whose engines it does not build yet; deploy to kind onnxruntime or openvino, or export the model and build it "
        "on the device with trtexec"
    )
