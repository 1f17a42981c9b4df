"""Lifelong distillation: a student that learns new classes keeps what the model before it knew of the old ones."""

import logging
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs
from pipeline.errors import RecipeError

logger = logging.getLogger(__name__)


class LearningWithoutForgetting(LossPart):
    """LwF (Li and Hoiem 2016, arXiv 1606.09282, equations 2 to 4): the old model teaches on images of the new classes.

    With K_old the teacher's classes, which are the student's first ones:
    L = (1/B) sum_i KL(softmax(z_t / T) || softmax(z_s[:K_old] / T)), summed over the old classes.
    As in the paper and the authors' code there is no factor T^2 (many libraries add it: weight = T^2 does the same).
    They write the cross-entropy; the KL differs by the teacher's entropy, a constant, and is 0 where nothing is
    forgotten. Each old task has a softmax of its own there; here one softmax spans all old classes.
    """

    METHOD: ClassVar[Method] = Method(
        family="lifelong",
        name="LwF",
        formula="KL(softmax(z_t / T) || softmax(z_s[:K_old] / T))",
        source="Li and Hoiem 2016, arXiv 1606.09282",
        cost="1",
        use="new classes beside those of an old model, which teaches its own; beside cross-entropy of weight 1",
    )

    kind: Literal["lwf"] = "lwf"
    temperature: float = Field(default=2.0, gt=0)
    """T: the paper's 2 is from a grid search."""

    @property
    def needs(self) -> Needs:
        """The old model's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "LearningWithoutForgetting":
        """Return itself, or refuse a teacher that knows more classes than the student has."""
        old, num = given.num_teacher_classes, given.num_classes
        if old > num:
            raise RecipeError(
                f"losses: {self.kind}: expected a teacher of fewer classes than the student's {num}, its first ones; "
                f"got one of {old}: list all its classes first in the task's, then the new ones"
            )
        if old == num:
            logger.warning(
                'losses: lwf: student and teacher have the same %d classes, so there is none to learn: kind = "kd" is '
                "the same with a factor of T^2",
                num,
            )
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of the KL over the teacher's classes."""
        assert batch.teacher is not None
        old = batch.student[:, : batch.teacher.shape[1]]
        log_p = F.log_softmax(old / self.temperature, dim=1)
        log_q = F.log_softmax(batch.teacher / self.temperature, dim=1)
        return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
