"""What losses that read features are built with and called on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distillation.loss import Batch, Given

Shape = tuple[int, ...]


def given_of(*pairs: tuple[Shape, Shape], same_architecture: bool = True) -> Given:
    """Return what a loss is built with for features of these shapes, of student and teacher."""
    return Given(
        num_classes=3,
        num_teacher_classes=3,
        labels=torch.tensor([0, 1, 2]),
        student_shapes=tuple(student for student, _ in pairs),
        teacher_shapes=tuple(teacher for _, teacher in pairs),
        new_student=nn.Identity,
        same_architecture=same_architecture,
        num_teachers=1,
    )


def batch_of(*pairs: tuple[Tensor, Tensor], gather: Callable[[Tensor], Tensor] | None = None) -> Batch:
    """Return a batch with these features of student, which asks for gradients, and teacher."""
    num = len(pairs[0][0])
    changes: dict[str, Any] = {} if gather is None else {"gather": gather}
    return Batch(
        student=torch.zeros(num, 3),
        teacher=None,
        labels=torch.zeros(num, dtype=torch.int64),
        student_features=tuple(student.requires_grad_() for student, _ in pairs),
        teacher_features=tuple(teacher for _, teacher in pairs),
        **changes,
    )
