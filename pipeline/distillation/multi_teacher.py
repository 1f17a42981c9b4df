"""Multi-teacher distillation: the student matches what several teachers say together."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.classes import expect_same_classes
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs
from pipeline.errors import RecipeError


class EnsembleDistillation(LossPart):
    """KD from the mean of the teachers' softened probabilities (Hinton et al. 2015, arXiv 1503.02531).

    L = T^2 * (1/B) sum_i KL(sum_m w_m softmax(z_m / T) || softmax(z_s / T)), summed over classes, with w_m = 1/M. But
    for a constant it is the mean of the teachers' own KDs, since cross-entropy is linear in its target. The mean of
    the logits, a geometric mean of probabilities, is another target: there one teacher's strong "no" outvotes the
    others. Hinton et al. allow both means (section 1). `kd` with several teachers softens their mean at T = 1.
    """

    METHOD: ClassVar[Method] = Method(
        family="multi-teacher",
        name="ensemble KD",
        formula="T^2 KL(sum_m w_m softmax(z_m / T) || softmax(z_s / T))",
        source="Hinton et al. 2015, arXiv 1503.02531",
        cost="1, and the further teachers",
        use="where several teachers are at hand, better together than the best of them",
    )

    kind: Literal["ensemble_kd"] = "ensemble_kd"
    weight: float = Field(default=0.9, ge=0)
    """Factor in the objective."""
    temperature: float = Field(default=4.0, gt=0)
    """T: 1 for a quantized student and for strong teachers, 2 to 4 on small data."""
    teacher_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """w_m up to a common factor, one a teacher in the recipe's order; none: all alike."""

    @property
    def needs(self) -> Needs:
        """The teachers' logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "EnsembleDistillation":
        """Return itself, or refuse weights that are all zero, or not one a teacher."""
        expect_same_classes(self.kind, given)
        if self.teacher_weights and not sum(self.teacher_weights):
            raise RecipeError(
                f"losses: {self.kind}: teacher_weights: expected one weight above 0 at least; "
                f"got {list(self.teacher_weights)}: leave them out to weigh all teachers alike"
            )
        if self.teacher_weights and len(self.teacher_weights) != given.num_teachers:
            raise RecipeError(
                f"losses: {self.kind}: teacher_weights: expected one weight a teacher, {given.num_teachers}; "
                f"got {len(self.teacher_weights)}: {list(self.teacher_weights)}; leave them out to weigh all alike"
            )
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the term."""
        assert batch.teachers
        weights = self.teacher_weights or (1.0,) * len(batch.teachers)
        log_q = torch.stack(
            [
                (logits / self.temperature).log_softmax(dim=1) + math.log(weight / sum(weights))
                for weight, logits in zip(weights, batch.teachers, strict=True)
                if weight
            ]
        ).logsumexp(dim=0)
        log_p = F.log_softmax(batch.student / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
