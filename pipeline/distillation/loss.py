"""The seam of distillation: a loss is a frozen part of the recipe that scores a student's batch."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What one step knows: logits float32[B, K] of both models and labels int64[B]."""

    student: Tensor
    teacher: Tensor | None
    labels: Tensor


class Loss(Protocol):
    """One term of the objective."""

    @property
    def weight(self) -> float:
        """Factor of the term in the sum."""
        ...

    @property
    def needs_teacher(self) -> bool:
        """Whether `Batch.teacher` must be there."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """Return the unweighted term, a scalar: mean over the batch, sum over classes."""
        ...
