"""Attention-based distillation: the student looks where the teacher looks."""

import logging
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs
from pipeline.distillation.pairs import pairs_of

logger = logging.getLogger(__name__)

DEAD = 1e-6
"""Norms of attention below this count as this: a map without activations has no direction, and no gradient."""


class AttentionTransfer(LossPart):
    """Zagoruyko & Komodakis 2017 (arXiv 1612.03928, section 3.1, activation-based).

    A(F) = sum_c |F_c|^p, flattened and divided by its L2 norm for each image; L = sum over layers of
    mean((A(F_s) - A(F_t))^2), the mean over batch and positions, so that the weight does not depend on the map's size.
    Equation 2 of the paper takes the norm of the difference instead of its square, a sum over positions, and beta / 2
    before it; the authors' code, which gave the published figures, is the mean of squares as here, with weight 1000.
    Where two maps differ in size, the larger is average-pooled before its attention is taken, as in RepDistiller and
    mdistiller; the paper would interpolate the attention.
    """

    METHOD: ClassVar[Method] = Method(
        family="attention",
        name="AT",
        formula="sum_layers mean((A(F_s)/|A(F_s)| - A(F_t)/|A(F_t)|)^2), A(F) = sum_c |F_c|^p",
        source="Zagoruyko & Komodakis 2017, arXiv 1612.03928",
        cost="1.0",
        use="beside cross-entropy, or KD, within one architecture; never across architectures",
    )

    kind: Literal["at"] = "at"
    weight: float = Field(default=1000.0, ge=0)
    """Factor in the objective; the mean over positions is small, hence the size."""
    p: float = Field(default=2.0, ge=1)
    """Power of the activations: the higher, the more the strongest position counts."""
    student_layers: tuple[str, ...] = ("stage:1", "stage:2", "stage:3")
    """Layers of the student that give maps [C, H, W]."""
    teacher_layers: tuple[str, ...] = ("stage:1", "stage:2", "stage:3")
    """The teacher's layer for each of them, at the same depth."""

    @property
    def needs(self) -> Needs:
        """Maps of both networks."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers)

    def build(self, given: Given) -> "AttentionTransfer":
        """Return itself; refuse maps of one position, whose attention is always 1; warn across architectures."""
        for pair in pairs_of(self.kind, self.needs, given):
            if _common_size(pair.student_shape, pair.teacher_shape) == (1, 1):
                raise pair.refusal(
                    self.kind,
                    expected="maps of more than one position, since a single one always has attention 1",
                    do="name shallower layers, or use srd, which reads averaged features",
                )
        if not given.same_architecture:
            logger.warning(
                "losses: at: student and teacher are of different architectures, whose stages see different things; "
                "published top-1 on CIFAR-100 falls below the student alone (MobileNetV2 64.60: 59.40 with a VGG-13, "
                "58.58 with a ResNet-50 as teacher): prefer kd or srd"
            )
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the sum over layers of the mean squared difference of normalized attention."""
        pairs = zip(batch.student_features, batch.teacher_features, strict=True)
        return torch.stack([self._of(student, teacher) for student, teacher in pairs]).sum()

    def _of(self, student: Tensor, teacher: Tensor) -> Tensor:
        size = _common_size(student.shape, teacher.shape)
        return F.mse_loss(self._attention(student, size), self._attention(teacher, size))

    def _attention(self, feature: Tensor, size: tuple[int, int]) -> Tensor:
        """Return [B, H*W] of norm 1; the mean over channels gives the same direction as the sum."""
        resized = feature if feature.shape[2:] == size else F.adaptive_avg_pool2d(feature, size)
        power = resized.square() if self.p == 2 else resized.abs().pow(self.p)
        return F.normalize(power.mean(dim=1).flatten(1), dim=1, eps=DEAD)


def _common_size(student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[int, int]:
    return min(student[-2], teacher[-2]), min(student[-1], teacher[-1])
