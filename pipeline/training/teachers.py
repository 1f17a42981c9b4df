"""What teachers say of a batch: read from their outputs on disk, or asked at every step.

Rule: both give what the teacher says of exactly the views that the student sees; they differ by fp16 rounding alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.training.int8_teacher import TeacherPrecision
from pipeline.training.teacher_outputs import TeacherOutputs, fast_teacher, precision_of
from pipeline.training.views import Column, ViewedImages, ViewSchedule

OnImages = Callable[[int, int], None]


@dataclass(frozen=True)
class Taught:
    """Of a batch: logits float32[B, K] of each teacher, and features of the first."""

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]

    @property
    def consensus(self) -> Tensor:
        """Logits of the one teacher; of several, the logarithm of their mean probability."""
        if len(self.logits) == 1:
            return self.logits[0]
        each = torch.stack([logits.log_softmax(dim=1) for logits in self.logits])
        return each.logsumexp(dim=0) - math.log(len(self.logits))


class TeacherSource(Protocol):
    """Where a fit gets its teaching from."""

    def to(self, device: torch.device) -> None:
        """Compute and answer on `device` from now on."""
        ...

    def start(self, column: int, on_images: OnImages) -> None:
        """Make ready for the views of a column."""
        ...

    def of(self, index_B: Tensor) -> Taught:
        """Return what is said of these rows in the column."""
        ...


class StoredTeachers:
    """Reads columns of teacher outputs, filled when they are first met."""

    def __init__(self, outputs: Sequence[TeacherOutputs]) -> None:
        self._outputs = tuple(outputs)
        self._device = torch.device("cpu")
        self._columns: list[tuple[Tensor, ...]] = []

    def to(self, device: torch.device) -> None:
        """Compute and answer on `device` from now on."""
        self._device = device
        for outputs in self._outputs:
            outputs.to(device)

    def start(self, column: int, on_images: OnImages) -> None:
        """Read the column, or fill it."""
        self._columns = [
            tuple(values.to(self._device) for values in outputs.column(column, on_images)) for outputs in self._outputs
        ]

    def of(self, index_B: Tensor) -> Taught:
        """Return the column's rows."""
        first = self._columns[0]
        logits = tuple(columns[0][index_B] for columns in self._columns)
        return Taught(logits, tuple(values[index_B] for values in first[1:]))


class LiveTeachers:
    """Asks the teachers at every step: what features with their full shape need."""

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        layers: tuple[str, ...],
        images: ViewedImages,
        views: ViewSchedule,
        precision: TeacherPrecision = "bf16",
    ) -> None:
        self._teachers = [
            fast_teacher(teacher, layers if place == 0 else (), images, precision)
            for place, teacher in enumerate(teachers)
        ]
        self._images, self._views = images, views
        self._column: Column | None = None

    def to(self, device: torch.device) -> None:
        """Compute and answer on `device` from now on."""
        self._teachers = [teacher.to(device) for teacher in self._teachers]
        self._images = self._images.to(device)

    def start(self, column: int, on_images: OnImages) -> None:
        """Note which views come."""
        self._column = self._views.column(column).to(self._images.device)

    @torch.no_grad()
    def of(self, index_B: Tensor) -> Taught:
        """Ask the teachers for these rows."""
        assert self._column is not None
        images = self._images.shown(index_B, self._column)
        with torch.autocast(images.device.type, torch.bfloat16):
            answers = [teacher(images.to(precision_of(teacher))) for teacher in self._teachers]
        return Taught(tuple(logits.float() for logits, _ in answers), answers[0][1])
