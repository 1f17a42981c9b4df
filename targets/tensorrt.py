"""TensorRT: what it declares of itself, so that a recipe that names it is valid; it is not driven yet.

Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Dict, List, Literal, Mapping, Sequence, Tuple

from calibration.scheme import Encoding, Scheme
from targets.acceptance import Acceptance
from targets.errors import DeviceError
from targets.fusion import FloatCause
from targets.target import FloatType, Layer, RunOptions, Session


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
    post_training_scheme: ClassVar[Scheme] = Scheme()  # its zero points must be 0
    encoding: ClassVar[Encoding] = Encoding(
        signed="int8", nonnegative="int8", bias="float32", outputs=False, residual="skip"
    )
    highest_opset: ClassVar[int] = 17  # of TensorRT 8.5 and 8.6, the oldest that are served
    float_causes: ClassVar[Tuple[FloatCause, ...]] = ()
    float_types: ClassVar[Tuple[FloatType, ...]] = ("fp32", "fp16")
    floats_in_file: ClassVar[bool] = True  # strong typing, the only way since TensorRT 11
    dynamic: ClassVar[bool] = False

    def runtime_version(self) -> str:
        """Raise DeviceError: this version of Edgeproof does not drive TensorRT."""
        raise _not_driven()

    def find_float_types(self) -> Tuple[FloatType, ...]:
        """Raise DeviceError."""
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

    def check_model(self, model: Path, shapes: Mapping[str, Sequence[int]], *, timeout_s: float) -> Acceptance:
        """Ask NVIDIA's parser and builder, which need no GPU; see ChecksWithoutDevice."""
        from targets.tensorrt_check import check_model

        return check_model(model, shapes, timeout_s=timeout_s)


def _not_driven() -> DeviceError:
    return DeviceError(
        "tensorrt: expected a runtime that this version of Edgeproof drives; got tensorrt, whose recipes it checks but "
        "whose engines it does not build yet; deploy to kind onnxruntime or openvino, or export the model and build it "
        "on the device with trtexec"
    )
