"""Calibration: the ranges of a quantized model's tensors, from images of the validation cut."""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from calibration.observations import Observations
from calibration.ranges import AnyRange, MinMax
from calibration.samples import Choice, choose_samples
from pipeline.errors import DataError
from pipeline.parts import RecipePart
from pipeline.training.fake_quantize import activation_quantizers

CALIBRATION_BATCH = 64


class Calibration(RecipePart):
    """Which images the first ranges come from, and how; training then moves them."""

    method: AnyRange = Field(default=MinMax(), discriminator="kind")
    """What makes a tensor's range from its values."""
    samples: int = Field(default=512, ge=1)
    """Images of the validation cut."""
    choice: Choice = "random"
    """Which of them: the `first`, `random` ones, `balanced` over the classes, or `diverse` by the student's logits."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice."""


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batch: Callable[[Tensor], Tensor],
    num_images: int,
    calibration: Calibration,
    labels: np.ndarray | None = None,
) -> None:
    """Set every activation grid of `model` by what passes through it, in float32, and quantize from then on.

    Weights are on their grid already. `diverse` samples are chosen by the k-centre of the logits that the student
    itself gives in float to all `num_images`: it knows the classes, and no stage needs a teacher for it.

    Args:
        model: from `make_quantized`.
        batch: images by index int64[B], plain views, normalized.
        num_images: how many there are.
        calibration: how many to use, which, and the method.
        labels: classes int64[num_images], where samples are `balanced`.

    Raises:
        DataError: a tensor is not finite, or none passed, or labels are missing.
    """
    quantizers = activation_quantizers(model)
    for quantizer in quantizers.values():
        quantizer.quantizing = False
    model.eval()
    chosen = _choose(model, batch, num_images, calibration, labels)
    codes = next((quantizer.nonnegative_codes for quantizer in quantizers.values()), 255)
    observations = Observations(calibration.method, codes, with_facts=False)
    observe_activations(model, batch, chosen, observations)
    ranges = _ranges_of(observations)
    for name, quantizer in quantizers.items():
        quantizer.settle(*ranges[_shown(name)])


@torch.no_grad()
def observe_activations(
    model: nn.Module, batch: Callable[[Tensor], Tensor], index: Tensor, observations: Observations
) -> None:
    """Show `observations` what passes each activation quantizer for the images of `index`, by the layer's name.

    Raises:
        DataError: a tensor is not finite; the first of the batch in the order of execution.
    """
    failures: list[ValueError] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor | bool, ...]], None]:
        def take_in(module: nn.Module, inputs: tuple[Tensor | bool, ...]) -> None:
            values, *is_moved = inputs
            if failures or any(is_moved):
                return  # what is only moved was seen before
            assert isinstance(values, Tensor)
            try:
                observations.observe(name, values.float().cpu().numpy())
            except ValueError as error:
                failures.append(error)  # raised outside: torch.fx prints what passes through its forward

        return take_in

    hooks = [
        quantizer.register_forward_pre_hook(watch(_shown(name)))
        for name, quantizer in activation_quantizers(model).items()
    ]
    try:
        for rows in torch.split(index, CALIBRATION_BATCH):
            model(batch(rows))
            if failures:
                raise _explained(failures[0]) from failures[0]
            observations.end_batch(len(rows))
    finally:
        for hook in hooks:
            hook.remove()


def _choose(
    model: nn.Module,
    batch: Callable[[Tensor], Tensor],
    num_images: int,
    calibration: Calibration,
    labels: np.ndarray | None,
) -> Tensor:
    features = None
    if calibration.choice == "diverse":
        parts = torch.split(torch.arange(num_images), CALIBRATION_BATCH)
        features = torch.cat([model(batch(rows)).flatten(1).float().cpu() for rows in parts]).numpy()
    try:
        rows = choose_samples(
            calibration.choice, calibration.samples, num_images, seed=calibration.seed, labels=labels, features=features
        )
    except ValueError as error:
        raise DataError(f"calibration.choice: {error}") from error
    return torch.from_numpy(rows)


def _ranges_of(observations: Observations) -> dict[str, tuple[float, float]]:
    try:
        return observations.ranges()
    except ValueError as error:
        raise _explained(error) from error


def _explained(error: ValueError) -> DataError:
    return DataError(f"calibration: {error}. Look at the student's weights and at task.normalization")


def _shown(name: str) -> str:
    return name.removeprefix("quantize_")
