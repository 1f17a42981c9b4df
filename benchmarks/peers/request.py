"""What every quantizer's script is asked: a float model, calibration images, and where the quantized file goes.

Rule: the scripts import nothing of Edgeproof; they run in an environment of their own.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Request:
    """One model to quantize."""

    model: Path
    """A float ONNX file, or a traced torch module."""
    input: str
    """Name of the model's only input."""
    images: np.ndarray
    """float32[N, C, H, W], normalized, to calibrate on."""
    out: Path
    """Where the quantized file goes."""
    variant: str
    """One of the script's own variants."""
    is_transformer: bool

    @property
    def feeds(self) -> list[dict[str, np.ndarray]]:
        """The images as feeds of one image each."""
        return [{self.input: self.images[index : index + 1]} for index in range(len(self.images))]


def read_request(description: str | None, variants: tuple[str, ...] = ("default",)) -> Request:
    """Read the request from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="npz with one array, named as the model's input")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--transformer", action="store_true", help="the model is one")
    options = parser.parse_args()
    with np.load(options.images) as arrays:
        name = arrays.files[0]
        images = arrays[name]
    return Request(options.model, name, images, options.out, options.variant, options.transformer)
