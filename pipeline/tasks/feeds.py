"""Samples for any model, from a folder: images as its only input, or arrays named as its inputs.

Rule: a sample is read when it is asked for, so that memory stays bounded; files count by content.
Legend: N samples, H height, W width, C channels.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from pipeline.errors import DataError
from pipeline.tasks.images import decode_image
from targets.target import Arrays, TensorSpec

Layout = Literal["nchw", "nhwc"]
Order = Literal["rgb", "bgr"]


class Feeds(Protocol):
    """Samples of a model's inputs."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def sample(self, index: int) -> Arrays:
        """Return one sample: a tensor for each input, with a first axis of 1.

        Raises:
            DataError: its file is broken, or holds what the model cannot take.
        """
        ...

    def take(self, indices: Sequence[int]) -> "Feeds":
        """Return some of the samples."""
        ...


@dataclass(frozen=True)
class Pixels:
    """What becomes of bytes before a model sees them: (bytes * highest / 255 - mean) / std of each channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    highest: Literal[1, 255] = 1
    """What a byte of 255 is before mean and std."""
    order: Order = "rgb"
    """Of the channels, as the model takes them."""


@dataclass(frozen=True, kw_only=True)
class ImageFeeds:
    """Images, resized and cropped to the model's only input."""

    name: str
    dtype: str
    height: int
    width: int
    channels: int
    """1, grey, or 3."""
    layout: Layout
    pixels: Pixels
    """Counts for float inputs; an input of bytes gets them as they are."""
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> Arrays:
        """Return one image as a tensor of the model's own type and layout."""
        image_HWC = decode_image(self.files[index], self.height, self.width, self.channels)
        if self.pixels.order == "bgr":
            image_HWC = image_HWC[:, :, ::-1]
        if self.dtype != "uint8":
            mean, std = (np.array(values, np.float32) for values in (self.pixels.mean, self.pixels.std))
            image_HWC = (image_HWC * np.float32(self.pixels.highest / 255) - mean) / std
        image = image_HWC if self.layout == "nhwc" else image_HWC.transpose(2, 0, 1)
        return {self.name: np.ascontiguousarray(image[None], dtype=self.dtype)}

    def take(self, indices: Sequence[int]) -> "ImageFeeds":
        """Return some of the images."""
        files = tuple(self.files[index] for index in indices)
        return ImageFeeds(**{**vars(self), "files": files})


@dataclass(frozen=True)
class Row:
    """One sample of arrays: which files hold it, and at which place of their first axis."""

    files: tuple[Path, ...]
    """One .npz, or one .npy an input."""
    place: int


@dataclass(frozen=True)
class ArrayFeeds:
    """Arrays named as the inputs."""

    inputs: tuple[TensorSpec, ...]
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Arrays:
        """Return one row of each array."""
        row = self.rows[index]
        arrays = read_arrays(row.files, self.inputs)
        found = {}
        for spec in self.inputs:
            values = arrays[spec.name][row.place : row.place + 1]
            if not np.isfinite(values).all():
                raise DataError(
                    f"{row.files[0]}: input {spec.name!r}: expected finite numbers; got NaN or infinity in sample "
                    f"{row.place}; remove that sample"
                )
            found[spec.name] = np.ascontiguousarray(values, dtype=spec.dtype)
        return found

    def take(self, indices: Sequence[int]) -> "ArrayFeeds":
        """Return some of the rows."""
        return ArrayFeeds(self.inputs, tuple(self.rows[index] for index in indices))


@lru_cache(maxsize=1)  # samples are read in order, and an .npz can only be read as a whole
def read_arrays(files: tuple[Path, ...], inputs: tuple[TensorSpec, ...]) -> Mapping[str, np.ndarray]:
    """Return the array of every input, samples on the first axis; .npy files are mapped, not read.

    Raises:
        DataError: a file is broken, an input is missing, or an array does not fit its input.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        for path, spec in zip(files, inputs, strict=False):
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    arrays = {spec.name: archive[spec.name] for spec in inputs if spec.name in archive.files}
                    names = ", ".join(archive.files)
            else:
                arrays[spec.name] = np.load(path, mmap_mode="r", allow_pickle=False)
                names = path.name
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{files[0]}: expected arrays that NumPy wrote; got: {error}; write them anew") from error
    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise DataError(f"{files[0]}: expected an array for the input {missing[0]!r}; got {names or 'none'}")
    for spec in inputs:
        _require_fit(files[0], spec, arrays[spec.name])
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(f"{files[0]}: expected the same number of samples for every input; got {sizes}")
    return arrays


def _require_fit(path: Path, spec: TensorSpec, array: np.ndarray) -> None:
    is_shaped = array.ndim == len(spec.shape) and all(
        wanted in (None, got) for wanted, got in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not is_shaped or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        shape = "x".join("?" if size is None else str(size) for size in spec.shape[1:])
        raise DataError(
            f"{path}: input {spec.name!r}: expected {spec.dtype} of shape Nx{shape}, N samples; got {array.dtype} of "
            f"shape {'x'.join(map(str, array.shape))}"
        )
