"""Online distillation: networks that learn together, without a teacher that was trained before."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs


class DeepMutualLearning(LossPart):
    """DML, Zhang et al. 2018 (arXiv 1706.00384, L_Theta1, L_Theta2), with one peer: another network like the student.

    Both see the same images. The student's term is lambda KL(softmax(z_peer) || softmax(z_s)) at temperature 1, mean
    over the batch and sum over classes; the peer learns by CE(z_peer, y) + lambda KL(softmax(z_s) || softmax(z_peer)).
    Each takes the other as given: no gradient passes between them. The paper has no lambda (1); it is the weight here.

    The term's value is the student's part alone; the peer's own loss adds its gradient and no value. While the weight
    warms up or decays the peer learns at the same fraction of its rate. The paper updates the networks in turn, with
    logits computed anew; here, as in common code, one step updates both. The peer's batch statistics are those of its
    process. It is never exported.
    """

    METHOD: ClassVar[Method] = Method(
        family="online",
        name="DML",
        formula="KL(softmax(z_peer) || softmax(z_s)); the peer learns by CE + KL(softmax(z_s) || softmax(z_peer))",
        source="Zhang et al. 2018, arXiv 1706.00384",
        cost="a second student: about twice the student's time and memory; no teacher",
        use="where there is no teacher, beside cross-entropy",
    )

    kind: Literal["dml"] = "dml"
    weight: float = Field(default=1.0, gt=0)
    """Factor in the objective: lambda, of both networks."""
    precision: Literal["bf16-mixed", "32-true"] = "32-true"
    """bf16-mixed runs the peer's layers in bfloat16, as the schedule's precision does the student's: faster."""

    @property
    def needs(self) -> Needs:
        """Images and labels only."""
        return Needs()

    def build(self, given: Given) -> nn.Module:
        """Return the term with its peer, untrained, of a seed of its own drawn from torch's generator.

        Whoever seeds before the student and before the objective alike would else get twins, which never part.
        """
        seed = int(torch.randint(2**62, ()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peer = given.new_student()
        return _MutualLearning(peer, self.weight, self.precision == "bf16-mixed")


class _MutualLearning(nn.Module):
    """The term and its peer."""

    def __init__(self, peer: nn.Module, weight: float, is_bf16: bool) -> None:
        super().__init__()
        self.peer = peer
        self._weight = weight
        self._is_bf16 = is_bf16

    def forward(self, batch: Batch) -> Tensor:
        """Return the student's KL divergence from the peer; its gradient teaches the peer, too."""
        assert batch.images is not None
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self._is_bf16):
            logits = self.peer(batch.images)
        logits = logits.to(batch.student.dtype)
        labelled = CrossEntropy()(replace(batch, student=logits))
        # the objective multiplies by the weight (lambda), which is no factor of the peer's cross-entropy
        peers_own = labelled / self._weight + _divergence(batch.student.detach(), logits)
        return _divergence(logits.detach(), batch.student) + (peers_own - peers_own.detach())


def _divergence(teaching: Tensor, learning: Tensor) -> Tensor:
    """Return KL(softmax(teaching) || softmax(learning)), mean over the batch."""
    log_p, log_q = F.log_softmax(teaching, dim=1), F.log_softmax(learning, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
