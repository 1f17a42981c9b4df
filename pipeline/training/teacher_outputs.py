"""Teacher outputs on disk: one column of logits for each column of the view schedule, filled as it is first met.

A column is computed over all images in their own order and in batches of fixed size, so its values depend neither on
the student nor on where a run was interrupted; filling costs what a live teacher costs in that epoch. Rule: a column
is never paired with other views than those it was computed for: its file states its key, and its content's digest.
"""

import contextlib
import copy
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, fx, nn

from pipeline.durable import write_durably
from pipeline.locks import held
from pipeline.training.layout import UNTRACEABLE, fold_batch_norm, to_channels_last
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.views import ViewedImages, ViewSchedule

logger = logging.getLogger(__name__)

TEACHER_BATCH = 125


class TeacherOutputs:
    """Logits of one teacher for the views of a schedule, float32[num_images, num_classes] a column.

    Args:
        folder: holds the columns of all teachers.
        key: everything that the values depend on: teacher, data, views, normalization, precision, view seed.
        teacher: called at most once a column and image.
    """

    def __init__(
        self, folder: OutputsFolder, key: dict[str, str], teacher: nn.Module, images: ViewedImages, views: ViewSchedule
    ) -> None:
        self.key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder.path / self.key
        self._teacher = fast_inference(teacher)
        self._images = images
        self._views = views

    def to(self, device: torch.device) -> "TeacherOutputs":
        """Compute on `device` from now on; return itself."""
        self._teacher, self._images = self._teacher.to(device), self._images.to(device)
        return self

    def column(self, column: int, on_progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Return the logits of a column: from disk where they are whole and right, else computed and kept."""
        path = self.folder / f"{column:05d}.safetensors"
        with held(path.with_suffix(".lock"), f"computing teacher outputs {path.name}"):
            kept = self._read(path, column)
            if kept is None:
                kept = self._compute(column, on_progress).to(torch.float16)
                self._write(path, column, kept)
        return kept.to(torch.float32)

    @torch.inference_mode()
    def _compute(self, column: int, on_progress: Callable[[int, int], None] | None) -> Tensor:
        views = self._views.column(column)
        outputs = []
        device = self._images.device
        for index in torch.split(torch.arange(len(self._images)), TEACHER_BATCH):
            batch = self._images.batch(index.to(device), views[index].to(device)).to(torch.bfloat16)
            with torch.autocast(device.type, torch.bfloat16):  # for a model that goes back to float32 on its way
                outputs.append(self._teacher(batch).float().cpu())
            if on_progress:
                on_progress(int(index[-1]) + 1, len(self._images))
        return torch.cat(outputs)

    def _read(self, path: Path, column: int) -> Tensor | None:
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                logits: Tensor = file.get_tensor("logits")
        except (safetensors.SafetensorError, OSError) as error:
            logger.warning("%s: damaged teacher outputs (%s); computed again", path, error)
            return None
        if metadata != self._metadata(column, logits):
            logger.warning("%s: teacher outputs do not match their own key or digest; computed again", path)
            return None
        os.utime(path)  # when it was last of use, for pruning
        return logits

    def _write(self, path: Path, column: int, logits: Tensor) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(path, safetensors.torch.save({"logits": logits}, self._metadata(column, logits)))

    def _metadata(self, column: int, logits: Tensor) -> dict[str, str]:
        digest = hashlib.sha256(logits.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        return {"key": self.key, "column": str(column), "sha256": digest}


def fast_inference(model: nn.Module) -> nn.Module:
    """Return a copy for inference alone: bfloat16, channels_last, BatchNorm folded where the model traces."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    with contextlib.suppress(*UNTRACEABLE):
        traced = fx.symbolic_trace(copied)
        fold_batch_norm(traced)
        copied = traced
    return to_channels_last(copied.to(torch.bfloat16))
