"""One case of the losses' conformance: a loss, the sample it is computed on, its value by an independent formula."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.distillation.loss import Batch, Given, LossPart, Mixed, Term


@dataclass(frozen=True)
class Sample:
    """A batch in NumPy, float64: 6 images, 5 classes."""

    student: np.ndarray
    teachers: tuple[np.ndarray, ...]
    labels: np.ndarray
    student_features: tuple[np.ndarray, ...] = ()
    teacher_features: tuple[np.ndarray, ...] = ()
    images: np.ndarray | None = None
    mixed: tuple[np.ndarray, np.ndarray] | None = None
    """Labels of the partners, and shares kept."""

    def batch(self, dtype: torch.dtype = torch.float64, repeats: int = 1) -> Batch:
        """Return it as tensors, `repeats` times over; student's logits and features ask for gradients."""

        def tensor(array: np.ndarray) -> Tensor:
            tiled = torch.tensor(np.concatenate([array] * repeats))
            return tiled.to(dtype) if tiled.is_floating_point() else tiled

        teachers = tuple(tensor(teacher) for teacher in self.teachers)
        return Batch(
            student=tensor(self.student).requires_grad_(),
            teacher=teachers[0] if teachers else None,
            labels=tensor(self.labels),
            teachers=teachers,
            student_features=tuple(tensor(feature).requires_grad_() for feature in self.student_features),
            teacher_features=tuple(tensor(feature) for feature in self.teacher_features),
            images=None if self.images is None else tensor(self.images),
            index=torch.arange(len(self.labels)).repeat(repeats),
            mixed=None if self.mixed is None else Mixed(tensor(self.mixed[0]), tensor(self.mixed[1])),
        )

    @property
    def num_pixels(self) -> int:
        """Return the size of one image."""
        assert self.images is not None
        return self.images[0].size

    def given(self, **changes: object) -> Given:
        """Return what a loss is built with for this sample."""
        given = Given(
            num_classes=self.student.shape[1],
            num_teacher_classes=self.teachers[0].shape[1] if self.teachers else self.student.shape[1],
            labels=torch.tensor(self.labels),
            student_shapes=tuple(feature.shape[1:] for feature in self.student_features),
            teacher_shapes=tuple(feature.shape[1:] for feature in self.teacher_features),
            new_student=lambda: nn.Sequential(nn.Flatten(), nn.Linear(self.num_pixels, self.student.shape[1])),
            same_architecture=True,
            num_teachers=len(self.teachers),
        )
        return replace(given, **changes)  # type: ignore[arg-type]


RNG = np.random.default_rng(0)
SAMPLE = Sample(student=RNG.normal(0, 3, (6, 5)), teachers=(RNG.normal(0, 3, (6, 5)),), labels=RNG.integers(0, 5, 6))


def with_features(*shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Sample:
    """Return the sample with one feature of student and teacher a pair of shapes without the batch."""
    rng = np.random.default_rng(1)
    student, teacher = ([rng.normal(size=(6, *pair[side])) for pair in shapes] for side in (0, 1))
    return replace(SAMPLE, student_features=tuple(student), teacher_features=tuple(teacher))


def as_bfloat16(sample: Sample) -> Sample:
    """Return the sample with features that bfloat16 holds exactly, as networks under autocast give them."""
    student, teacher = (
        tuple(array(torch.tensor(feature).bfloat16().double()) for feature in features)
        for features in (sample.student_features, sample.teacher_features)
    )
    return replace(sample, student_features=student, teacher_features=teacher)


def unchanged(value: float) -> float:
    """Return the value: that of a mean over the batch."""
    return value


@dataclass(frozen=True)
class LossCase:
    """A loss with its value on a sample."""

    loss: LossPart
    expected: Callable[[Sample, Term], float]
    """The value in NumPy or closed form; the built term is given for the values of its trained parts."""
    sample: Sample = SAMPLE
    zero: Sample | Callable[[Term], Sample] | None = None
    """A sample on which the term is zero by theory, and so is its gradient; may depend on trained parts; None where
    there is none."""
    repeated: Callable[[float], float] = unchanged
    """Gives the value of a batch twice over from that of the batch, by theory; the loss's docstring says it, too."""
    tolerance: float = 1e-9
    """Relative; both sides compute in float64."""
    gradient_of: tuple[str, ...] = field(default=("student",))
    """What the term's gradient reaches: student, student_features."""
    taken_as_given: tuple[int, ...] = ()
    """Places of student features that teach others: the value depends on them, the gradient does not reach them."""
    taught_apart: tuple[str, ...] = ()
    """Beginnings of names of trained parts that learn by a loss of their own: their gradient is not the value's."""


def softmax(z: np.ndarray) -> np.ndarray:
    """Return softmax over the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    result: np.ndarray = e / e.sum(axis=-1, keepdims=True)
    return result


def array(tensor: Tensor) -> np.ndarray:
    """Return a trained part's value."""
    result: np.ndarray = tensor.detach().numpy()
    return result
