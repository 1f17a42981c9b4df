"""Dataset: images in memory as bytes, in three parts. Rule: choices use train and validation, the gate alone test."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from sklearn.model_selection import train_test_split

from pipeline.errors import DataError, RecipeError
from pipeline.parts import RecipePart


@dataclass(frozen=True)
class Split:
    """Images uint8[N, H, W, C] and their classes int64[N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> "Split":
        """Return the rows that `index` names."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """What a data source gives: three disjoint splits and the names of the classes."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            split: Split = getattr(self, name)
            _check_split(name, split, len(self.classes), self.train.images.shape[1:])


class Cut(RecipePart):
    """The stratified, seeded part of the training data on which choices are made (best epoch, calibration)."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training data."""
    seed: int = Field(default=0, ge=0)
    """Seed of the cut."""


def stratified_cut(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Cut `share` off `split` (a fraction, or an int: so many), class by class; return (rest, cut).

    As scikit-learn's `train_test_split` does it, in the order of `split`.

    Raises:
        DataError: a class is too small to stand on both sides.
    """
    try:
        rest, cut = train_test_split(
            np.arange(len(split)), test_size=share, stratify=split.labels, random_state=seed, shuffle=True
        )
    except ValueError as error:
        raise DataError(
            f"a stratified cut of {share:g} of {len(split)} images: {error}; take a larger share or more data"
        ) from error
    return split.take(np.sort(rest)), split.take(np.sort(cut))


def first_classes(dataset: Dataset, num_classes: int | None) -> Dataset:
    """Return what a network that knows only the first classes can be judged by; all of it where None.

    Raises:
        RecipeError: there are not so many classes.
    """
    if num_classes is None or num_classes == len(dataset.classes):
        return dataset
    if num_classes > len(dataset.classes):
        raise RecipeError(f"teacher.num_classes: expected at most the data's {len(dataset.classes)}; got {num_classes}")
    train, validation, test = (
        split.take(np.flatnonzero(split.labels < num_classes))
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    return Dataset(train, validation, test, dataset.classes[:num_classes])


def _check_split(name: str, split: Split, num_classes: int, image_shape: tuple[int, ...]) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{name} images: expected uint8[N, H, W, C]; got {images.dtype}{list(images.shape)}")
    if labels.shape != images.shape[:1] or labels.dtype != np.int64:
        raise DataError(f"{name} labels: expected int64[{len(images)}]; got {labels.dtype}{list(labels.shape)}")
    if images.shape[1:] != image_shape:
        raise DataError(f"{name} images: expected the training images' shape {image_shape}; got {images.shape[1:]}")
    if not len(images):
        raise DataError(f"{name} split: expected at least one image; got none")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"{name} labels: expected 0..{num_classes - 1}, one a class name; got {labels.min()}..{labels.max()}"
        )
