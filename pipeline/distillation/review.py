"""Multi-level feature distillation: shallow layers of the teacher teach what deeper ones of the student review."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.counts import expect_statistics
from pipeline.distillation.loss import INPUT, Batch, Given, LossPart, Method, Needs, pooled
from pipeline.distillation.pairs import Pair, pairs_of

PYRAMID = (4, 2, 1)
"""Sides of the grids that maps are averaged to, each counting half of the one before."""


class KnowledgeReview(LossPart):
    """ReviewKD: Chen et al. 2021 (arXiv 2104.09044, section 3: residual learning, ABF and HCL).

    From deep to shallow: x = BN(conv1x1(F_s)) is fused with the deeper residual r, resized to it, as a_1 x + a_2 r with
    (a_1, a_2) = sigmoid(conv1x1([x, r])) at each position; resized to the teacher's map t it is the next residual, and
    y = BN(conv3x3(residual)) is compared with t. L = sum over levels of
    HCL(y, t) = (mse(y, t) + sum_k 2^-k mse(pool_k y, pool_k t)) / (1 + sum_k 2^-k), k = 1, 2, 3, where pool_k averages
    over a grid of 4x4, 2x2 and 1x1 as far as the map is larger; mse is the mean over all elements.
    As in the authors' code, t comes before the last activation of its stage, and the last stage, after its activation
    and averaged over space, is one more level. That code takes square maps, whose sizes stand in a table for each pair
    of networks; here all comes from the shapes. The statistics of BN are those of each process: maps are too large to
    gather.
    """

    METHOD: ClassVar[Method] = Method(
        family="feature, multi-level",
        name="ReviewKD",
        formula="sum_levels HCL(ABF(F_s, deeper F_s), F_t)",
        source="Chen et al. 2021, arXiv 2104.09044",
        cost="2.2; for a ResNet-8 its convolutions are 1.5 times those of the student",
        use="beside cross-entropy, where training time is cheap; weight 0.6 to 8 by pair; all pairs of architectures",
    )

    kind: Literal["review_kd"] = "review_kd"
    weight: float = Field(default=1.0, ge=0)
    """Factor in the objective: 0.6 to 8 on CIFAR-100, 1 on ImageNet."""
    warmup_epochs: float = Field(default=20.0, ge=0)
    """Epochs in which the weight grows linearly from 0: 20 of 240 on CIFAR-100, 1 on ImageNet; fewer in a short run."""
    max_mid_channels: int = Field(default=512, ge=1)
    """Residuals have as many channels as the student's deepest layer, but at most these."""
    pooled_level: bool = True
    """Add the last layers, after their activation and averaged over space, as the deepest level."""
    student_layers: tuple[str, ...] = ("stage:1", "stage:2", "stage:3")
    """Layers of the student that give maps [C, H, W], from shallow to deep."""
    teacher_layers: tuple[str, ...] = ("stage:1:input", "stage:2:input", "stage:3:input")
    """The teacher's layer for each of them; `:input` is what enters its activation."""

    @property
    def needs(self) -> Needs:
        """Maps of both networks, and with the pooled level once more the last ones, after their activation."""
        last = slice(-1, None) if self.pooled_level else slice(0)
        return Needs(
            student_layers=(*self.student_layers, *(name.removesuffix(INPUT) for name in self.student_layers[last])),
            teacher_layers=(*self.teacher_layers, *(name.removesuffix(INPUT) for name in self.teacher_layers[last])),
        )

    def build(self, given: Given) -> "ReviewTerm":
        """Return the term with its fusions."""
        pairs = pairs_of(self.kind, self.needs, given)
        return ReviewTerm(pairs, self.max_mid_channels, pooled_level=self.pooled_level)


class ReviewTerm(nn.Module):
    """ReviewKD's term; its fusions go from shallow to deep, as its layers do."""

    def __init__(self, pairs: tuple[Pair, ...], max_mid_channels: int, *, pooled_level: bool) -> None:
        super().__init__()
        mid_channels = min(max_mid_channels, pairs[-1].student_shape[0])
        self.fusions = nn.ModuleList(Fusion(pair, mid_channels, is_deepest=pair is pairs[-1]) for pair in pairs)
        self._pooled_level = pooled_level

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of HCL over levels.

        Raises:
            RecipeError: maps of some level have one value a channel.
        """
        students, teachers = list(batch.student_features), list(batch.teacher_features)
        if self._pooled_level:
            students[-1], teachers[-1] = (pooled(last)[:, :, None, None] for last in (students[-1], teachers[-1]))
        residual = None
        levels = []
        for fusion, student, teacher in zip(
            reversed(self.fusions), reversed(students), reversed(teachers), strict=True
        ):
            expect_statistics("review_kd", student)
            expect_statistics("review_kd", teacher)
            output, residual = fusion(student, residual, teacher.shape[2:])
            levels.append(hierarchical_context_loss(output, teacher))
        return torch.stack(levels).sum()


class Fusion(nn.Module):
    """ABF, attention-based fusion of one level with the deeper ones."""

    def __init__(self, pair: Pair, mid_channels: int, *, is_deepest: bool) -> None:
        super().__init__()
        self.reduce = _normalized_convolution(pair.student_shape[0], mid_channels, kernel_size=1)
        self.attend = None if is_deepest else nn.Conv2d(2 * mid_channels, 2, kernel_size=1)
        self.expand = _normalized_convolution(mid_channels, pair.teacher_shape[0], kernel_size=3)

    def forward(self, student: Tensor, residual: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return what is compared with the teacher's map of `size`, and the residual for the next shallower level."""
        own: Tensor = self.reduce(student)
        if self.attend is not None:
            assert residual is not None
            residual = _resized(residual, (own.shape[2], own.shape[3]))
            shares = torch.sigmoid(self.attend(torch.cat([own, residual], dim=1)))
            own = own * shares[:, :1] + residual * shares[:, 1:]
        fused = _resized(own, size)
        return self.expand(fused), fused


def hierarchical_context_loss(output: Tensor, teacher: Tensor) -> Tensor:
    """Return HCL: mean squared differences of two maps [B, C, H, W] and of their averages over ever coarser grids.

    Averaging is linear, so the difference is averaged once instead of both maps.
    """
    difference = output - teacher
    loss, share, total = difference.square().mean(), 1.0, 1.0
    for side in PYRAMID:
        if side >= min(difference.shape[2:]):
            continue
        share /= 2
        loss = loss + share * F.adaptive_avg_pool2d(difference, side).square().mean()
        total += share
    return loss / total


def _normalized_convolution(channels_in: int, channels: int, *, kernel_size: int) -> nn.Sequential:
    """Return a convolution, initialized as in the authors' code, and BN, which always uses the batch at hand."""
    conv = nn.Conv2d(channels_in, channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels, track_running_stats=False))


def _resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if feature.shape[2:] == size else F.interpolate(feature, size, mode="nearest")
