"""Losses built for untrained networks: what does not fit is told before anything is trained."""

import logging
from dataclasses import dataclass

import torch

from calibration.scheme import Scheme
from pipeline.distillation import AnyLoss
from pipeline.models import AnyModel
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import first_classes
from pipeline.training.objective import Networks, build_objective
from pipeline.training.quantized_model import make_quantized
from pipeline.training.student_run import build_network, viewed


@dataclass(frozen=True)
class Planned:
    """One training to come: the student's network, its teachers' and the classes that each knows (None: all)."""

    student: AnyModel
    teachers: tuple[tuple[AnyModel, int | None], ...]
    losses: tuple[AnyLoss, ...]
    epochs: int
    scheme: Scheme | None = None
    """The grid that it is trained on; None for float."""


def try_losses(task: AnyTask, planned: Planned) -> None:
    """Build the losses of a training as it will.

    Raises:
        RecipeError: a network cannot be built, or a loss does not fit; as the training itself would say.
        DataError: the data is missing or damaged.
    """
    whole, own = task.for_teacher().load(), task.for_student().load()
    if not planned.epochs:
        return
    with torch.random.fork_rng(devices=[]):
        student = build_network(planned.student, own)
        if planned.scheme is not None:
            student = make_quantized(student.eval(), planned.scheme)
        known = [first_classes(whole, num_classes) for _, num_classes in planned.teachers]
        teachers = [build_network(model, data).eval() for (model, _), data in zip(planned.teachers, known, strict=True)]
        images, seen = viewed(whole.train.images[:1], task)
        networks = Networks(
            student=student,
            student_example=seen.batch(torch.tensor([0])),
            teachers=tuple(teachers),
            teacher_example=images.batch(torch.tensor([0])),
            labels=torch.from_numpy(whole.train.labels),
            num_classes=len(whole.classes),
            num_teacher_classes=len(known[0].classes),
            new_student=lambda: build_network(planned.student, own),
            same_architecture=planned.teachers[0][0].kind == planned.student.kind,
        )
        logging.disable(logging.WARNING)  # the training itself will warn
        try:
            build_objective(planned.losses, networks, planned.epochs)
        finally:
            logging.disable(logging.NOTSET)
