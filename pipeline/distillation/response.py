"""Response-based distillation: the student matches the teacher's softened probabilities."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch
from pipeline.parts import RecipePart


class KnowledgeDistillation(RecipePart):
    """Hinton et al. 2015 (arXiv 1503.02531), optionally with standardized logits (Sun et al. 2024, arXiv 2403.01427).

    L = T^2 * (1/B) sum_i KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes. T^2 keeps the size of the
    gradient comparable while T changes (section 2 of Hinton et al.). A quantized student wants T = 1.
    """

    kind: Literal["kd"] = "kd"
    weight: float = Field(default=0.9, ge=0)
    """Factor in the objective."""
    temperature: float = Field(default=4.0, gt=0)
    """T: 1 for a quantized student and for strong teachers, 2 to 4 on small data."""
    standardize: bool = False
    """Replace each row z by (z - mean) / (std + 1e-7) in both models first; pointless with two classes."""

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    def __call__(self, batch: Batch) -> Tensor:
        """Return the term; its gradient with respect to z_s is (T/B) (softmax(z_s/T) - softmax(z_t/T))."""
        assert batch.teacher is not None
        student, teacher = batch.student, batch.teacher
        if self.standardize:
            student, teacher = _standardized(student), _standardized(teacher)
        log_p = F.log_softmax(student / self.temperature, dim=1)
        log_q = F.log_softmax(teacher / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def _standardized(logits: Tensor) -> Tensor:
    std, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (std + 1e-7)
