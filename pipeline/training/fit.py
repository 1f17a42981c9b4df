"""The only training loop: teachers, students and quantized students, on CPU, GPU or several, through Lightning Fabric.

Rule: everything random in an epoch is seeded by (seed, epoch), so that a run resumed from its last epoch gives the
weights of an uninterrupted one.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.distillation.loss import Batch
from pipeline.errors import TrainingDiverged
from pipeline.progress import OnProgress, say_nothing
from pipeline.training.layout import to_channels_last
from pipeline.training.memory import keep_freed_memory
from pipeline.training.resume import RESUME_FILE, read_resume, write_resume
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.teacher_outputs import TeacherOutputs
from pipeline.training.views import ViewedImages, ViewSchedule


class Objective(Protocol):
    """Weighted loss terms by name, and the modules that learn with the student and leave with the optimizer."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms; the loss is their sum."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """What an epoch is made of: images, labels int64[N], which views, and the teacher's outputs for them."""

    images: ViewedImages
    labels: Tensor
    views: ViewSchedule
    num_columns: int
    """The schedule's columns in use: epoch e shows column e mod num_columns."""
    teacher: TeacherOutputs | None = None

    def to(self, device: torch.device) -> "TrainingData":
        """Return the same data on `device`."""
        teacher = self.teacher.to(device) if self.teacher else None
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), teacher=teacher)


@dataclass(frozen=True)
class FitResult:
    """Validation accuracy (fractions) of the last and of the best epoch, and the number of epochs."""

    epochs: int
    last: float
    best: float


def fit(
    model: nn.Module,
    objective: Objective,
    data: TrainingData,
    schedule: TrainingSchedule,
    *,
    name: str,
    validate: Callable[[nn.Module], float],
    out_dir: Path,
    on_progress: OnProgress = say_nothing,
    on_epoch: Callable[[nn.Module, int], None] = lambda model, epoch: None,
) -> FitResult:
    """Train `model` in place; go on from `out_dir` where an interrupted run left its last epoch.

    Metrics of every epoch are appended to `out_dir/metrics.jsonl`. The state of the last epoch stays in `out_dir` until
    the caller has saved the model.

    Args:
        model: what is trained.
        objective: the terms of the loss.
        data: images, labels, views and the teacher's outputs.
        schedule: length, rate, precision and seed.
        name: who trains, for messages.
        validate: returns the accuracy of a model, a fraction.
        out_dir: keeps metrics and the state of the last epoch.
        on_progress: hears of every step (every 50th on a GPU).
        on_epoch: runs before each epoch.

    Raises:
        TrainingDiverged: a loss term is not finite; names epoch, batch and term, and where the last good epoch is.
    """
    keep_freed_memory()
    fabric = make_fabric(schedule)
    optimizer = make_optimizer(model, schedule)
    model_, optimizer_ = fabric.setup(to_channels_last(model), optimizer)
    data = data.to(fabric.device)
    resume = out_dir / RESUME_FILE
    history = read_resume(resume, model, optimizer)
    steps = max(1, len(data.labels) // schedule.batch_size)
    progress = _Progress(on_progress, steps * schedule.epochs)
    for epoch in range(len(history), schedule.epochs):
        started = time.monotonic()
        on_epoch(model, epoch)
        torch.manual_seed(_epoch_seed(schedule.seed, epoch))
        try:
            terms = _run_epoch(fabric, model_, optimizer_, objective, data, schedule, epoch, steps, progress)
        except _NotFiniteError as error:
            kept = f"the state after epoch {epoch} is kept in {resume}" if epoch else "nothing was trained before it"
            raise TrainingDiverged(
                f"{name}: epoch {epoch + 1}, batch {error.step + 1}: expected a finite loss; got {error.terms} at "
                f"learning rate {error.rate:.3g}; {kept}. Lower learning_rate, set clip_norm, or lengthen warmup_epochs"
            ) from None
        accuracy = validate(model)
        metrics = {"epoch": epoch, **terms, "validation_accuracy": accuracy, "seconds": time.monotonic() - started}
        progress.metrics["val_acc"] = accuracy
        history.append(accuracy)
        if fabric.is_global_zero:
            write_resume(resume, model, optimizer, history)
            with (out_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(metrics) + "\n")
        fabric.barrier()
    last = history[-1] if history else validate(model)
    return FitResult(schedule.epochs, last, max(history, default=last))


def make_fabric(schedule: TrainingSchedule) -> Fabric:
    """Return a launched Fabric: one device, or what torchrun set up."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # precision is the recipe's
    fabric = Fabric(
        accelerator="auto",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy="ddp" if world_size > 1 else "auto",
        precision=schedule.precision,
    )
    fabric.launch()
    return fabric


def make_optimizer(model: nn.Module, schedule: TrainingSchedule) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay only on tensors of two or more dimensions."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = schedule.learning_rate
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(schedule.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=schedule.momentum, nesterov=schedule.momentum > 0, fused=True)


class _NotFiniteError(Exception):
    """A loss that is not finite: at which step, which terms, at what rate."""

    def __init__(self, step: int, terms: str, rate: float) -> None:
        super().__init__(terms)
        self.step, self.terms, self.rate = step, terms, rate


class _Progress:
    """Counts steps and carries the current metrics to the callback."""

    def __init__(self, callback: OnProgress, total: int) -> None:
        self.metrics: dict[str, float] = {}
        self._callback = callback
        self._total = total

    def teaching(self, done: int) -> Callable[[int, int], None]:
        """Return what hears of a teacher's new outputs: they take time before the step after `done`."""

        def on_images(num: int, total: int) -> None:
            taught = {} if num == total else {"teacher images": float(num)}
            self._callback(done, self._total, {**self.metrics, **taught})

        return on_images

    def report(self, done: int, loss: float, rate: float) -> None:
        self.metrics["loss"] = loss
        self.metrics["lr"] = rate
        self._callback(done, self._total, self.metrics)


def _run_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    data: TrainingData,
    schedule: TrainingSchedule,
    epoch: int,
    steps: int,
    progress: _Progress,
) -> dict[str, float]:
    """Train one epoch; return the mean of each term."""
    device = fabric.device
    column = epoch % data.num_columns
    views = data.views.column(column).to(device)
    teacher = data.teacher.column(column, progress.teaching(epoch * steps)).to(device) if data.teacher else None
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(_epoch_seed(schedule.seed, epoch)))
    mine = order[fabric.global_rank :: fabric.world_size].to(device)
    shares = torch.split(mine, min(len(mine), max(1, schedule.batch_size // fabric.world_size)))
    sums: dict[str, Tensor] = {}
    model.train()
    for step, index in enumerate(shares[:steps]):
        done = epoch * steps + step
        rate = schedule.rate(done, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(data.images.batch(index, views[index])).float()
        terms = objective(Batch(logits, teacher[index] if teacher is not None else None, data.labels[index]))
        loss = torch.stack(list(terms.values())).sum()
        if (device.type == "cpu" or step % 50 == 0) and not math.isfinite(float(loss.detach())):
            bad = [f"{name} = {float(term.detach())}" for name, term in terms.items() if not torch.isfinite(term)]
            raise _NotFiniteError(step, ", ".join(bad) or "an infinite sum", rate)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if schedule.clip_norm is not None:
            fabric.clip_gradients(model, optimizer, max_norm=schedule.clip_norm)
        optimizer.step()
        for name, term in terms.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + term.detach()
        if device.type == "cpu" or step % 50 == 0:
            progress.report(done + 1, float(loss.detach()), rate)
    if bad := [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]:
        raise _NotFiniteError(step, f"weights that are not finite ({bad[0]})", rate)
    return {name: float(total) / steps for name, total in sums.items()}


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919 + 17) % 2**63
