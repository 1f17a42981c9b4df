"""Learning from labels alone."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs


class CrossEntropy(LossPart):
    """Cross-entropy with the true class, optionally smoothed (Szegedy et al. 2015, arXiv 1512.00567, section 7).

    Of mixed images it is the mean of both labels' cross-entropies, by their shares (Zhang et al. 2017, arXiv
    1710.09412).
    """

    METHOD: ClassVar[Method] = Method(
        family="labels",
        name="cross-entropy",
        formula="-sum_k q_k log softmax(z_s)_k",
        source="Szegedy et al. 2015, arXiv 1512.00567",
        cost="0",
        use="beside every loss that reads the teacher, unless labels are missing or the teacher is trusted alone",
    )

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability mass spread evenly over all classes."""

    @property
    def needs(self) -> Needs:
        """Labels only."""
        return Needs()

    def build(self, given: Given) -> "CrossEntropy":
        """Return itself: it has no parts."""
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of -sum_k q_k log softmax(z)_k."""
        if batch.mixed is None:
            return F.cross_entropy(batch.student, batch.labels, label_smoothing=self.label_smoothing)
        own, other = (
            F.cross_entropy(batch.student, labels, label_smoothing=self.label_smoothing, reduction="none")
            for labels in (batch.labels, batch.mixed.labels)
        )
        return (batch.mixed.share * own + (1 - batch.mixed.share) * other).mean()
