"""Distillation by correlation: the student matches how the teacher's probabilities vary, not what they are."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.distillation.classes import expect_same_classes, expect_three_classes
from pipeline.distillation.counts import expect_several_images
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs

EPS = 1e-8
FLAT = 1e-6
"""A row that deviates from its mean by less than this share of its length varies by rounding alone."""


class CorrelationDistillation(LossPart):
    """DIST (Huang et al. 2022, arXiv 2205.10536).

    With P = softmax(z_s / T), Q = softmax(z_t / T), both [B, K], and rho Pearson's correlation:
    L = T^2 [ beta (1 - mean_i rho(P_i:, Q_i:)) + gamma (1 - mean_k rho(P_:k, Q_:k)) ]: of an image over the classes,
    and of a class over the images. The second compares images: those of all processes count, and one alone is
    refused. A shift or scale of the probabilities is free, so the student is not calibrated by it.

    T^2 is as in the authors' code, which adds 1e-8 to the product of the norms; here that is its least value, so that a
    perfect match is 0. A row or column that does not vary has no correlation: it counts as 0 and passes no gradient,
    which would be without bound.
    """

    METHOD: ClassVar[Method] = Method(
        family="response and relation",
        name="DIST",
        formula="T^2 (beta (1 - mean_i rho(P_i:, Q_i:)) + gamma (1 - mean_k rho(P_:k, Q_:k)))",
        source="Huang et al. 2022, arXiv 2205.10536",
        cost="1",
        use="beside cross-entropy of weight 1, where the teacher is far stronger; large batches; not with two classes",
    )

    kind: Literal["dist"] = "dist"
    weight: float = Field(default=2.0, ge=0)
    """Factor in the objective."""
    temperature: float = Field(default=4.0, gt=0)
    """T: 4 on CIFAR-100, 1 on ImageNet and for a quantized student."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the correlation over the classes of an image."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the correlation over the images of a class."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "CorrelationDistillation":
        """Return itself, or refuse two classes, whose probabilities always correlate by +-1."""
        expect_same_classes(self.kind, given)
        expect_three_classes(self.kind, given, because="the correlation over classes is always +-1")
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return T^2 times both means, over the images of all processes.

        Raises:
            RecipeError: they are one image, and gamma is not 0.
        """
        assert batch.teacher is not None
        student, teacher = (
            (batch.gather(logits) / self.temperature).softmax(dim=1) for logits in (batch.student, batch.teacher)
        )
        if self.gamma:
            expect_several_images(self.kind, student)
        over_classes: Tensor = 1 - _correlation(student, teacher).mean()
        over_images: Tensor = 1 - _correlation(student.T, teacher.T).mean()
        return self.temperature**2 * (self.beta * over_classes + self.gamma * over_images)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row of `a` with that of `b`."""
    a, b = _deviations(a), _deviations(b)
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(dim=1) / norms.clamp(min=EPS)


def _deviations(rows: Tensor) -> Tensor:
    """Return rows minus their means; zero, without gradient, where a row does not vary."""
    deviations = rows - rows.mean(dim=1, keepdim=True)
    length, around_mean = (torch.linalg.vector_norm(of, dim=1, keepdim=True) for of in (rows, deviations))
    return deviations.masked_fill(around_mean <= FLAT * length, 0.0)
