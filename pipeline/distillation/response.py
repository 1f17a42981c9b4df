"""Response-based distillation: the student matches what the teacher says of an image, softened or in one word."""

import logging
import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.classes import expect_same_classes, expect_three_classes
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs

FEW_CLASSES = 5
"""Below this many, standardized logits can hardly say that one class is likelier than the others."""

logger = logging.getLogger(__name__)


class KnowledgeDistillation(LossPart):
    """Hinton et al. 2015 (arXiv 1503.02531), optionally with standardized logits (Sun et al. 2024, arXiv 2403.01427).

    L = T^2 * (1/B) sum_i KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes. T^2 keeps the size of the
    gradient comparable while T changes (section 2 of Hinton et al.). A quantized student wants T = 1.
    """

    METHOD: ClassVar[Method] = Method(
        family="response",
        name="KD; KD + LS with standardize",
        formula="T^2 KL(softmax(z_t / T) || softmax(z_s / T))",
        source="Hinton et al. 2015, arXiv 1503.02531; Sun et al. 2024, arXiv 2403.01427",
        cost="1",
        use="first, always; T = 1 for a quantized student; standardize where the teacher is far larger, classes many",
    )

    kind: Literal["kd"] = "kd"
    weight: float = Field(default=0.9, ge=0)
    """Factor in the objective; with standardize 9, beside cross-entropy at 0.1 or 1."""
    temperature: float = Field(default=4.0, gt=0)
    """T: 1 for a quantized student and for strong teachers, 2 to 4 on small data; 2 or 3 with standardize."""
    standardize: bool = False
    """Replace each row z by (z - mean) / (std + 1e-7), std with K - 1, in both models first: how sure each is, is lost.
    No logit exceeds (K - 1) / sqrt(K): of 10 classes at T = 2 the teacher gives none more than 35 %. Refused with two
    classes, warned of below 5."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "KnowledgeDistillation":
        """Return itself, or refuse standardized logits of two classes, which are always +-0.7071."""
        expect_same_classes(self.kind, given)
        if self.standardize:
            expect_three_classes(
                f"{self.kind} with standardize", given, because="standardized logits are always +-0.7071"
            )
        if self.standardize and given.num_classes < FEW_CLASSES:
            logger.warning(
                "losses: kd with standardize: of %d classes at temperature %g the teacher cannot give any more than "
                "%.0f %%: lower the temperature, or leave standardize out",
                given.num_classes,
                self.temperature,
                100 * _highest_standardized(given.num_classes, self.temperature),
            )
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the term; its gradient with respect to z_s is (T/B) (softmax(z_s/T) - softmax(z_t/T))."""
        assert batch.teacher is not None
        student, teacher = batch.student, batch.teacher
        if self.standardize:
            student, teacher = _standardized(student), _standardized(teacher)
        log_p = F.log_softmax(student / self.temperature, dim=1)
        log_q = F.log_softmax(teacher / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


class HardLabel(LossPart):
    """Cross-entropy with the class that the teacher picks (Touvron et al. 2020, DeiT, arXiv 2012.12877, equation 3).

    L = (1/B) sum_i -log softmax(z_s)_k with k = argmax z_t, the first of equals. The paper halves it and the labels'
    cross-entropy, and smooths the latter alone; the student's own head learns from it here, not a second token's.
    It needs no temperature, and passes on nothing of the teacher's doubt.
    """

    METHOD: ClassVar[Method] = Method(
        family="response",
        name="hard label",
        formula="-log softmax(z_s)_k, k = argmax z_t",
        source="Touvron et al. 2020, arXiv 2012.12877",
        cost="1",
        use="across architectures, convolutional teacher to transformer; beside cross-entropy of weight 0.5",
    )

    kind: Literal["hard_label"] = "hard_label"
    weight: float = Field(default=0.5, ge=0)
    """Factor in the objective."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "HardLabel":
        """Return itself: it has no parts."""
        expect_same_classes(self.kind, given)
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of -log softmax(z_s) at the teacher's class."""
        assert batch.teacher is not None
        return F.cross_entropy(batch.student, batch.teacher.argmax(dim=1))


def _standardized(logits: Tensor) -> Tensor:
    std, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (std + 1e-7)


def _highest_standardized(num_classes: int, temperature: float) -> float:
    """Return the highest probability of any standardized row: one logit (K - 1) / sqrt(K), the others -1 / sqrt(K)."""
    return 1 / (1 + (num_classes - 1) * math.exp(-math.sqrt(num_classes) / temperature))
