"""Contrastive distillation: an image as the student sees it is told from others as the teacher sees them.

Rule: images are compared across the whole batch of all processes. B images, N training images, K negatives, D values
of an embedding.
"""

import logging
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.counts import expect_several_images
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs, pooled
from pipeline.distillation.pairs import MAP_OR_VECTOR, pairs_of
from pipeline.errors import RecipeError

logger = logging.getLogger(__name__)


class ContrastiveRepresentationDistillation(LossPart):
    """CRD, Tian et al. 2019 (arXiv 1910.10699, equation 18 by the authors' code), with memory banks and labels.

    Embeddings g_s, g_t are linear in the features averaged over space, of length 1. Anchors of one network meet the
    bank M of the other: the row of their own image, and K negatives drawn among the images of other classes.

    L = (1/B) sum_i [ log(1 + c / h+) + sum_k log(1 + h_k / c) ], for student and teacher as anchors, added;
    h = exp(<g, M> / T) / Z, c = K / N, Z = N times the mean of exp(<g, M> / T) over the first batch, fixed thereafter.
    Then each bank's row becomes momentum * row + (1 - momentum) * embedding, of length 1.

    The authors' code draws K negatives for each image alone, with replacement where the data has fewer. Here all images
    of a batch share one draw a step, classes in proportion and no image twice, and each takes those of other classes:
    every image of another class is as likely as before, and one product of matrices takes the place of B K copied
    rows. Where classes differ in size, an image's sum over its negatives counts as K times their mean. K falls to what
    the data has, with a warning. The authors add 1e-7 to h + c; here logarithms keep the terms exact.

    Drawn from torch's generator. The banks, 8 N D bytes, and Z are in the term's state. Every process computes the
    whole batch, so that all banks stay alike. Of mixed images the banks keep what the mixture looks like.
    """

    METHOD: ClassVar[Method] = Method(
        family="contrastive",
        name="CRD",
        formula="log(1 + c / h+) + sum_k log(1 + h_k / c), h = exp(<g, M> / T) / Z, c = K / N; both directions",
        source="Tian et al. 2019, arXiv 1910.10699",
        cost="KD, and at B = 128, K = 16384 about one training step of ResNet-8 more (a third of ResNet-20's)",
        use="beside KD, when accuracy counts more than time, and data fits a bank",
    )

    kind: Literal["crd"] = "crd"
    weight: float = Field(default=0.8, ge=0)
    """Factor in the objective."""
    num_negatives: int = Field(default=16384, ge=1)
    """K: images of other classes that each image is told from; fewer where the data has fewer."""
    temperature: float = Field(default=0.07, gt=0)
    """T."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Share of a bank's row that stays when its image is met."""
    dimensions: int = Field(default=128, ge=1)
    """D, of an embedding."""
    student_layers: tuple[str, ...] = ("stage:last",)
    """One layer of the student."""
    teacher_layers: tuple[str, ...] = ("stage:last",)
    """One layer of the teacher."""

    @property
    def needs(self) -> Needs:
        """Features, averaged over space."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers, pooled=True)

    def build(self, given: Given) -> nn.Module:
        """Return the term with its embeddings and banks.

        Raises:
            RecipeError: not one layer of each network, or all training images are of one class: no negatives.
        """
        channels = _channels(self, given)
        available = len(given.labels) - int(given.labels.bincount().max())
        if available == 0:
            raise RecipeError(
                "losses: crd: expected training images of at least two classes, to tell each from those of others; "
                "got one class. Use info_nce, which needs no classes"
            )
        if available < self.num_negatives:
            logger.warning(
                "losses: crd: num_negatives is %d, but the data has only %d images outside of its largest class; "
                "each image is told from %d",
                self.num_negatives,
                available,
                available,
            )
        return _Contrast(self, min(self.num_negatives, available), given.labels, channels)


class InfoNce(LossPart):
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) between the networks, symmetric as in CLIP.

    L = 1/2 (1/B) sum_i [ -log softmax_j(<g_s_i, g_t_j> / T)_i - log softmax_j(<g_s_j, g_t_i> / T)_i ]: the embedding of
    an image by the one network is told from those of the others in the batch by the other (Radford et al. 2021, arXiv
    2103.00020, figure 3). The same embeddings as CRD's, without bank, labels and memory; B - 1 negatives, images of the
    same class among them. Bounded below by about log(1 + (B - 1) exp(-2 / T)), not 0. A batch twice over has log 2
    more: an image's copy is a negative that cannot be told from it. A design option: no published number backs it.
    """

    METHOD: ClassVar[Method] = Method(
        family="contrastive",
        name="in-batch InfoNCE",
        formula="-log softmax_j(<g_s_i, g_t_j> / T)_i, both directions",
        source="van den Oord et al. 2018, arXiv 1807.03748; no published number for distillation",
        cost="about 1",
        use="where CRD is too dear or labels are missing; large batches",
    )

    kind: Literal["info_nce"] = "info_nce"
    temperature: float = Field(default=0.1, gt=0)
    """T."""
    dimensions: int = Field(default=128, ge=1)
    """D, of an embedding."""
    student_layers: tuple[str, ...] = ("stage:last",)
    """One layer of the student."""
    teacher_layers: tuple[str, ...] = ("stage:last",)
    """One layer of the teacher."""

    @property
    def needs(self) -> Needs:
        """Features, averaged over space."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers, pooled=True)

    def build(self, given: Given) -> nn.Module:
        """Return the term with its embeddings.

        Raises:
            RecipeError: not one layer of each network.
        """
        return _InBatch(self, _channels(self, given))


class _Embedding(nn.Module):
    """Features, averaged over space, as points [B, D] of length 1."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, dimensions)

    def forward(self, feature: Tensor) -> Tensor:
        return F.normalize(self.linear(pooled(feature)), dim=1, eps=1e-6)


class _InBatch(nn.Module):
    def __init__(self, loss: InfoNce, channels: tuple[int, int]) -> None:
        super().__init__()
        self._temperature = loss.temperature
        self.student, self.teacher = (_Embedding(width, loss.dimensions) for width in channels)

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean of both directions.

        Raises:
            RecipeError: the batch of all processes is one image.
        """
        student = batch.gather(self.student(batch.student_features[0]))
        expect_several_images("info_nce", student)
        teacher = batch.gather(self.teacher(batch.teacher_features[0]))
        scores = student @ teacher.T / self._temperature
        own = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class _Contrast(nn.Module):
    """CRD's term: embeddings, banks [N, D] of both networks, and log Z of student and teacher as anchors."""

    banks: Tensor
    log_z: Tensor
    labels: Tensor

    def __init__(
        self,
        loss: ContrastiveRepresentationDistillation,
        num_negatives: int,
        labels: Tensor,
        channels: tuple[int, int],
    ) -> None:
        super().__init__()
        self._loss = loss
        self._num_negatives = num_negatives
        others = len(labels) - int(labels.bincount().max())
        self._num_drawn = min(len(labels), round(len(labels) * num_negatives / others))  # K outside the largest class
        self._log_c = math.log(num_negatives / len(labels))
        self.student, self.teacher = (_Embedding(width, loss.dimensions) for width in channels)
        bound = math.sqrt(3 / loss.dimensions)  # rows of length 1 in the mean, as the authors draw them
        self.register_buffer("banks", torch.empty(2, len(labels), loss.dimensions).uniform_(-bound, bound))
        self.register_buffer("log_z", torch.full((2,), torch.nan))
        self.register_buffer("labels", labels.clone(), persistent=False)
        self._has_z = False  # spares a device from being waited for in every step
        self.register_load_state_dict_post_hook(lambda term, _: setattr(term, "_has_z", False))  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of both directions; the banks move on."""
        assert batch.index is not None
        student = batch.gather(self.student(batch.student_features[0]))
        teacher = batch.gather(self.teacher(batch.teacher_features[0]))
        index = batch.gather(batch.index)
        drawn = draw_images(self.labels, self._num_drawn)
        is_own = self.labels[index, None] == self.labels[drawn]
        factors = self._num_negatives / (~is_own).sum(dim=1).clamp(min=1)
        student_bank, teacher_bank = self.banks
        met = [
            _Met.of(anchors, bank, index, drawn, is_own, self._loss.temperature)
            for anchors, bank in ((student, teacher_bank), (teacher, student_bank))
        ]
        if not self._has_z:
            self._fix_z(met, factors, batch)
        value = torch.stack(
            [one.discrimination(log_z + self._log_c, factors) for one, log_z in zip(met, self.log_z, strict=True)]
        ).sum()
        self._move_banks(index, (student, teacher))
        return value

    @torch.no_grad()
    def _fix_z(self, met: list["_Met"], factors: Tensor, batch: Batch) -> None:
        """Keep log Z of the first batch: N times the mean of exp(<g, M> / T), the mean of all processes'."""
        if self.log_z.isnan().any():
            sums = torch.stack([(one.own.exp() + factors * one.others.exp().sum(dim=1)).mean() for one in met])
            means = batch.gather(sums[None] / (1 + self._num_negatives)).mean(dim=0)
            self.log_z.copy_(torch.log(len(self.labels) * means))
        self._has_z = True

    @torch.no_grad()
    def _move_banks(self, index: Tensor, embeddings: tuple[Tensor, Tensor]) -> None:
        for bank, embedding in zip(self.banks, embeddings, strict=True):
            moved = torch.lerp(embedding, bank[index], self._loss.momentum)
            bank.index_copy_(0, index, F.normalize(moved, dim=1, eps=1e-6))


@dataclass(frozen=True)
class _Met:
    """<anchor, row> / T of each anchor with its own image's row [B], and with those of others; -inf for its class."""

    own: Tensor
    others: Tensor

    @classmethod
    def of(
        cls, anchors: Tensor, bank: Tensor, index: Tensor, drawn: Tensor, is_own: Tensor, temperature: float
    ) -> "_Met":
        """Compare anchors [B, D] with rows of the bank, which are copied: the bank moves on before the gradient."""
        warm = anchors / temperature
        return cls((warm * bank[index]).sum(dim=1), (warm @ bank[drawn].T).masked_fill(is_own, -torch.inf))

    def discrimination(self, log_zc: Tensor, factors: Tensor) -> Tensor:
        """Return the mean of log(1 + c / h+) + factor * sum log(1 + h / c), where h / c = exp(score - log_zc)."""
        own, others = F.softplus(log_zc - self.own), F.softplus(self.others - log_zc)
        return (own + factors * others.sum(dim=1)).mean()


def draw_images(labels: Tensor, num: int) -> Tensor:
    """Draw rows int64[num] of the training images of classes `labels` [N], none twice, classes in proportion.

    All images, grouped by class in random order, are run through at equal steps from a random start.
    """
    order = torch.randperm(len(labels), device=labels.device)
    order = order[labels[order].argsort(stable=True)]
    start = torch.rand((), device=labels.device, dtype=torch.float64)
    steps = torch.arange(num, device=labels.device, dtype=torch.float64)
    return order[((steps + start) * (len(labels) / num)).long().clamp_(max=len(labels) - 1)]


def _channels(loss: ContrastiveRepresentationDistillation | InfoNce, given: Given) -> tuple[int, int]:
    """Return the channels of the one layer of student and teacher."""
    first, *more = pairs_of(loss.kind, loss.needs, given, expected=MAP_OR_VECTOR)
    if more:
        raise RecipeError(
            f"losses: {loss.kind}: expected one of student_layers and one of teacher_layers; got "
            f"{list(loss.student_layers)} and {list(loss.teacher_layers)}. For more, name the loss once for each pair"
        )
    return first.student_shape[0], first.teacher_shape[0]
