"""Decoupled distillation: what the teacher says of the true class, apart from what it says of the others.

Rule: both losses need one true class an image; of mixed images it is that of the larger share (`Batch.labels`).
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.classes import expect_same_classes, expect_three_classes
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs


class DecoupledDistillation(LossPart):
    """DKD (Zhao et al. 2022, arXiv 2203.08679, equation 7): KD's two parts with weights of their own.

    With p = softmax(z / T), y the true class, b = (p_y, 1 - p_y) and r = softmax over the other classes of z / T:
    L = T^2 * (1/B) sum_i [ alpha KL(b_t || b_s) + beta KL(r_t || r_s) ], summed over classes. Plain KD is alpha = 1
    with beta = 1 - p_y of the teacher (equation 5), so it mutes the second part where the teacher is sure.

    The authors' code takes log(1 - p_y) of a rounded probability, infinite for a student that is sure, and masks by
    subtracting 1000; here both come from log-sum-exp. It counts epochs from 1 in the warm-up; here a step counts with
    its fraction of an epoch, from 0. Of mixed images y is the class of the larger share.
    """

    METHOD: ClassVar[Method] = Method(
        family="response",
        name="DKD",
        formula="T^2 (alpha KL(b_t || b_s) + beta KL(r_t || r_s)); b: true class or not, r: among the others",
        source="Zhao et al. 2022, arXiv 2203.08679",
        cost="1",
        use="where KD saturates because the teacher is sure; beta wants tuning; not with two classes",
    )

    kind: Literal["dkd"] = "dkd"
    warmup_epochs: float = Field(default=20.0, ge=0)
    """Epochs in which the weight grows linearly from 0: 20 of the authors' 240 on CIFAR-100, 1 of 100 on ImageNet;
    fewer for short runs."""
    temperature: float = Field(default=4.0, gt=0)
    """T: 4 on CIFAR-100, 1 on ImageNet and for a quantized student."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the part on the true class."""
    beta: float = Field(default=2.0, ge=0)
    """Weight of the part on the others. CIFAR-100: 2 for ResNet-56 to 20 and 110 to 32; 6 for VGG-13 and WRN-40-2
    teachers; 8 for ResNet-32x4 teachers, ResNet-50 to MobileNetV2 and ShuffleNetV1. ImageNet, at T = 1: 0.5 for
    ResNet-34 to 18, 2 for ResNet-50 to MobileNetV1."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "DecoupledDistillation":
        """Return itself, or refuse two classes, which leave no second part."""
        expect_same_classes(self.kind, given)
        expect_three_classes(self.kind, given, because="its second part is always 0 and its first one is KD")
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return T^2 times the mean over the batch of both parts."""
        assert batch.teacher is not None
        student, teacher = batch.student / self.temperature, batch.teacher / self.temperature
        others_s, others_t = (_without(logits, batch.labels) for logits in (student, teacher))
        on_target = F.kl_div(
            _log_binary(student, batch.labels, others_s),
            _log_binary(teacher, batch.labels, others_t),
            reduction="batchmean",
            log_target=True,
        )
        on_others = F.kl_div(
            others_s.log_softmax(dim=1), others_t.log_softmax(dim=1), reduction="batchmean", log_target=True
        )
        return self.temperature**2 * (self.alpha * on_target + self.beta * on_others)


class NormalizedDistillation(LossPart):
    """NKD (Yang et al. 2023, arXiv 2303.13005): cross-entropy with the teacher, the true class apart.

    With p = softmax(z) at temperature 1, y the true class and r = softmax over the other classes of z / T:
    L = (1/B) sum_i [ -p_t,y log p_s,y - gamma T^2 sum_{k != y} r_t,k log r_s,k ]. The temperature does not touch the
    first part. Both are cross-entropies, not KLs: the value does not fall to zero where student and teacher agree, and
    there the first part still pulls to the label.

    The authors' released code means to leave out the true class in the second part, but builds its mask by writing
    ones into ones: it compares all classes. This follows the paper. Of mixed images y is the class of the larger share.
    """

    METHOD: ClassVar[Method] = Method(
        family="response",
        name="NKD",
        formula="-p_t,y log p_s,y - gamma T^2 sum_{k != y} r_t,k log r_s,k; r: softmax among the others",
        source="Yang et al. 2023, arXiv 2303.13005",
        cost="1",
        use="beside cross-entropy of weight 1, as DKD but with one weight to tune; not with two classes",
    )

    kind: Literal["nkd"] = "nkd"
    temperature: float = Field(default=1.0, gt=0)
    """T of the part on the other classes."""
    gamma: float = Field(default=1.5, ge=0)
    """Weight of the part on the other classes."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=True)

    def build(self, given: Given) -> "NormalizedDistillation":
        """Return itself, or refuse two classes, which leave no second part."""
        expect_same_classes(self.kind, given)
        expect_three_classes(self.kind, given, because="its second part is always 0 and its first one the label again")
        return self

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of both parts."""
        assert batch.teacher is not None
        at_label = batch.labels[:, None]
        log_p = batch.student.log_softmax(dim=1).gather(1, at_label)
        on_target = -(batch.teacher.softmax(dim=1).gather(1, at_label) * log_p).mean()
        others_s, others_t = (
            _without(logits, batch.labels) / self.temperature for logits in (batch.student, batch.teacher)
        )
        on_others = F.cross_entropy(others_s, others_t.softmax(dim=1))
        return on_target + self.gamma * self.temperature**2 * on_others


def _without(logits_NK: Tensor, labels: Tensor) -> Tensor:
    """Return [B, K - 1]: each row without its true class."""
    places = torch.arange(logits_NK.shape[1] - 1, device=labels.device)
    return logits_NK.gather(1, places + (places >= labels[:, None]))  # indices, not a mask: no wait for the device


def _log_binary(logits: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Return [B, 2]: log(p_y) and log(1 - p_y), right also where p_y rounds to 0 or 1."""
    true = logits.gather(1, labels[:, None])
    return torch.cat((true, others.logsumexp(dim=1, keepdim=True)), dim=1).log_softmax(dim=1)
