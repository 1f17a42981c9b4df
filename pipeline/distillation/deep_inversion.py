"""Data-free distillation: images that a teacher itself remembers, by DeepInversion (Yin et al. 2020, arXiv 1912.08795).

Rule: nothing here meets a real image; all that is known of the data are the teacher's weights and BatchNorm statistics.
Legend: B images, C channels, K classes.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.distillation.loss import Method
from pipeline.errors import RecipeError
from pipeline.parts import RecipePart

TEMPERATURE = 3.0
"""Of the competition's softmax, as in both reference implementations; the paper names none."""


class DeepInversion(RecipePart):
    """How images are synthesized from a teacher: DeepInversion, and Adaptive DeepInversion where a student competes.

    Adam moves a batch of noise x towards the minimum of (sections 3.2 and 3.3 of the paper)

        L(x) = one_hot CE(z_t, y) + bn sum_l (||mu_l(x) - mu_l||_2 + ||var_l(x) - var_l||_2)
               + tv TV(x) + l2 ||x||_2 - adversarial JS(softmax(z_t / 3), softmax(z_s / 3)),

    l over the teacher's BatchNorm layers, mu and var their running statistics. Defaults: the authors' CIFAR-10 settings
    for better images (learning rate 0.1, bn 10, tv 1e-3; those of their paper: 0.05, 10, 2.5e-5), and 1,000 steps.

    Differences from the reference implementations (NVlabs/DeepInversion, zju-vipa/CMI): JS is the divergence itself,
    without clamped probabilities (theirs takes KL(M || P) for KL(P || M)); TV is taken of the image, not of its shifted
    copy, whose seam is no edge; images are clipped to what bytes can hold after every step (the paper's CIFAR-10 code
    does not); the learning rate falls to zero along a cosine, and the last images are kept (theirs mean to keep those
    of the lowest loss, and in effect keep the last as well).

    WARNING: synthesized images can show what training images looked like. Whatever licence, consent or secrecy binds
    the training data binds them as well.
    """

    METHOD: ClassVar[Method] = Method(
        family="data-free, adversarial",
        name="DeepInversion; Adaptive DeepInversion with a student",
        formula="min_x CE(z_t, y) + a sum_l (||mu_l(x) - mu_l|| + ||var_l(x) - var_l||) + tv TV(x) - JS(p_t, p_s)",
        source="Yin et al. 2020, arXiv 1912.08795",
        cost=">> 1: steps x images forward and backward passes of the teacher, before KD",
        use="where the teacher's training data cannot be had; the teacher needs BatchNorm; images may reveal that data",
    )

    kind: Literal["deep_inversion"] = "deep_inversion"
    images: int = Field(ge=1, examples=[10_000])
    """How many images to synthesize; classes take turns."""
    batch_size: int = Field(default=256, ge=2)
    """Images optimised at once, at most: their statistics are compared, so it should hold every class several times."""
    steps: int = Field(default=1000, ge=1)
    """Steps of Adam for each batch; the paper takes 2,000."""
    learning_rate: float = Field(default=0.1, gt=0)
    """First step size, in units of normalized pixels; falls to zero along a cosine."""
    one_hot: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy with the class asked for."""
    bn: float = Field(default=10.0, ge=0)
    """Weight of the distance from the teacher's BatchNorm statistics: 1 to 100 in the paper, 1 for shallow teachers."""
    tv: float = Field(default=1e-3, ge=0)
    """Weight of total variation; for batches of 256, and in proportion to 1 / sqrt(batch_size) for others."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the norm of the batch of normalized images; the paper has 3e-8."""
    adversarial: float = Field(default=1.0, ge=0)
    """Weight of the disagreement between teacher and student; counts only where a trained student is given."""
    jitter: int = Field(default=2, ge=0)
    """Each step sees the batch shifted, round its edges, by up to this many pixels: 2 of 32, 30 of 224, 0 of 8."""
    flip: bool = True
    """Half of the steps see it mirrored; false where a mirrored image is another thing (digits, text)."""
    precision: Literal["bf16-mixed", "32-true"] = "32-true"
    """bf16-mixed: the networks run in bfloat16, statistics and losses in float32."""
    seed: int = Field(default=0, ge=0)
    """Of noise, shifts and mirroring."""

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class InversionLoss:
    """The weighted terms of DeepInversion for one teacher, and a student that competes with it or none.

    Raises:
        RecipeError: the teacher has no BatchNorm statistics.
    """

    synthesis: DeepInversion
    teacher: nn.Module
    """In eval mode."""
    student: nn.Module | None = None
    """In eval mode."""

    def __post_init__(self) -> None:
        if not norm_layers(self.teacher):
            raise RecipeError(
                "data_free: deep_inversion: expected a teacher with BatchNorm, whose running statistics say what its "
                f"training data looked like; got {type(self.teacher).__name__.lstrip('_')} without any. Name a teacher "
                "with BatchNorm, or distill on real images"
            )

    def __call__(self, seen_BCHW: Tensor, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Return the terms by name: of what the networks see (shifted, mirrored), and of the images themselves."""
        weights = self.synthesis
        low = weights.precision == "bf16-mixed"
        with reading_inputs(norm_layers(self.teacher)) as inputs, _autocast(seen_BCHW, low):
            logits = self.teacher(seen_BCHW)
            rival = self.student(seen_BCHW) if self.student is not None and weights.adversarial else None
        logits = logits.float() if low else logits
        terms = {"one_hot": weights.one_hot * F.cross_entropy(logits, labels_B)}
        if weights.bn:
            distances = [statistics_distance(feature, *_running(layer)) for layer, feature in inputs]
            terms["bn"] = weights.bn * torch.stack(distances).sum()
        if weights.tv:
            terms["tv"] = weights.tv * total_variation(images_BCHW)
        if weights.l2:
            terms["l2"] = weights.l2 * torch.linalg.vector_norm(images_BCHW)
        if rival is not None:
            terms["adversarial"] = -weights.adversarial * jensen_shannon(logits, rival.to(logits.dtype), TEMPERATURE)
        return terms


def norm_layers(network: nn.Module) -> Mapping[str, nn.Module]:
    """Return the layers with running statistics, by name: BatchNorm, and what else keeps its mean and variance."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and isinstance(getattr(module, "running_var", None), Tensor)
    }


@contextmanager
def reading_inputs(layers: Mapping[str, nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Collect what enters the layers, call by call; a layer that is never called counts not at all, one twice twice."""
    seen: list[tuple[nn.Module, Tensor]] = []
    with ExitStack() as stack:
        for layer in layers.values():
            handle = layer.register_forward_pre_hook(lambda module, args: seen.append((module, args[0])))
            stack.callback(handle.remove)
        yield seen


def statistics_distance(feature: Tensor, mean_C: Tensor, var_C: Tensor) -> Tensor:
    """Return ||mu(x) - mu||_2 + ||var(x) - var||_2 of features [B, C, ...]: one layer's part of R_feature.

    Per channel, over batch and space. The variance is the batch's own (divided by its count), as in the reference,
    though running variances are unbiased.
    """
    axes = [axis for axis in range(feature.ndim) if axis != 1]
    var, mean = torch.var_mean(feature.to(mean_C.dtype), axes, correction=0)
    distance: Tensor = torch.linalg.vector_norm(mean - mean_C) + torch.linalg.vector_norm(var - var_C)
    return distance


def total_variation(images_BCHW: Tensor) -> Tensor:
    """Return the sum, over the four directions of neighbours, of the l2 norm of all differences of the batch.

    As in the reference; the paper leaves the form open. No mean over the batch: it grows with sqrt(B).
    """
    x = images_BCHW
    differences = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences]).sum()


def jensen_shannon(first_BK: Tensor, second_BK: Tensor, temperature: float) -> Tensor:
    """Return the mean over B of (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2: from 0 to log 2."""
    log_p = F.log_softmax(first_BK / temperature, dim=1)
    log_q = F.log_softmax(second_BK / temperature, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    divergences = [F.kl_div(log_m, log, reduction="batchmean", log_target=True) for log in (log_p, log_q)]
    return torch.stack(divergences).mean()


def jittered(images_BCHW: Tensor, jitter: int, *, flip: bool, generator: torch.Generator) -> Tensor:
    """Return the batch shifted by up to `jitter` pixels each way, what leaves on one side entering on the other.

    With `flip` it is mirrored in half of the calls.
    """
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
    mirror = bool(torch.randint(2, (), generator=generator))  # drawn always, so that flip alone changes nothing else
    shifted = images_BCHW.roll((down, right), dims=(2, 3))
    return shifted.flip(3) if flip and mirror else shifted


def _running(layer: nn.Module) -> tuple[Tensor, Tensor]:
    mean, var = layer.running_mean, layer.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    return mean, var


def _autocast(images: Tensor, enabled: bool) -> torch.autocast:
    return torch.autocast(images.device.type, torch.bfloat16, enabled=enabled)
