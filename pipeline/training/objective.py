"""The objective of one run: the recipe's losses, built once for its networks, weighted and named.

Rule: whatever a loss trains beside the student lives here: its parameters go to the student's optimizer, its state to
the student's resume file, and neither to the student.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.distillation import AnyLoss
from pipeline.distillation.loss import Batch, Given, Loss, Needs, Term
from pipeline.errors import RecipeError
from pipeline.training.features import resolve_layers, shapes_of
from pipeline.user_files import UserObject

logger = logging.getLogger(__name__)

DECAYS = ("none", "linear", "cosine")


@dataclass(frozen=True)
class Networks:
    """The networks that losses are built for; an example is one image float32[1, C, H, W]."""

    student: nn.Module
    student_example: Tensor
    teachers: tuple[nn.Module, ...]
    """Losses read the features of the first."""
    teacher_example: Tensor
    labels: Tensor
    """Classes int64[N] of the training images."""
    num_classes: int
    num_teacher_classes: int
    new_student: Callable[[], nn.Module]
    same_architecture: bool


@dataclass(frozen=True)
class PlacedTerm:
    """A loss, the term that it built, and where the features that it needs lie in a batch of all features."""

    loss: Loss
    term: Term
    student_places: tuple[int, ...] = ()
    teacher_places: tuple[int, ...] = ()


class Objective(nn.Module):
    """The weighted sum of terms over a run of `epochs`.

    `student_layers` and `teacher_layers` are the layers whose outputs its batches hold, by their own names.
    """

    def __init__(
        self,
        terms: Mapping[str, PlacedTerm],
        epochs: int,
        student_layers: tuple[str, ...] = (),
        teacher_layers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._terms = dict(terms)
        self._epochs = epochs
        self.student_layers, self.teacher_layers = student_layers, teacher_layers
        needs = [placed.loss.needs for placed in terms.values()]
        self.needs_teacher = any(need.teacher or need.teacher_layers for need in needs)
        self.pooled = all(need.pooled for need in needs if need.teacher_layers)
        """Whether no term reads more of the teacher's features than their means over space."""
        modules = {name: placed.term for name, placed in terms.items() if isinstance(placed.term, nn.Module)}
        self.parts = nn.ModuleDict(modules)

    def forward(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """Return every term, weighted as it counts at `epoch` (with its fraction), computed in float32."""
        with torch.autocast(batch.student.device.type, enabled=False):
            terms = {name: placed.term(_own(batch, placed)) for name, placed in self._terms.items()}
        for name, value in terms.items():
            if not isinstance(value, Tensor) or value.shape != ():
                got = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise RecipeError(f"losses: {name}: expected a scalar, the mean over the batch; got {got}")
        return {name: weight_at(self._terms[name].loss, epoch, self._epochs) * value for name, value in terms.items()}


def build_objective(losses: Sequence[AnyLoss], networks: Networks, epochs: int) -> Objective:
    """Build the losses of a recipe for its networks; a term's name is its kind, dashed where a kind comes twice.

    Raises:
        RecipeError: a loss wants a teacher that is not there, names a layer that is not there, or refuses the networks.
    """
    named = _named(losses)
    if not networks.teachers and any(loss.needs.teacher or loss.needs.teacher_layers for loss in named.values()):
        raise RecipeError("losses: expected a teacher for a loss that reads its logits; got none")
    student, teacher = networks.student, (*networks.teachers, networks.student)[0]
    layers = {
        name: (
            resolve_layers(loss.needs.student_layers, student, who=f"losses: {name}: student_layers"),
            resolve_layers(loss.needs.teacher_layers, teacher, who=f"losses: {name}: teacher_layers"),
        )
        for name, loss in named.items()
    }
    student_layers = _all(of_student for of_student, _ in layers.values())
    teacher_layers = _all(of_teacher for _, of_teacher in layers.values())
    student_shapes = shapes_of(student, networks.student_example, layers=student_layers, who="the student")
    teacher_shapes = shapes_of(teacher, networks.teacher_example, layers=teacher_layers, who="the teacher")
    terms = {}
    for name, loss in named.items():
        of_student, of_teacher = layers[name]
        student_places = tuple(student_layers.index(layer) for layer in of_student)
        teacher_places = tuple(teacher_layers.index(layer) for layer in of_teacher)
        given = Given(
            num_classes=networks.num_classes,
            num_teacher_classes=networks.num_teacher_classes,
            labels=networks.labels,
            student_shapes=tuple(student_shapes[place] for place in student_places),
            teacher_shapes=tuple(teacher_shapes[place] for place in teacher_places),
            new_student=networks.new_student,
            same_architecture=networks.same_architecture,
            num_teachers=len(networks.teachers),
        )
        if 0 < epochs <= loss.warmup_epochs:
            logger.warning(
                "losses: %s: its weight warms up over %g epochs, but training has %d: it never counts in full. Set "
                "warmup_epochs",
                name,
                loss.warmup_epochs,
                epochs,
            )
        terms[name] = PlacedTerm(loss, loss.build(given), student_places, teacher_places)
    return Objective(terms, epochs, student_layers, teacher_layers)


def weight_at(loss: Loss, epoch: float, epochs: int) -> float:
    """Return a loss's weight at `epoch`: a linear warm-up, then constant or falling to zero at `epochs`."""
    warmup = loss.warmup_epochs
    if epoch < warmup:
        return loss.weight * epoch / warmup
    left = 1 - min(1.0, (epoch - warmup) / max(1e-9, epochs - warmup))
    falls = {"none": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}
    return loss.weight * falls[loss.decay]


class _UsersLoss:
    """The user's own: weight, needs_teacher, a call, and if they like student_layers and teacher_layers."""

    def __init__(self, kind: str, built: object) -> None:
        lacking = [name for name in ("weight", "needs_teacher", "__call__") if not hasattr(built, name)]
        if lacking or not callable(built):
            raise RecipeError(
                f"{kind}: expected a loss with weight, needs_teacher and __call__(batch); "
                f"got {type(built).__name__} without {', '.join(lacking)}"
            )
        self._term = built
        self.weight: float = built.weight  # type: ignore[attr-defined]
        self.warmup_epochs: float = getattr(built, "warmup_epochs", 0.0)
        self.decay: str = getattr(built, "decay", "none")
        if self.decay not in DECAYS:
            raise RecipeError(f"{kind}: decay: expected one of {', '.join(DECAYS)}; got {self.decay!r}")
        self.needs = Needs(
            teacher=built.needs_teacher,  # type: ignore[attr-defined]
            student_layers=tuple(getattr(built, "student_layers", ())),
            teacher_layers=tuple(getattr(built, "teacher_layers", ())),
        )

    def build(self, given: Given) -> Term:
        """Return what the user's callable gave."""
        return self._term


def _own(batch: Batch, placed: PlacedTerm) -> Batch:
    return replace(
        batch,
        student_features=tuple(batch.student_features[place].float() for place in placed.student_places),
        teacher_features=tuple(batch.teacher_features[place].float() for place in placed.teacher_places),
    )


def _named(losses: Sequence[AnyLoss]) -> dict[str, Loss]:
    named: dict[str, Loss] = {}
    for loss in losses:
        name = loss.kind.rpartition(":")[2] if isinstance(loss, UserObject) else loss.kind
        while name in named:
            name += "'"
        named[name] = _UsersLoss(loss.kind, loss.build()) if isinstance(loss, UserObject) else loss
    return named


def _all(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer for layers in lists for layer in layers))
