"""The user's own images: one folder a class, as every tool lays them out."""

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.errors import DataError
from pipeline.tasks.dataset import Cut, Dataset, Split, stratified_cut
from pipeline.tasks.images import SUFFIXES, decode_image
from pipeline.user_files import FromRecipeFolder, folder_digest, list_folder


class ImageFolder(FromRecipeFolder):
    """FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg; without train/ and test/, a stratified part is held out."""

    kind: Literal["image_folder"] = "image_folder"
    folder: str
    """The folder; relative to EDGEPROOF_DATA or to the recipe."""
    image_size: int = Field(ge=8, le=1024)
    """Images are resized (shorter side) and centre-cropped to this many pixels square."""
    channels: Literal[1, 3] = 3
    """3: colour; 1: grey."""
    test: Cut = Cut(share=0.2)
    """Held-out part where the folder has no test/."""
    validation: Cut = Cut()
    """Cut of the training images, for choices."""

    def fingerprint(self) -> str:
        """Digest of the images' names and contents and of the cuts."""
        root = self.find(self.folder, what="the image folder")
        images = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
        values = self.model_dump_json(exclude={"folder"})
        return hashlib.sha256(f"{values}{folder_digest(images, root)}".encode()).hexdigest()

    def load(self) -> Dataset:
        """Decode every image into memory.

        Raises:
            DataError: no such folder, no classes, differing classes in train and test, or an image that is broken.
        """
        root = self.find(self.folder, what="the image folder")
        present = [name for name in ("train", "test") if (root / name).is_dir()]
        if len(present) == 1:
            raise DataError(
                f"{root}: expected both train/ and test/, or folders of classes alone; got {present[0]}/ and "
                f"{', '.join(name for name in list_folder(root) if name != present[0]) or 'nothing else'}"
            )
        if present:
            classes = _classes(root / "train")
            if (others := _classes(root / "test")) != classes:
                raise DataError(
                    f"{root}/test: expected the classes of train ({', '.join(classes)}); got {', '.join(others)}"
                )
            rest, test = self._read(root / "train", classes), self._read(root / "test", classes)
        else:
            classes = _classes(root)
            rest, test = stratified_cut(self._read(root, classes), self.test.share, self.test.seed)
        train, validation = stratified_cut(rest, self.validation.share, self.validation.seed)
        return Dataset(train, validation, test, classes)

    def _read(self, folder: Path, classes: tuple[str, ...]) -> Split:
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        images = np.empty((len(files), self.image_size, self.image_size, self.channels), np.uint8)

        def decode(row: int) -> None:
            images[row] = decode_image(files[row][0], self.image_size, self.image_size, self.channels)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders work outside of Python's lock
            deque(pool.map(decode, range(len(files))), maxlen=0)  # raises the first error
        return Split(images, np.array([label for _, label in files], np.int64))


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(name for name in list_folder(folder) if (folder / name).is_dir() and not name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"{folder}: expected at least two folders, one a class; got {', '.join(classes) or 'none'}")
    empty = [n for n in classes if not any(p.suffix.lower() in SUFFIXES for p in (folder / n).rglob("*"))]
    if empty:
        raise DataError(f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}) in every class; none in {empty}")
    return classes
