"""Image classification: data, normalization, views, metric and post-processing."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.errors import RecipeError
from pipeline.kinds import kind_of
from pipeline.parts import RecipePart
from pipeline.tasks.cifar10 import Cifar10
from pipeline.tasks.dataset import Dataset
from pipeline.tasks.digits import Digits
from pipeline.tasks.image_folder import ImageFolder
from pipeline.tasks.loading import load_once
from pipeline.tasks.student_input import Reduced, Reduction
from pipeline.user_files import UserObject
from targets.processing import Processing

AnyData = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[Cifar10, Tag("cifar10")]
    | Annotated[ImageFolder, Tag("image_folder")]
    | Annotated[UserObject, Tag("FILE.py:NAME")],
    Discriminator(kind_of),
]


class Normalization(RecipePart):
    """Pixel p (0..255) of channel c enters the model as (p / 255 - mean[c]) / std[c]."""

    mean: tuple[float, ...]
    """One a channel."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """One a channel, above 0."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> "Normalization":
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"expected as many of std as of mean; got {len(self.std)} and {len(self.mean)}")
        return self

    def processing(self) -> Processing:
        """Return it as scale and bias of bytes, as devices run it."""
        scale = tuple(1 / (255 * std) for std in self.std)
        bias = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return Processing(scale=scale, bias=bias, activation="softmax")


class Views(RecipePart):
    """The augmented views of an image: shifts by up to `padding` pixels (zeros enter), and mirroring."""

    padding: int = Field(default=0, ge=0, le=64)
    """Random crop of the image padded on every side by this many pixels."""
    flip: bool = False
    """Mirror left-right, in half of the views."""
    in_use: int | None = Field(default=None, ge=1)
    """How many views of each image a student meets, all if left out; fewer reuse more of the teacher's outputs."""
    mixup: float = Field(default=0.0, ge=0)
    """Mix every image with another, shares from Beta(mixup, mixup), the larger one its own; 0 mixes nothing."""
    colour: float = Field(default=0.0, ge=0, lt=1)
    """Contrast and brightness vary by this share up and down; 0 leaves colours alone."""
    seed: int = Field(default=0, ge=0)
    """Of the order of views, independent of any model's seed: students of one sweep meet the same views."""

    @property
    def count(self) -> int:
        """Number of different crops and mirrors of one image; padding 4 and flip make 9 x 9 x 2 = 162."""
        return (2 * self.padding + 1) ** 2 * (1 + self.flip)

    @property
    def num_columns(self) -> int | None:
        """Number of views of each image that a student meets; None where every epoch shows new ones."""
        if self.mixup or self.colour:
            return self.in_use
        return min(self.in_use or self.count, self.count)


class StudentInput(Reduction):
    """What the student sees of each image, where that is less than its teacher sees."""

    normalization: Normalization
    """How the student's bytes become its input."""


class ClassificationTask(RecipePart):
    """One class an image; the metric is top-1 accuracy."""

    kind: Literal["classification"] = "classification"
    data: AnyData
    """Where the images come from."""
    normalization: Normalization
    """How bytes become the model's input, in training and on the device."""
    views: Views = Views()
    """Augmentation in training."""
    student_sees: StudentInput | None = None
    """What reaches the student, in training and on the device; the teacher's images if left out."""

    def for_student(self) -> "ClassificationTask":
        """Return the task as the student has it: itself, or over reduced images."""
        if self.student_sees is None:
            return self
        reduction = Reduction(grey=self.student_sees.grey, shrink=self.student_sees.shrink)
        data = Reduced(source=self.data, reduction=reduction)
        return self.model_copy(
            update={"data": data, "normalization": self.student_sees.normalization, "student_sees": None}
        )

    def for_teacher(self) -> "ClassificationTask":
        """Return the task as the teacher has it, whatever the student sees."""
        return self.model_copy(update={"student_sees": None}) if self.student_sees else self

    def load(self) -> Dataset:
        """Read the data.

        Raises:
            DataError: it is missing or damaged.
            RecipeError: the user's own callable gave something else, or channels do not fit the normalization.
        """
        dataset = load_once(self.data)
        channels = dataset.train.images.shape[3]
        if channels != len(self.normalization.mean):
            raise RecipeError(
                f"task.normalization: expected {channels} values of mean and std, one a channel of the images; "
                f"got {len(self.normalization.mean)}"
            )
        return dataset

    @staticmethod
    def correct(logits_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
        """Return bool[N]: whether the largest logit is the label's."""
        result: np.ndarray = logits_NK.argmax(axis=1) == labels_N
        return result
