"""What a release does before and after the model: bytes to normalized tensors, logits to labels.

Rule: devices carry this file: Python 3.8, standard library and NumPy only.
Legend: N images, H height, W width, C channels, K classes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Optional, Tuple

import numpy as np

from targets.target import TensorSpec


@dataclass(frozen=True)
class Processing:
    """Pre- and post-processing as constants, so that they fit in a manifest."""

    scale: Tuple[float, ...]
    """Factor of each channel, applied to bytes 0..255: 1 / (255 * std)."""
    bias: Tuple[float, ...]
    """Added to each channel afterwards: -mean / std."""
    activation: Literal["softmax", "none"] = "softmax"
    """What turns logits into scores."""
    input: Literal["float32_nchw", "uint8_nhwc"] = "float32_nchw"
    """What the model takes: `uint8_nhwc` where it applies scale and bias itself, to bytes as they are."""

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.bias):
            raise ValueError(
                f"scale and bias: expected one value a channel each; got {len(self.scale)}, {len(self.bias)}"
            )

    def fed_to(self, spec: TensorSpec) -> Processing:
        """Return what is left to do before a model with the input `spec`: nothing where it takes bytes."""
        return replace(self, input="uint8_nhwc" if spec.dtype == "uint8" else "float32_nchw")

    def preprocess(self, images_NHWC: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Return what the model takes, contiguous; written into `out` where given.

        That is images * scale + bias of each channel, float32 NCHW; or a copy of the images, where it takes bytes.
        """
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != len(self.scale):
            raise ValueError(
                f"images: expected uint8 (N, H, W, {len(self.scale)}); got {images_NHWC.dtype} {images_NHWC.shape}"
            )
        if self.input == "uint8_nhwc":
            if out is None:
                return np.array(images_NHWC, order="C")
            out[...] = images_NHWC
            return out
        images_NCHW = images_NHWC.transpose(0, 3, 1, 2)
        if out is None:
            out = np.empty(images_NCHW.shape, np.float32)
        np.multiply(images_NCHW, np.array(self.scale, np.float32)[:, None, None], out=out)
        out += np.array(self.bias, np.float32)[:, None, None]
        return out

    def postprocess(self, logits_NK: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return labels int64[N] and the score of each label, float32[N]."""
        labels = logits_NK.argmax(axis=1).astype(np.int64)
        top = np.take_along_axis(logits_NK, labels[:, None], axis=1)
        if self.activation == "softmax":
            top = 1.0 / np.exp(logits_NK - top).sum(axis=1, keepdims=True)
        return labels, top[:, 0].astype(np.float32)

    def to_json(self) -> str:
        """Return the constants as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Processing:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "scale": tuple(data["scale"]), "bias": tuple(data["bias"])})
