"""Learning from labels alone."""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch
from pipeline.parts import RecipePart


class CrossEntropy(RecipePart):
    """Cross-entropy with the true class, optionally smoothed (Szegedy et al. 2015, arXiv 1512.00567, section 7)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    weight: float = Field(default=1.0, ge=0)
    """Factor in the objective."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability mass spread evenly over all classes."""

    @property
    def needs_teacher(self) -> bool:
        """Labels only."""
        return False

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of -sum_k q_k log softmax(z)_k."""
        return F.cross_entropy(batch.student, batch.labels, label_smoothing=self.label_smoothing)
