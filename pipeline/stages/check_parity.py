"""Stage: how far the device parts from the trained model, hop by hop, on the same inputs; and where, if it does."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from pipeline.artifacts import Bisection, CompiledModel, Hop, OnnxModel, Parity
from pipeline.budget import ParityBudget
from pipeline.export.grids import Tap, bisect, compare_taps, diverge, find_taps
from pipeline.export.taps import batched_shapes, with_outputs
from pipeline.models.trained import TrainedModel
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import Split
from pipeline.training.evaluate import evaluate_logits
from pipeline.training.quantized_model import load_any
from pipeline.training.quantizer_taps import OnGrid, tap_quantizers
from targets.devices.device import Device
from targets.target import Arrays, RunOptions, Target

PARITY_SAMPLES = 256
BISECTED_SAMPLES = 32
MOST_ELEMENTS = 2**26
"""Of all compared tensors together: fewer samples are compared of a model whose tensors are large."""
LEAST_AGREEMENT = 0.98
"""Below this share of samples with the same class a hop is looked into, where no budget says otherwise."""
TORCH_TO_ONNX, ONNX_TO_DEVICE = "torch to ONNX", "ONNX to device"


@dataclass(frozen=True)
class Runtime:
    """A target on a device, and how it runs models there."""

    target: Target
    device: Device
    options: RunOptions

    def logits(self, artifact: Path, name: str, images: np.ndarray) -> np.ndarray:
        """Return the model's only output for images in the form that it takes."""
        outputs = self.device.infer(self.target, artifact, self.options, {name: images})
        return next(iter(outputs.values()))

    def tapped(self, model: onnx.ModelProto, taps: Sequence[Tap], name: str, images: np.ndarray) -> Arrays:
        """Return the model's outputs and the tensors of `taps`, from a copy that is compiled for them."""
        with tempfile.TemporaryDirectory(prefix="taps-") as folder:
            path, artifact = Path(folder) / "model.onnx", Path(folder) / "artifact.onnx"
            onnx.save(with_outputs(model, [tap.tensor for tap in taps]), path)
            self.device.compile_model(self.target, path, artifact, self.options)
            return self.device.infer(self.target, artifact, self.options, {name: images})


@dataclass(frozen=True)
class HostAnswers:
    """What the forms of a model before the device say of the images of the validation cut: the same for all devices."""

    split: Split
    images: np.ndarray
    """In the form that the ONNX file takes."""
    in_torch: np.ndarray
    """Logits."""
    in_onnx: np.ndarray
    """Logits."""


def answer_on_host(task: AnyTask, trained: TrainedModel, model: OnnxModel, reference: Runtime) -> HostAnswers:
    """Evaluate torch in float32, and ONNX as written, on images of the validation cut.

    Raises:
        DeviceError: the reference's job failed.
    """
    cut = task.load().validation
    split = cut.take(np.arange(min(PARITY_SAMPLES, len(cut))))
    processing = task.normalization.processing()
    images = processing.fed_to(model.input).preprocess(split.images)
    in_torch = evaluate_logits(load_any(trained), split, processing)
    return HostAnswers(split, images, in_torch, reference.logits(model.path, model.input.name, images))


def check_parity(
    task: AnyTask,
    trained: TrainedModel,
    *,
    model: OnnxModel,
    compiled: CompiledModel,
    reference: Runtime,
    runtime: Runtime,
    answers: HostAnswers,
    budget: ParityBudget | None = None,
    on_host: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Parity:
    """Compare torch in float32, ONNX as written, and the compiled artifact, on images of the validation cut.

    A hop that parts beyond its limit is looked into, tensor by tensor.

    Args:
        task: gives images and normalization.
        trained: what was exported.
        model: its ONNX file.
        compiled: what runs on the device.
        reference: evaluates ONNX as written.
        runtime: runs the compiled artifact.
        answers: those of torch and of ONNX as written.
        budget: the limits of a hop; without one, that of LEAST_AGREEMENT.
        on_host: what is held while this machine evaluates.

    Raises:
        DeviceError: a job failed.
    """
    images, in_torch = answers.images, answers.in_torch
    on_device = runtime.logits(compiled.path, model.input.name, images)
    export, device = compare(in_torch, answers.in_onnx), compare(answers.in_onnx, on_device)
    found: list[Bisection | None] = []
    if is_apart(export, budget) or is_apart(device, budget):
        proto = onnx.load(model.path)
        taps, num_samples = choose_taps(proto, len(images))
        with on_host():
            written = reference.tapped(proto, taps, model.input.name, images[:num_samples])
            if is_apart(export, budget):
                in_float = task.normalization.processing().preprocess(answers.split.images[:num_samples])
                behind = tap_quantizers(load_any(trained), torch.from_numpy(in_float))
                found.append(bisect_export(taps, behind, written, logits={model.output.name: in_torch[:num_samples]}))
        if is_apart(device, budget):
            executed = runtime.tapped(proto, taps, model.input.name, images[:num_samples])
            found.append(bisect_device([*taps, Tap("", model.output.name)], written, executed))
    return Parity(export, device, tuple(each for each in found if each is not None))


def is_apart(hop: Hop, budget: ParityBudget | None) -> bool:
    """Tell whether a hop is beyond a limit of the budget, or, where it has none, beyond LEAST_AGREEMENT."""
    least, most = (budget.min_agreement, budget.max_abs_diff) if budget else (None, None)
    is_close = hop.max_abs_diff <= (math.inf if most is None else most)  # nan is not
    return not is_close or hop.top1_agreement < (LEAST_AGREEMENT if least is None else least)


def choose_taps(proto: onnx.ModelProto, num_images: int) -> tuple[list[Tap], int]:
    """Return the tensors to compare, which must keep the samples apart, and of how many images at most."""
    shapes = batched_shapes(proto)
    taps = [tap for tap in find_taps(proto) if tap.tensor in shapes]
    elements = sum(math.prod(shapes[tap.tensor]) for tap in taps)
    return taps, max(1, min(BISECTED_SAMPLES, num_images, MOST_ELEMENTS // max(elements, 1)))


def bisect_export(
    taps: Sequence[Tap],
    in_torch: Mapping[str, OnGrid],
    in_onnx: Mapping[str, np.ndarray],
    *,
    logits: Mapping[str, np.ndarray],
) -> Bisection | None:
    """Compare what is behind each quantizer of the trained model with the codes of the same node's in its export."""
    both = [tap for tap in taps if tap.node in in_torch]
    found = [
        diverge(tap.node, in_torch[tap.node].values, tap.values(in_onnx[tap.tensor]), in_torch[tap.node].scale)
        for tap in both
        if in_torch[tap.node].values.shape == in_onnx[tap.tensor].shape
    ]
    found += [diverge(name, values, in_onnx[name]) for name, values in logits.items()]
    note = f"compared behind {len(both)} of the {len(in_torch)} calls of quantizers in the trained model"
    return bisect(TORCH_TO_ONNX, found, num_samples=_num_samples(in_onnx), note=note)


def bisect_device(
    taps: Sequence[Tap], in_onnx: Mapping[str, np.ndarray], on_device: Mapping[str, np.ndarray]
) -> Bisection | None:
    """Compare the same tensors of the file as written and as the device executes it."""
    note = (
        "the device gave these tensors as outputs of a copy of the model: a runtime does not fuse across an output, so "
        "what only a fusion changes may not show"
    )
    return bisect(ONNX_TO_DEVICE, compare_taps(taps, in_onnx, on_device), num_samples=_num_samples(in_onnx), note=note)


def compare(first_NK: np.ndarray, second_NK: np.ndarray) -> Hop:
    """Return the largest difference of any logit and the share of samples with the same largest logit."""
    return Hop(
        max_abs_diff=float(np.abs(first_NK - second_NK).max()),
        top1_agreement=float((first_NK.argmax(axis=1) == second_NK.argmax(axis=1)).mean()),
        num_samples=len(first_NK),
    )


def _num_samples(arrays: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(arrays.values())))
