"""Stage: images synthesized from a teacher alone, for distillation without its data; batch by batch, resumable.

Rule: no real image is ever read: the teacher, the normalization and the recipe's values are all that it is given.
"""

import hashlib
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from pipeline.artifacts import SyntheticImages
from pipeline.distillation.deep_inversion import DeepInversion, InversionLoss, jittered
from pipeline.durable import write_durably
from pipeline.errors import RecipeError, TrainingDiverged
from pipeline.models.trained import TrainedModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.classification import Normalization
from pipeline.tasks.dataset import Split
from pipeline.training.evaluate import accuracy_of
from pipeline.training.layout import to_channels_last
from pipeline.training.memory import keep_freed_memory
from targets.processing import Processing

STAGE_VERSION = 1
TOOLCHAIN = ("torch", "numpy")
GPU_REPORTS = 50
"""On a GPU every so many steps are looked at: looking waits for it."""

LOW_AGREEMENT = 0.5
"""Share of images under which their labels are called misleading."""

logger = logging.getLogger(__name__)


def synthesize_images(
    out_dir: Path,
    normalization: Normalization,
    teacher: TrainedModel,
    synthesis: DeepInversion,
    student: TrainedModel | None = None,
    *,
    on_progress: OnProgress = say_nothing,
) -> SyntheticImages:
    """Optimise noise until `teacher` takes it for its training data and, where one is given, `student` does not.

    Classes take turns from 0. Each batch depends on the seed and its own number alone, so that an interrupted run goes
    on from its last finished batch, to the same bytes. Images may reveal what the teacher was trained on.

    Raises:
        RecipeError: the teacher has no BatchNorm, or student, teacher and normalization do not fit.
        TrainingDiverged: the loss is no longer finite; names batch, step and term.
    """
    _require_fit(normalization, teacher, student)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = [to_channels_last(trained.load()).to(device) for trained in (teacher, student) if trained]
    for network in networks:
        network.requires_grad_(False)
    loss = InversionLoss(synthesis, *networks)
    processing = normalization.processing()
    num_classes = len(teacher.checkpoint.classes)
    labels_N = np.arange(synthesis.images, dtype=np.int64) % num_classes
    batches = _batches(labels_N, synthesis.batch_size, num_classes)
    parts = [out_dir / f"batch_{number:05d}.safetensors" for number in range(len(batches))]
    for number, (part, labels) in enumerate(zip(parts, batches, strict=True)):
        if _read_part(part, len(labels)) is None:
            on_step = _Steps(number, len(batches), synthesis, on_progress)
            images = _invert(loss, labels, teacher.checkpoint.image_shape, processing, number, on_step)
            write_durably(part, safetensors.numpy.save({"images": _to_bytes(images, processing)}))
    split = Split(np.concatenate([safetensors.numpy.load_file(part)["images"] for part in parts]), labels_N)
    agreement = accuracy_of(loss.teacher, split, processing)
    if agreement < LOW_AGREEMENT:
        logger.warning(
            "deep_inversion: the teacher takes only %.0f %% of its images for the class asked for, so losses that read "
            "labels would mislead a student; lower bn or take more steps, or distill on the teacher's outputs alone",
            100 * agreement,
        )
    content = safetensors.numpy.save({"images": split.images, "labels": split.labels})
    path = out_dir / "images.safetensors"
    write_durably(path, content)
    for part in parts:
        part.unlink()
    return SyntheticImages(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        image_shape=teacher.checkpoint.image_shape,
        images_per_class=tuple(np.bincount(labels_N, minlength=num_classes).tolist()),
        teacher_agreement=agreement,
    )


def _batches(labels_N: np.ndarray, batch_size: int, num_classes: int) -> list[np.ndarray]:
    """Cut the labels into batches of the same size but for one, since small batches have poor statistics."""
    batches = np.array_split(labels_N, math.ceil(len(labels_N) / batch_size))
    if len(batches[-1]) < num_classes:
        logger.warning(
            "deep_inversion: batches of %d images miss some of the %d classes, so their statistics cannot be those of "
            "the training data; take more images or a larger batch_size",
            len(batches[-1]),
            num_classes,
        )
    return batches


class _Steps:
    """Hears of one batch's steps: stops at what is not finite, and tells the progress of all batches."""

    def __init__(self, number: int, num_batches: int, synthesis: DeepInversion, on_progress: OnProgress) -> None:
        self._number, self._synthesis, self._on_progress = number, synthesis, on_progress
        self._total = num_batches * synthesis.steps

    def __call__(self, step: int, terms: dict[str, Tensor], on_gpu: bool) -> None:
        done = step + 1
        if on_gpu and done % GPU_REPORTS and done != self._synthesis.steps:
            return
        values = {name: float(term.detach()) for name, term in terms.items()}
        if bad := [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]:
            kept = (
                f"the {self._number} batches before it are kept" if self._number else "nothing was finished before it"
            )
            raise TrainingDiverged(
                f"synthesize_images: batch {self._number + 1}, step {done}: expected a finite loss; got "
                f"{', '.join(bad)} at learning rate {self._synthesis.rate(step):.3g}; {kept}. Lower learning_rate or "
                "the weight of that term, and see that the teacher's weights and statistics are finite"
            )
        metrics = {"loss": sum(values.values()), **values}
        self._on_progress(self._number * self._synthesis.steps + done, self._total, metrics)


def _invert(
    loss: InversionLoss,
    labels_B: np.ndarray,
    image_shape: tuple[int, int, int],
    processing: Processing,
    number: int,
    on_step: Callable[[int, dict[str, Tensor], bool], None],
) -> Tensor:
    """Return batch `number`: normalized images [B, C, H, W] on the CPU, within what bytes can hold."""
    synthesis = loss.synthesis
    device = next(loss.teacher.parameters()).device
    generator = torch.Generator().manual_seed((synthesis.seed * 1_000_003 + number * 7_919 + 29) % 2**63)
    height, width, channels = image_shape
    noise = torch.randn(len(labels_B), channels, height, width, generator=generator)
    low, scale = _constants(processing)
    low, high = low.to(device), (low + 255 * scale).to(device)
    images = noise.to(device).clamp(low, high).contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.from_numpy(labels_B).to(device)
    optimizer = torch.optim.Adam([images], lr=synthesis.learning_rate, betas=(0.5, 0.9))
    for step in range(synthesis.steps):
        optimizer.param_groups[0]["lr"] = synthesis.rate(step)
        seen = jittered(images, synthesis.jitter, flip=synthesis.flip, generator=generator)
        terms = loss(seen, images, labels)
        on_step(step, terms, device.type != "cpu")
        (images.grad,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), images)
        optimizer.step()
        with torch.no_grad():
            images.clamp_(low, high)
    return images.detach().cpu()


def _to_bytes(images_BCHW: Tensor, processing: Processing) -> np.ndarray:
    """Return uint8[B, H, W, C]: the bytes that the normalization takes nearest to these values."""
    bias, scale = _constants(processing)
    pixels = ((images_BCHW - bias) / scale).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _constants(processing: Processing) -> tuple[Tensor, Tensor]:
    """Return bias and scale, [1, C, 1, 1]: the normalized values of byte 0, and between two bytes."""
    return torch.tensor(processing.bias).view(1, -1, 1, 1), torch.tensor(processing.scale).view(1, -1, 1, 1)


def _read_part(path: Path, num_images: int) -> np.ndarray | None:
    """Return the images of a finished batch; None where there are none, or damaged ones."""
    if not path.exists():
        return None
    try:
        images: np.ndarray = safetensors.numpy.load_file(path)["images"]
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        logger.warning("%s: damaged batch of synthesized images (%s); synthesized again", path, error)
        return None
    return images if len(images) == num_images else None


def _require_fit(normalization: Normalization, teacher: TrainedModel, student: TrainedModel | None) -> None:
    of_teacher = teacher.checkpoint
    if of_teacher.image_shape[2] != len(normalization.mean):
        raise RecipeError(
            f"task.normalization: expected {of_teacher.image_shape[2]} values of mean and std, one a channel of the "
            f"teacher's images; got {len(normalization.mean)}"
        )
    if student is None:
        return
    of_student = student.checkpoint
    if (of_student.image_shape, len(of_student.classes)) != (of_teacher.image_shape, len(of_teacher.classes)):
        raise RecipeError(
            f"data_free: expected a student of the teacher's images {of_teacher.image_shape} and "
            f"{len(of_teacher.classes)} classes to compete with it; got {of_student.image_shape} and "
            f"{len(of_student.classes)} classes. Give no student, or one trained on the teacher's task"
        )
