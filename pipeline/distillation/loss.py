"""The seam of distillation: a loss is a frozen part of the recipe that says what it needs, and builds one term.

Rule: a term is a mean over the batch and a sum over classes unless its source says otherwise, in float32, without the
weight. A term that is an nn.Module trains its parameters with the student; they are checkpointed, and never exported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from pydantic import Field
from torch import Tensor, nn

from pipeline.parts import RecipePart

INPUT = ":input"
"""Behind the name of a layer: what enters it, the value before an activation."""


def _alone(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Mixed:
    """What was mixed into each image (mixup): the label int64[B] of its partner, and the share float32[B] kept."""

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class Batch:
    """What one term sees of a step. B images, K classes; float32 throughout."""

    student: Tensor
    """Logits [B, K] of the student."""
    teacher: Tensor | None
    """Logits [B, K] of the teacher; of several: the logarithm of their mean probability."""
    labels: Tensor
    """True classes int64[B]; of mixed images, the class of the larger share."""
    teachers: tuple[Tensor, ...] = ()
    """Logits [B, K] of every teacher."""
    student_features: tuple[Tensor, ...] = ()
    """Outputs [B, C, H, W] or [B, D] of the student's layers that the loss needs, in its order."""
    teacher_features: tuple[Tensor, ...] = ()
    """The same of the first teacher; already averaged to [B, C] where the loss needs no more."""
    images: Tensor | None = None
    """The student's input [B, C, H, W], normalized."""
    index: Tensor | None = None
    """Rows int64[B] of the images in the training split."""
    mixed: Mixed | None = None
    """What the images were mixed with, where mixup is on."""
    gather: Callable[[Tensor], Tensor] = _alone
    """Gives [B, ...] of this process as [processes x B, ...] of all, with gradients: for what compares samples."""


@dataclass(frozen=True)
class Needs:
    """What a loss reads beside the student's logits and the labels."""

    teacher: bool = False
    """The teacher's logits."""
    student_layers: tuple[str, ...] = ()
    """Layers of the student, by name: see `pipeline.training.features`."""
    teacher_layers: tuple[str, ...] = ()
    """Layers of the teacher."""
    pooled: bool = False
    """The teacher's features are read through their mean over space alone, so that they can be kept on disk."""


@dataclass(frozen=True)
class Given:
    """What is known before the first step; shapes are [C, H, W] or [D], one a layer that the loss needs."""

    num_classes: int
    num_teacher_classes: int
    labels: Tensor
    """Classes int64[N] of all training images."""
    student_shapes: tuple[tuple[int, ...], ...]
    teacher_shapes: tuple[tuple[int, ...], ...]
    new_student: Callable[[], nn.Module]
    """Gives another untrained network like the student."""
    same_architecture: bool
    """Whether student and teacher are networks of one kind."""
    num_teachers: int


Term = Callable[[Batch], Tensor]
"""Returns the unweighted term, a scalar."""


@dataclass(frozen=True)
class Method:
    """What `edgeproof methods` and the documentation say of a loss."""

    family: str
    name: str
    formula: str
    source: str
    cost: str
    """Time of a step relative to plain KD, or what it adds to one."""
    use: str
    """When to use it."""


class LossPart(RecipePart):
    """What every loss of ours has: its place in the sum."""

    METHOD: ClassVar[Method]

    weight: float = Field(default=1.0, ge=0)
    """Factor in the objective."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the weight grows linearly from 0."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """How the weight falls to zero from there to the last epoch."""


class Loss(Protocol):
    """One term of the objective, as a recipe names it."""

    @property
    def weight(self) -> float:
        """Factor of the term in the sum."""
        ...

    @property
    def warmup_epochs(self) -> float:
        """Epochs in which the factor grows linearly from 0."""
        ...

    @property
    def decay(self) -> str:
        """How the factor falls to zero from there: none, linear or cosine."""
        ...

    @property
    def needs(self) -> Needs:
        """What the term reads."""
        ...

    def build(self, given: Given) -> Term:
        """Return the term: the loss itself, or an nn.Module with parameters of its own.

        Raises:
            RecipeError: the loss has no meaning for these classes, shapes or networks.
        """
        ...


def pooled(feature: Tensor) -> Tensor:
    """Return [B, C]: the mean over space of [B, C, H, W]; [B, C] as it is."""
    return feature.flatten(2).mean(dim=2) if feature.ndim > 2 else feature
