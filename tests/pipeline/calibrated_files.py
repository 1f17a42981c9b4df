"""A small float file, prepared and with the ranges of its tensors: what searches and plans start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from small_models import SIZE, two_convolutions

from calibration.ranges import MinMax
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.prepare import LOWEST_OPSET
from pipeline.export.source import read_source
from pipeline.export.tapped import find_evaluator
from pipeline.stages.observe_ranges import observe_ranges
from pipeline.stages.prepare_onnx import prepare_onnx
from targets.null import Null
from targets.target import Arrays


@dataclass(frozen=True)
class RandomImages:
    """Images for `two_convolutions`."""

    num_images: int = 12

    def __len__(self) -> int:
        return self.num_images

    def sample(self, index: int) -> Arrays:
        return {"image": np.random.default_rng(index).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)}

    def take(self, indices: Sequence[int]) -> "RandomImages":
        return RandomImages(len(indices))


def calibrated_file(folder: Path) -> tuple[OnnxFile, Ranges]:
    """Prepare `two_convolutions` and observe it."""
    onnx.save(two_convolutions(), folder / "float.onnx")
    prepared = prepare_onnx(folder, read_source(folder / "float.onnx"), opset=LOWEST_OPSET)
    return prepared, observe_ranges(folder, prepared, RandomImages(), MinMax(), Null().scheme, find_evaluator())
