"""The only training loop: teachers, students and quantized students, on CPU, GPU or several, through Lightning Fabric.

Rule: everything random in an epoch is seeded by (seed, epoch), so that a run resumed from its last epoch gives the
weights of an uninterrupted one.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.distillation.loss import Batch, Mixed
from pipeline.errors import RecipeError, TrainingDiverged
from pipeline.progress import OnProgress, say_nothing
from pipeline.training.fast_step import with_kernels
from pipeline.training.features import with_features
from pipeline.training.layout import to_channels_last
from pipeline.training.memory import keep_freed_memory, unscanned_objects
from pipeline.training.objective import Objective
from pipeline.training.resume import RESUME_FILE, read_resume, write_resume
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.setup import make_average, make_fabric, make_optimizer
from pipeline.training.teachers import TeacherSource
from pipeline.training.views import Column, ViewedImages, ViewSchedule

OnMetrics = Callable[[Mapping[str, float]], None]
STEPS_BETWEEN_LOOKS = 50
"""On a GPU the loop looks at its loss only so often: a look waits for the device."""


def ignore_metrics(metrics: Mapping[str, float]) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class TrainingData:
    """What an epoch is made of: images, labels int64[N], which views, and who teaches about them."""

    images: ViewedImages
    labels: Tensor
    views: ViewSchedule
    teachers: TeacherSource | None = None

    def to(self, device: torch.device) -> "TrainingData":
        """Return the same data on `device`."""
        if self.teachers:
            self.teachers.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class FitResult:
    """Validation accuracy (fractions) of the last and of the best epoch, and the number of epochs."""

    epochs: int
    last: float
    best: float


@unscanned_objects()
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
    on_metrics: OnMetrics = ignore_metrics,
) -> FitResult:
    """Train `model` in place; go on from `out_dir` where an interrupted run left its last epoch.

    Metrics of every epoch are appended to `out_dir/metrics.jsonl`. The state of the last epoch stays in `out_dir` until
    the caller has saved the model. With `ema_decay` the model ends as the moving average of its weights, and that is
    what is validated.

    Args:
        model: what is trained.
        objective: the terms of the loss; what they train beside the model is trained and resumed with it.
        data: images, labels, views and teachers.
        schedule: length, rate, precision and seed.
        name: who trains, for messages.
        validate: returns the accuracy of a model, a fraction.
        out_dir: keeps metrics and the state of the last epoch.
        on_progress: hears of every step (every 50th on a GPU).
        on_epoch: runs before each epoch.
        on_metrics: hears of every epoch's metrics.

    Raises:
        RecipeError: processes cannot share the batch, or the model gives no logits.
        TrainingDiverged: a loss term is not finite; names epoch, batch and term, and where the last good epoch is.
    """
    keep_freed_memory()
    fabric = make_fabric(schedule)
    _require_shareable(schedule.batch_size, fabric.world_size, name)
    model = to_channels_last(model.to(fabric.device)).train()
    objective = objective.to(fabric.device).train()
    average = make_average(model, schedule)
    optimizer = make_optimizer((model, objective), schedule)
    loop = _Loop(fabric, model, objective, optimizer, data.to(fabric.device), schedule, on_progress)
    resume = out_dir / RESUME_FILE
    modules = {"model": model, "objective": objective, **({"average": average} if average else {})}
    history = read_resume(resume, modules, optimizer)
    judged = average.module if average else model
    for epoch in range(len(history), schedule.epochs):
        started = time.monotonic()
        on_epoch(model, epoch)
        torch.manual_seed(_epoch_seed(schedule.seed, epoch))
        try:
            for _ in loop.run_epoch(epoch):
                if average:
                    average.update_parameters(model)
        except _NotFiniteError as error:
            raise _diverged(name, epoch, error, resume) from None
        accuracy = validate(judged)
        metrics = {
            "epoch": epoch,
            **loop.mean_terms(),
            "validation_accuracy": accuracy,
            "seconds": time.monotonic() - started,
            "teacher_seconds": loop.teacher_seconds,
        }
        loop.shown["val_acc"] = accuracy
        history.append(accuracy)
        if fabric.is_global_zero:
            write_resume(resume, modules, optimizer, history)
            with (out_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(metrics) + "\n")
            on_metrics({**metrics, "learning_rate": loop.rate})
        fabric.barrier()
    if average:
        model.load_state_dict(average.module.state_dict())
    last = history[-1] if history else validate(model)
    return FitResult(schedule.epochs, last, max(history, default=last))


def _require_shareable(batch_size: int, num_processes: int, name: str) -> None:
    if batch_size % num_processes:
        raise RecipeError(
            f"{name}: batch_size: expected a multiple of the {num_processes} processes that share it; got {batch_size}"
        )


def _diverged(name: str, epoch: int, error: "_NotFiniteError", resume: Path) -> TrainingDiverged:
    kept = f"the state after epoch {epoch} is kept in {resume}" if epoch else "nothing was trained before it"
    return TrainingDiverged(
        f"{name}: epoch {epoch + 1}, batch {error.step + 1}: expected a finite loss; got {error.terms} at "
        f"learning rate {error.rate:.3g}; {kept}. Lower learning_rate, set clip_norm, or lengthen warmup_epochs"
    )


class _NotFiniteError(Exception):
    """A loss that is not finite: at which step, which terms, at what rate."""

    def __init__(self, step: int, terms: str, rate: float) -> None:
        super().__init__(terms)
        self.step, self.terms, self.rate = step, terms, rate


class _Loop:
    """Runs epochs step by step; `shown` is what progress tells."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        data: TrainingData,
        schedule: TrainingSchedule,
        on_progress: OnProgress,
    ) -> None:
        self._fabric, self._objective, self._data, self._schedule = fabric, objective, data, schedule
        self._model, self._on_progress = model, on_progress
        network = model
        if objective.student_layers:
            network = with_features(model, objective.student_layers, who="the student")
        if fabric.device.type == "cpu" and schedule.precision == "bf16-mixed":
            network = with_kernels(network)
        self._network, self._optimizer = fabric.setup(network, optimizer)
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]
        self._parts = list(objective.parameters())
        self._steps = max(1, len(data.labels) // schedule.batch_size)
        self._sums: dict[str, Tensor] = {}
        self.shown: dict[str, float] = {}
        self.rate = 0.0
        self.teacher_seconds = 0.0
        """What reading or filling the last column took."""

    def run_epoch(self, epoch: int) -> Iterator[int]:
        """Train one epoch; give the number of each step when it is done."""
        device, data = self._fabric.device, self._data
        number = data.views.number(epoch)
        column = data.views.column(number).to(device)
        started = time.monotonic()
        if data.teachers:
            data.teachers.start(number, self._tell_teaching(epoch * self._steps))
        self.teacher_seconds = time.monotonic() - started
        self._sums = {}
        self._network.train()
        for step, index in enumerate(self._shares(epoch)):
            batch = self._batch(index, column)
            terms = self._objective(batch, epoch + step / self._steps)
            loss = torch.stack(list(terms.values())).sum()
            self._update(loss, terms, epoch * self._steps + step)
            yield step
        if bad := [name for name, weight in self._model.named_parameters() if not torch.isfinite(weight).all()]:
            raise _NotFiniteError(step, f"weights that are not finite ({bad[0]})", self.rate)

    def mean_terms(self) -> dict[str, float]:
        """Return the last epoch's mean of each term, over all processes."""
        names = list(self._sums)
        sums = torch.stack([self._sums[name] for name in names]) / self._steps
        means = self._fabric.all_reduce(sums, reduce_op="mean")
        assert isinstance(means, Tensor)
        return dict(zip(names, means.tolist(), strict=True))

    def _shares(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the rows of each step that fall to this process: together they are the step's batch."""
        seed = _epoch_seed(self._schedule.seed, epoch)
        order = torch.randperm(len(self._data.labels), generator=torch.Generator().manual_seed(seed))
        world_size = self._fabric.world_size
        size = max(1, min(self._schedule.batch_size, len(order)) // world_size)
        used = order[: self._steps * size * world_size]
        return torch.split(used[self._fabric.global_rank :: world_size].to(self._fabric.device), size)

    def _batch(self, index: Tensor, column: Column) -> Batch:
        data = self._data
        images = data.images.shown(index, column)
        answer = self._network(images)
        logits, features = answer if self._objective.student_layers else (answer, ())
        if not isinstance(logits, Tensor):
            raise RecipeError(
                f"{type(self._model).__name__}: expected logits [B, K] in training as in evaluation; got a "
                f"{type(logits).__name__}. Leave out auxiliary outputs"
            )
        taught = data.teachers.of(index) if data.teachers else None
        mixed = None
        if column.partners is not None and column.share is not None:
            mixed = Mixed(data.labels[column.partners[index]], column.share[index])
        return Batch(
            student=logits.float(),
            teacher=taught.consensus if taught else None,
            labels=data.labels[index],
            teachers=taught.logits if taught else (),
            student_features=features,
            teacher_features=taught.features if taught else (),
            images=images,
            index=index,
            mixed=mixed,
            gather=self._gather,
        )

    def _update(self, loss: Tensor, terms: dict[str, Tensor], done: int) -> None:
        """Take one optimizer step; look at the loss where looking is cheap."""
        looks = self._fabric.device.type == "cpu" or done % STEPS_BETWEEN_LOOKS == 0
        self.rate = self._schedule.rate(done, self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        if looks and not math.isfinite(float(loss.detach())):
            bad = [f"{name} = {float(term.detach())}" for name, term in terms.items() if not torch.isfinite(term)]
            raise _NotFiniteError(done % self._steps, ", ".join(bad) or "an infinite sum", self.rate)
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        if self._fabric.world_size > 1:
            self._share_gradients_of_parts()
        if self._schedule.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained, self._schedule.clip_norm)
        self._optimizer.step()
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=term.device)) + term.detach()
        if looks:
            self.shown |= {"loss": float(loss.detach()), "lr": self.rate}
            self._on_progress(done + 1, self._steps * self._schedule.epochs, self.shown)

    def _share_gradients_of_parts(self) -> None:
        """Average what DistributedDataParallel does not know of: the gradients of the objective's own parts."""
        for parameter in self._parts:
            if parameter.grad is not None:
                mean = self._fabric.all_reduce(parameter.grad, reduce_op="mean")
                assert isinstance(mean, Tensor)
                parameter.grad = mean

    def _gather(self, value: Tensor) -> Tensor:
        if self._fabric.world_size == 1:
            return value
        gathered = self._fabric.all_gather(value, sync_grads=True)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def _tell_teaching(self, done: int) -> Callable[[int, int], None]:
        """Return what hears of a teacher's new outputs: they take time before the step after `done`."""

        def on_images(num: int, total: int) -> None:
            taught = {} if num == total else {"teacher images": float(num)}
            self._on_progress(done, self._steps * self._schedule.epochs, {**self.shown, **taught})

        return on_images


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7_919 + 17) % 2**63
