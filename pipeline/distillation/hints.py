"""Feature-based distillation: a trained projector takes the student's features to the teacher's.

Rule: projectors are trained with the student and dropped with the objective. Their batch normalization always uses the
batch at hand, so it keeps no statistics.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.counts import expect_several_images, expect_statistics
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs, pooled
from pipeline.distillation.pairs import MAP_OR_VECTOR, Pair, pairs_of

BN_EPS = 1e-4
NO_DIFFERENCE = 1e-12
"""Added to SRD's sum: features that are equal have a value and a gradient of zero."""


class FitNet(LossPart):
    """Romero et al. 2015 (arXiv 1412.6550, equation 3), trained jointly as in RepDistiller and mdistiller.

    L = mean((r(F_s) - F_t)^2) over all elements, summed over pairs of layers. r: a convolution that takes the student's
    map to the teacher's size (3x3 of stride 2 from twice it, a transposed 4x4 of stride 2 from half of it, else without
    padding a kernel of 1 + H_s - H_t), batch normalization, ReLU. The paper has half the sum of squares, a plain
    convolution as r, and a stage of hints alone before KD; the references train one stage on the mean, with weight 100.
    The statistics of r are those of each process: maps are too large to gather.
    """

    METHOD: ClassVar[Method] = Method(
        family="feature",
        name="FitNet",
        formula="mean((r(F_s) - F_t)^2)",
        source="Romero et al. 2015, arXiv 1412.6550",
        cost="1.0 to 1.3",
        use="beside cross-entropy, for a student much like its teacher; below the student alone on MobileNetV2",
    )

    kind: Literal["fitnet"] = "fitnet"
    weight: float = Field(default=100.0, ge=0)
    """Factor in the objective."""
    relu: bool = True
    """End the projector with ReLU, as the source does; left out by itself for a teacher's layer that ends in
    `:input`. Switch it off for any other layer that gives negative values: ReLU could never match them."""
    student_layers: tuple[str, ...] = ("stage:2",)
    """Guided layers of the student, which give maps [C, H, W]; a deep one over-regularizes."""
    teacher_layers: tuple[str, ...] = ("stage:2",)
    """The teacher's layer, the hint, for each of them."""

    @property
    def needs(self) -> Needs:
        """Maps of both networks."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers)

    def build(self, given: Given) -> "HintTerm":
        """Return the term with a projector for each pair."""
        pairs = pairs_of(self.kind, self.needs, given)
        return HintTerm([self._projector(pair) for pair in pairs])

    def _projector(self, pair: Pair) -> nn.Module:
        norm = nn.BatchNorm2d(pair.teacher_shape[0], track_running_stats=False)
        layers = [_resizing_convolution(self.kind, pair), norm]
        return (
            nn.Sequential(*layers, nn.ReLU()) if self.relu and not pair.is_before_activation else nn.Sequential(*layers)
        )


class HintTerm(nn.Module):
    """FitNet's term with its projectors."""

    def __init__(self, projectors: list[nn.Module]) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(projectors)

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum over pairs of the mean squared difference.

        Raises:
            RecipeError: the projected maps have one value a channel.
        """
        for teacher in batch.teacher_features:
            expect_statistics("fitnet", teacher)  # of the size of the projected maps
        triples = zip(self.projectors, batch.student_features, batch.teacher_features, strict=True)
        return torch.stack([F.mse_loss(project(student), teacher) for project, student, teacher in triples]).sum()


class SRD(LossPart):
    """Miles & Mikolajczyk, AAAI 2024 (arXiv 2303.11098): one linear projector, normalization, a soft maximum.

    L = 2 log(sum over batch and channels |BN(W f_s) - BN(f_t)|^4), f averaged over space; BN without affine part, eps
    1e-4, statistics of the whole batch of all processes. Summed over pairs of layers.
    It is a sum: the same batch twice over adds 2 log 2 to the value, and leaves the gradient of the weights as it is;
    the value may be negative. The authors' objective is cross-entropy + this + KL at T = 1: in a recipe the KL is a
    `kd` of its own, with `temperature = 1` and `weight = 1`. The paper leaves the power general; 4 and the factor 2 are
    from the authors' code for ImageNet, which gives W a bias that BN removes again: there is none here. torchdistill's
    SRDLoss has the power 1 unless told otherwise.
    """

    METHOD: ClassVar[Method] = Method(
        family="feature",
        name="SRD",
        formula="2 log sum |BN(W f_s) - BN(f_t)|^4",
        source="Miles & Mikolajczyk 2024, arXiv 2303.11098",
        cost="1.0 to 1.3",
        use="beside cross-entropy and kd at T = 1; the first feature loss to try; any pair of architectures",
    )

    kind: Literal["srd"] = "srd"
    exponent: float = Field(default=4.0, ge=1)
    """Power of the differences: the higher, the more the largest ones count."""
    student_layers: tuple[str, ...] = ("stage:last",)
    """Layers of the student: maps [C, H, W], which are averaged over space, or vectors [D]."""
    teacher_layers: tuple[str, ...] = ("stage:last",)
    """The teacher's layer for each of them."""

    @property
    def needs(self) -> Needs:
        """Averaged features of both networks."""
        return Needs(student_layers=self.student_layers, teacher_layers=self.teacher_layers, pooled=True)

    def build(self, given: Given) -> "LogSumTerm":
        """Return the term with one linear projector for each pair."""
        pairs = pairs_of(self.kind, self.needs, given, expected=MAP_OR_VECTOR)
        projectors = [nn.Linear(pair.student_shape[0], pair.teacher_shape[0], bias=False) for pair in pairs]
        return LogSumTerm(projectors, self.exponent)


class LogSumTerm(nn.Module):
    """SRD's term with its projectors."""

    def __init__(self, projectors: list[nn.Linear], exponent: float) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(projectors)
        self._exponent = exponent

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum over pairs of 2 log(sum of powers).

        Raises:
            RecipeError: the batch of all processes is one image.
        """
        terms = []
        for project, student, teacher in zip(
            self.projectors, batch.student_features, batch.teacher_features, strict=True
        ):
            h = _standardized(batch.gather(project(pooled(student))))
            expect_several_images("srd", h)
            g = _standardized(batch.gather(pooled(teacher)))
            terms.append(2 * torch.log((h - g).abs().pow(self._exponent).sum() + NO_DIFFERENCE))
        return torch.stack(terms).sum()


def _standardized(features_BD: Tensor) -> Tensor:
    """Return the columns with mean 0 and variance 1; a constant column becomes 0."""
    variance, mean = torch.var_mean(features_BD, dim=0, correction=0)
    return (features_BD - mean) * torch.rsqrt(variance + BN_EPS)


def _resizing_convolution(kind: str, pair: Pair) -> nn.Module:
    """Return the convolution from the student's map to the teacher's, without a bias: normalization follows.

    Raises:
        RecipeError: the student's map is smaller than the teacher's, and not half of it.
    """
    (channels_s, *size_s), (channels_t, *size_t) = pair.student_shape, pair.teacher_shape
    if size_s == [2 * side for side in size_t]:
        return nn.Conv2d(channels_s, channels_t, kernel_size=3, stride=2, padding=1, bias=False)
    if size_t == [2 * side for side in size_s]:
        return nn.ConvTranspose2d(channels_s, channels_t, kernel_size=4, stride=2, padding=1, bias=False)
    height, width = (1 + side_s - side_t for side_s, side_t in zip(size_s, size_t, strict=True))
    if min(height, width) < 1:
        raise pair.refusal(
            kind,
            expected="a student's map half as large as the teacher's, or at least as large",
            do="name a shallower layer of the student or a deeper one of the teacher",
        )
    return nn.Conv2d(channels_s, channels_t, kernel_size=(height, width), bias=False)
