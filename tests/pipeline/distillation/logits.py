"""What tests of losses on logits share: a drawn batch, and what a loss is told before the first step."""

import torch
from torch import Tensor, nn

from pipeline.distillation.loss import Batch, Given


def draw_batch(num_images: int = 6, num_classes: int = 5, num_teachers: int = 1) -> Batch:
    """Return logits float64 of a student that asks for gradients and of teachers, and labels."""
    drawn = torch.Generator().manual_seed(0)

    def logits() -> Tensor:
        return 3 * torch.randn(num_images, num_classes, generator=drawn, dtype=torch.float64)

    teachers = tuple(logits() for _ in range(num_teachers))
    labels = torch.randint(num_classes, (num_images,), generator=drawn)
    return Batch(student=logits().requires_grad_(), teacher=teachers[0], labels=labels, teachers=teachers)


def make_given(num_classes: int, num_teacher_classes: int | None = None) -> Given:
    """Return what is known of networks without features."""
    return Given(
        num_classes=num_classes,
        num_teacher_classes=num_teacher_classes or num_classes,
        labels=torch.arange(num_classes),
        student_shapes=(),
        teacher_shapes=(),
        new_student=nn.Identity,
        same_architecture=True,
        num_teachers=1,
    )


def gradient(value: Tensor, batch: Batch) -> Tensor:
    """Return the gradient with respect to the student's logits."""
    (result,) = torch.autograd.grad(value, batch.student)
    return result
