"""CIFAR-10 from disk: the standard binary batches, or an archive of JPEG bytes."""

import hashlib
import io
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline.errors import DataError
from pipeline.tasks.dataset import Cut, Dataset, Split, stratified_cut
from pipeline.user_files import FromRecipeFolder, folder_digest, list_folder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_BATCH = "test_batch.bin"
ARCHIVES = ("cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz")
RECORD_BYTES = 1 + 3 * 32 * 32
SHOWN = 10


class Cifar10(FromRecipeFolder):
    """CIFAR-10: 32x32 colour, ten classes, 50,000 training and 10,000 test images."""

    kind: Literal["cifar10"] = "cifar10"
    folder: str = "cifar10"
    """Holds the binary batches (also in cifar-10-batches-bin/), or cifar10_train_jpeg.npz and cifar10_test_jpeg.npz."""
    validation: Cut = Cut(share=0.02)
    """Cut of the training images, for choices."""
    train_images: int | None = Field(default=None, ge=10)
    """Use only so many training images, stratified, seed 0 (for studies); all if left out."""

    def _files(self) -> list[Path]:
        folder = self.find(self.folder, what="the CIFAR-10 folder")
        for base in (folder, folder / "cifar-10-batches-bin"):
            for names in ((*TRAIN_BATCHES, TEST_BATCH), ARCHIVES):
                if all((base / name).is_file() for name in names):
                    return [base / name for name in names]
        found = ", ".join(list_folder(folder)[:SHOWN]) or "nothing"
        raise DataError(
            f"{folder}: expected {TRAIN_BATCHES[0]} .. {TRAIN_BATCHES[-1]} and {TEST_BATCH} (the binary version of "
            f"CIFAR-10), or {' and '.join(ARCHIVES)}; got {found}"
        )

    def fingerprint(self) -> str:
        """Digest of the files' contents and of the cuts."""
        files = self._files()
        values = self.model_dump_json(exclude={"folder"})
        return hashlib.sha256(f"{values}{folder_digest(files, files[0].parent)}".encode()).hexdigest()

    def load(self) -> Dataset:
        """Read all images into memory.

        Raises:
            DataError: no such folder, an incomplete one, or a damaged file.
        """
        *train_files, test_file = self._files()
        read = _read_archive if test_file.suffix == ".npz" else _read_batch
        parts = [read(path) for path in train_files]
        train = Split(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
        train, validation = stratified_cut(train, self.validation.share, self.validation.seed)
        if self.train_images is not None and self.train_images < len(train):
            _, train = stratified_cut(train, self.train_images, 0)
        return Dataset(train, validation, read(test_file), CLASSES)


def _read_batch(path: Path) -> Split:
    raw = np.fromfile(path, np.uint8)
    if len(raw) == 0 or len(raw) % RECORD_BYTES:
        raise DataError(f"{path}: expected records of {RECORD_BYTES} bytes; got {len(raw)} bytes (cut short?)")
    records = raw.reshape(-1, RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), records[:, 0].astype(np.int64))


def _read_archive(path: Path) -> Split:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            blob, offsets, labels = archive["jpeg"], archive["offsets"], archive["labels"]
        if len(offsets) != len(labels) + 1:
            raise ValueError(f"{len(labels)} labels and {len(offsets)} offsets, which should be one more")
        images = np.empty((len(labels), 32, 32, 3), np.uint8)
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            images[row] = np.asarray(Image.open(io.BytesIO(blob[start:end].tobytes())).convert("RGB"))
    except (OSError, KeyError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected jpeg, offsets and labels arrays of 32x32 JPEGs; got {error}") from error
    return Split(images, labels.astype(np.int64))
