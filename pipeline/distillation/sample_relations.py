"""Relation-based distillation: how the samples of a batch lie to each other in the student as in the teacher.

Rule: relations are those of the whole batch of all processes: features are gathered first. B samples, D values each.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipeline.distillation.counts import expect_several_images
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs, pooled
from pipeline.distillation.pairs import MAP_OR_VECTOR, pairs_of
from pipeline.errors import RecipeError

SMALLEST = 1e-12
"""Squared distances and norms up to here count as zero: they have no direction, and pass no gradient. They are those
of features whose largest value is 1."""
ANGLES_AT_ONCE = 2**22
"""Cosines [anchors, B, B] held at once: 16 MiB in float32; more are computed again for the gradient."""


class RelationalKnowledgeDistillation(LossPart):
    """RKD, Park et al. 2019 (arXiv 1904.05068, sections 3.2.1 and 3.2.2), on features averaged over space.

    L = distance * mean_ij Huber(d_ij / mean d) + angle * mean_ijk Huber(cos_ijk), the difference of student and teacher
    in each, with d_ij = ||f_i - f_j||, mean d over the positive ones, and cos_ijk the cosine of the angle that samples
    i and k make at j. Means are over all B^2 and B^3, those of equal samples (zero) included, as in the authors' code;
    the paper writes sums over tuples of distinct samples. It does not see shift, rotation and scale of the features.
    """

    METHOD: ClassVar[Method] = Method(
        family="relation",
        name="RKD",
        formula="25 mean Huber(d_ij / mean d) + 50 mean Huber(cos_ijk), of student against teacher",
        source="Park et al. 2019, arXiv 1904.05068",
        cost="KD, and at B = 128, D = 64 about 0.4 of a training step of ResNet-8 more; the angles grow with B^3 D",
        use="beside KD, where widths differ and the geometry of the teacher's space matters; weak alone on CIFAR-100",
    )

    kind: Literal["rkd"] = "rkd"
    distance: float = Field(default=25.0, ge=0)
    """Factor of the distances."""
    angle: float = Field(default=50.0, ge=0)
    """Factor of the angles; 0 spares their B^3 cosines."""
    student_layers: tuple[str, ...] = ("stage:last",)
    """Layers of the student; of several, the terms are summed."""
    teacher_layers: tuple[str, ...] = ("stage:last",)
    """As many layers of the teacher."""

    @property
    def needs(self) -> Needs:
        """Features, averaged over space."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers, pooled=True)

    def build(self, given: Given) -> "RelationalKnowledgeDistillation":
        """Return itself; maps and vectors of any two shapes fit.

        Raises:
            RecipeError: not as many layers of the student as of the teacher, no maps or vectors, or factors of 0.
        """
        pairs_of(self.kind, self.needs, given, expected=MAP_OR_VECTOR)
        if self.distance == self.angle == 0:
            raise RecipeError(
                "losses: rkd: expected distance or angle above 0; got 0 for both, which teaches nothing. "
                "Set one of them, or drop the loss"
            )
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the sum over the pairs of layers.

        Raises:
            RecipeError: the batch of all processes is one image.
        """
        pairs = zip(batch.student_features, batch.teacher_features, strict=True)
        return torch.stack(
            [self._of_pair(batch.gather(pooled(student)), batch.gather(pooled(teacher))) for student, teacher in pairs]
        ).sum()

    def _of_pair(self, student: Tensor, teacher: Tensor) -> Tensor:
        expect_several_images(self.kind, student)
        student, teacher = _scaled(student), _scaled(teacher)
        distances = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
        if self.angle == 0:
            return self.distance * distances
        num = len(student)
        anchors = torch.split(torch.arange(num, device=student.device), max(1, ANGLES_AT_ONCE // num**2))
        if len(anchors) == 1:
            angles = _angle_difference(student, teacher, anchors[0])
        else:
            parts = [
                checkpoint(_angle_difference, student, teacher, some, use_reentrant=False, preserve_rng_state=False)
                for some in anchors
            ]
            angles = torch.stack(parts).sum()
        return self.distance * distances + self.angle * angles / num**3


class SimilarityPreserving(LossPart):
    """SP, Tung & Mori 2019 (arXiv 1907.09682, section 3.1): G = F F^T with rows of length 1, F flattened [B, D].

    L = ||G_t - G_s||_F^2 / B^2, summed over the pairs of layers. A mean over pairs of rows whose entries shrink with B:
    a batch twice over has half the value. The paper's gamma = 3000 is the weight here. The first place to turn to for a
    graph of samples: G is its adjacency. It does not see rotation and scale of the features.
    """

    METHOD: ClassVar[Method] = Method(
        family="relation, graph",
        name="SP",
        formula="||rows(F_t F_t^T) - rows(F_s F_s^T)||_F^2 / B^2, rows of length 1",
        source="Tung & Mori 2019, arXiv 1907.09682",
        cost="about 1, and the teacher live",
        use="beside KD across architectures: maps of any two shapes fit",
    )

    kind: Literal["sp"] = "sp"
    weight: float = Field(default=3000.0, ge=0)
    """Factor in the objective: the paper's gamma."""
    student_layers: tuple[str, ...] = ("stage:last",)
    """Layers of the student; of several, the terms are summed."""
    teacher_layers: tuple[str, ...] = ("stage:last",)
    """As many layers of the teacher."""

    @property
    def needs(self) -> Needs:
        """Whole feature maps."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers)

    def build(self, given: Given) -> "SimilarityPreserving":
        """Return itself; maps and vectors of any two shapes fit.

        Raises:
            RecipeError: not as many layers of the student as of the teacher, or not maps or vectors.
        """
        pairs_of(self.kind, self.needs, given, expected=MAP_OR_VECTOR)
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the sum over the pairs of layers.

        Raises:
            RecipeError: the batch of all processes is one image.
        """
        pairs = zip(batch.student_features, batch.teacher_features, strict=True)
        return torch.stack(
            [self._of_pair(batch.gather(student), batch.gather(teacher)) for student, teacher in pairs]
        ).sum()

    def _of_pair(self, student: Tensor, teacher: Tensor) -> Tensor:
        expect_several_images(self.kind, student)
        return F.mse_loss(_similarities(student), _similarities(teacher))


def _scaled(features: Tensor) -> Tensor:
    """Divide by the largest magnitude; as no relation sees scale, the gradient is the same with it taken as given."""
    largest = features.detach().abs().amax()
    return features / largest.clamp(min=torch.finfo(features.dtype).tiny)


def _relative_distances(features: Tensor) -> Tensor:
    """Return ||f_i - f_j|| over the mean of the positive ones, [B, B]."""
    squared = (features[:, None] - features[None]).square().sum(dim=2)
    positive = squared > SMALLEST
    distances = torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0)
    mean = distances.sum() / positive.sum().clamp(min=1)
    return distances / mean.clamp(min=SMALLEST)


def _angle_difference(student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
    """Return the sum of Huber(cos) over the angles at `anchors`."""
    return F.smooth_l1_loss(_cosines(student, anchors), _cosines(teacher, anchors), reduction="sum")


def _cosines(features: Tensor, anchors: Tensor) -> Tensor:
    """Return cosines [anchors, B, B] of the angles that samples i and k make at each; 0 where one lies there."""
    directions = _unit_rows(features[None] - features[anchors, None])
    return directions @ directions.mT


def _similarities(features: Tensor) -> Tensor:
    flat = _scaled(features.flatten(1))
    return _unit_rows(flat @ flat.T)


def _unit_rows(x: Tensor) -> Tensor:
    """Divide each row by its length; zero rows stay zero and pass no gradient, where x / (|x| + eps) passes 1 / eps."""
    squared = x.square().sum(dim=-1, keepdim=True)
    is_long = squared > SMALLEST
    return x * torch.where(is_long, torch.where(is_long, squared, 1).rsqrt(), 0)
