"""Teacher outputs on disk: one column of values for each column of the view schedule, filled as it is first met.

A column is computed over all images in their own order and in batches of fixed size, so its values depend neither on
the student nor on where a run was interrupted; filling costs what a live teacher costs in that epoch. Rule: a column
is never paired with other views than those it was computed for: its file states its key, and its content's digest.
"""

import copy
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, fx, nn

from pipeline.distillation.loss import pooled
from pipeline.durable import write_durably
from pipeline.errors import DataError, RecipeError
from pipeline.locks import held
from pipeline.training.features import with_features
from pipeline.training.fused_convolution import fuse_convolutions
from pipeline.training.int8_teacher import TeacherPrecision, calibration_images, quantize_convolutions, require_int8
from pipeline.training.layout import fold_batch_norm, to_channels_last
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.views import ViewedImages, ViewSchedule

logger = logging.getLogger(__name__)

TEACHER_BATCH = 125


class TeacherOutputs:
    """Outputs of one teacher for the views of a schedule: logits, and the means over space of chosen layers.

    Each output has a folder of its own, so that a run which wants one more pays for no other a second time.

    Args:
        folder: holds the columns of all teachers.
        key: everything that the values depend on: teacher, data, views, normalization, precision, view seed.
        teacher: called at most once a column and image.
        images: what it sees.
        views: which column shows what.
        layers: whose outputs' means over space are kept beside the logits, by the network's own names.
        precision: what the teacher computes in.
    """

    def __init__(
        self,
        folder: OutputsFolder,
        key: Mapping[str, str],
        teacher: nn.Module,
        images: ViewedImages,
        views: ViewSchedule,
        layers: tuple[str, ...] = (),
        precision: TeacherPrecision = "bf16",
    ) -> None:
        outputs = ("logits", *(f"mean over space of {layer}" for layer in layers))
        self.tables = tuple(Table(folder.path, {**key, "output": output}) for output in outputs)
        self._teacher = fast_teacher(teacher, layers, images, precision)
        self._images = images
        self._views = views

    def to(self, device: torch.device) -> "TeacherOutputs":
        """Compute on `device` from now on; return itself."""
        self._teacher, self._images = self._teacher.to(device), self._images.to(device)
        return self

    def column(self, column: int, on_images: Callable[[int, int], None] | None = None) -> tuple[Tensor, ...]:
        """Return float32[num_images, K] logits and float32[num_images, C] means: from disk where they are whole.

        Raises:
            DataError: the teacher gives values that are not finite in float16.
        """
        lock = self.tables[0].path(column).with_suffix(".lock")
        with held(lock, f"computing teacher outputs {lock.stem}"):
            kept = [table.read(column) for table in self.tables]
            if any(values is None for values in kept):
                computed = [values.to(torch.float16) for values in self._compute(column, on_images)]
                for place, table in enumerate(self.tables):
                    if kept[place] is None:
                        table.write(column, computed[place])
                kept = [*computed]
        return tuple(values.to(torch.float32) for values in kept if values is not None)

    @torch.inference_mode()
    def _compute(self, column: int, on_images: Callable[[int, int], None] | None) -> list[Tensor]:
        device = self._images.device
        shown = self._views.column(column).to(device)
        parts: list[tuple[Tensor, ...]] = []
        for index in torch.split(torch.arange(len(self._images)), TEACHER_BATCH):
            batch = self._images.shown(index.to(device), shown).to(precision_of(self._teacher))
            with torch.autocast(device.type, torch.bfloat16):  # for a model that goes back to float32 on its way
                logits, features = self._teacher(batch)
            parts.append(tuple(values.float().cpu() for values in (logits, *map(pooled, features))))
            if on_images:
                on_images(int(index[-1]) + 1, len(self._images))
        outputs = [torch.cat(rows) for rows in zip(*parts, strict=True)]
        for table, values in zip(self.tables, outputs, strict=True):
            if not torch.isfinite(values.to(torch.float16)).all():
                raise DataError(
                    f"the teacher's {table.key['output']}: expected finite values below 65504; got "
                    f"{float(values.abs().max()):g} for some image. Check its checkpoint and the normalization"
                )
        return outputs


class Table:
    """Columns of one output of one teacher on disk, one file each.

    A file states its key and its content's digest; what does not match is computed again.
    """

    def __init__(self, root: Path, key: dict[str, str]) -> None:
        self.key = key
        self._digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = root / self._digest

    def path(self, column: int) -> Path:
        """Return the file of a column."""
        return self.folder / f"{column:05d}.safetensors"

    def read(self, column: int) -> Tensor | None:
        """Return float16[num_images, width]; None where there is no file, or it is damaged or belongs elsewhere."""
        path = self.path(column)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                values: Tensor = file.get_tensor("values")
        except (safetensors.SafetensorError, OSError) as error:
            logger.warning("%s: damaged teacher outputs (%s); computed again", path, error)
            return None
        if metadata != self._metadata(column, values):
            logger.warning("%s: teacher outputs do not match their own key or digest; computed again", path)
            return None
        os.utime(path)  # when it was last of use, for pruning
        return values

    def write(self, column: int, values: Tensor) -> None:
        """Keep a column."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(self.path(column), safetensors.torch.save({"values": values}, self._metadata(column, values)))

    def _metadata(self, column: int, values: Tensor) -> dict[str, str]:
        digest = hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        return {"key": self._digest, "column": str(column), "sha256": digest}


def fast_teacher(
    teacher: nn.Module, layers: tuple[str, ...], images: ViewedImages, precision: TeacherPrecision
) -> nn.Module:
    """Return what answers about `images` as fast as `precision` allows. Raises as `fast_inference`."""
    calibration = calibration_images(images) if precision == "int8" else None
    return fast_inference(teacher, layers, images.batch(torch.tensor([0])).cpu(), calibration=calibration)


def fast_inference(
    model: nn.Module,
    layers: tuple[str, ...] = (),
    example: Tensor | None = None,
    *,
    calibration: Iterator[Tensor] | None = None,
) -> nn.Module:
    """Return a copy that gives (logits, features): bfloat16, channels_last, BatchNorm folded where the model traces.

    A model that refuses `example` in bfloat16, since it goes back to float32 on its way, keeps weights in float32.
    With images for `calibration`, convolutions compute on int8 codes.

    Raises:
        RecipeError: int8 cannot be had, on this machine or for this model.
    """
    copied = with_features(copy.deepcopy(model).eval().requires_grad_(False), layers, who="the teacher")
    if isinstance(copied, fx.GraphModule):
        fold_batch_norm(copied)
        fuse_convolutions(copied)
    if calibration is not None:
        _to_int8(copied, calibration)
    fast = to_channels_last(copy.deepcopy(copied).to(torch.bfloat16))
    if example is None:
        return fast
    try:
        with torch.inference_mode(), torch.autocast(example.device.type, torch.bfloat16):
            copy.deepcopy(fast)(example.to(torch.bfloat16))
    except RuntimeError:
        return to_channels_last(copied)
    return fast


def _to_int8(network: nn.Module, images: Iterator[Tensor]) -> None:
    require_int8()
    if not isinstance(network, fx.GraphModule) or not quantize_convolutions(network, images):
        raise RecipeError(
            'distillation.teacher_precision: expected "bf16" for this teacher, since none of its convolutions can be '
            'int8 (they are 1 x 1 or 3 x 3, channels in 16s, behind a ReLU); got "int8". Leave it out'
        )


def precision_of(model: nn.Module) -> torch.dtype:
    """Return the type of a model's weights, which its images should have."""
    return next(model.parameters()).dtype
