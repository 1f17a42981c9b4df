"""Self-distillation: a network's deep layers teach its shallow ones."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.counts import expect_statistics
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Batch, Given, LossPart, Method, Needs, pooled
from pipeline.errors import RecipeError


class BeYourOwnTeacher(LossPart):
    """BYOT, Zhang et al. 2019 (arXiv 1905.08094, section 3): exits at the shallow stages, the deepest teaches.

    L = sum_i [ (1 - alpha) CE(z_i, y) + alpha T^2 KL(softmax(z / T) || softmax(z_i / T)) + feature ||f_i - f||^2 ] over
    the exits i of all stages but the last; z are the student's own logits and f its last features, both taken as given;
    CE(z, y) is the loss `cross_entropy`. Means over the batch, sums over classes and channels.

    An exit is a bottleneck (depthwise-separable convolutions down to the shape of the last stage), the mean over space
    f_i, and a linear layer. Where the paper has the square of ||f_i - f||, at every exit, the authors' later code and
    those who follow it have the plain norm over the whole batch, and none at the exit next to the last; that code
    leaves T^2 out, too. The batch statistics of the bottlenecks are those of their process. Exits are never exported.
    """

    METHOD: ClassVar[Method] = Method(
        family="self",
        name="BYOT",
        formula="sum over exits: 0.7 CE(z_i) + 0.3 T^2 KL(softmax(z / T) || softmax(z_i / T)) + 0.03 ||f_i - f||^2",
        source="Zhang et al. 2019, arXiv 1905.08094",
        cost="the exits: about 1.3 times the student alone; no teacher",
        use="where there is no teacher, beside cross-entropy, in networks with several stages",
    )

    kind: Literal["byot"] = "byot"
    alpha: float = Field(default=0.3, ge=0, le=1)
    """Share of the deepest exit's probabilities in what an exit learns; the rest are labels."""
    temperature: float = Field(default=3.0, gt=0)
    """T of those probabilities."""
    feature: float = Field(default=0.03, ge=0)
    """Factor of the squared distance to the last features."""
    student_layers: tuple[str, ...] = ("stage:1", "stage:2", "stage:last")
    """Stages from shallow to deep: each but the last gets an exit."""

    @property
    def needs(self) -> Needs:
        """The student's feature maps."""
        return Needs(student_layers=self.student_layers)

    def build(self, given: Given) -> nn.Module:
        """Return the term with its exits.

        Raises:
            RecipeError: fewer than two layers, or a stage whose map cannot be halved down to that of the last.
        """
        if len(self.student_layers) < 2:
            raise RecipeError(
                "losses: byot: student_layers: expected at least two stages, from shallow to deep; got "
                f"{list(self.student_layers)}. The last teaches the others: name them, too"
            )
        *shallow, last = given.student_shapes
        for layer, shape in zip(self.student_layers, shallow, strict=False):
            if len(shape) != 3 or len(last) != 3 or _strides(shape, last) is None:
                raise RecipeError(
                    "losses: byot: student_layers: expected maps [C, H, W] whose height and width halve, once or more, "
                    f"or stay, down to those of {self.student_layers[-1]!r} {list(last)}; got {layer!r} {list(shape)}. "
                    "Name layers from shallow to deep, before pooling"
                )
        return _SelfDistillation(self, [_Exit(shape, last, given.num_classes) for shape in shallow])


class _SelfDistillation(nn.Module):
    """The term and its exits."""

    def __init__(self, loss: BeYourOwnTeacher, exits: list["_Exit"]) -> None:
        super().__init__()
        self._loss = loss
        self.exits = nn.ModuleList(exits)

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum over the exits.

        Raises:
            RecipeError: the last maps, to whose size the exits lead, have one value a channel.
        """
        *shallow, last = batch.student_features
        expect_statistics("byot", last)
        deepest = pooled(last).detach()
        log_p = F.log_softmax(batch.student.detach() / self._loss.temperature, dim=1)
        return torch.stack(
            [self._of_exit(batch, leave(maps), deepest, log_p) for leave, maps in zip(self.exits, shallow, strict=True)]
        ).sum()

    def _of_exit(self, batch: Batch, left: tuple[Tensor, Tensor], deepest: Tensor, log_p: Tensor) -> Tensor:
        features, logits = left
        loss = self._loss
        labelled = CrossEntropy()(replace(batch, student=logits))
        log_q = F.log_softmax(logits / loss.temperature, dim=1)
        taught = loss.temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        hint = (features - deepest).square().sum(dim=1).mean()
        return (1 - loss.alpha) * labelled + loss.alpha * taught + loss.feature * hint


class _Exit(nn.Module):
    """From a stage's maps [B, C, H, W] to features [B, D] like the last stage's, and logits."""

    def __init__(self, shape: tuple[int, ...], last: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        strides = _strides(shape, last)
        assert strides is not None
        layers = []
        channels = shape[0]
        for step, stride in enumerate(strides, start=1):
            wider = last[0] if step == len(strides) else min(2 * channels, last[0])
            layers += _separable(channels, wider, stride)
            channels = wider
        self.bottleneck = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits."""
        features = pooled(self.bottleneck(maps))
        return features, self.linear(features)


def _separable(channels_in: int, channels: int, stride: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
        nn.Conv2d(channels_in, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


def _strides(shape: tuple[int, ...], last: tuple[int, ...]) -> list[tuple[int, int]] | None:
    """Return the strides that bring a map down to the last one's height and width; None where none do."""
    size, target = list(shape[1:]), list(last[1:])
    strides: list[tuple[int, int]] = []
    while size != target:
        stride = [2 if now > then else 1 for now, then in zip(size, target, strict=True)]
        size = [-(-now // by) for now, by in zip(size, stride, strict=True)]
        if any(now < then for now, then in zip(size, target, strict=True)):
            return None
        strides.append((stride[0], stride[1]))
    return strides or [(1, 1)]
