"""The same distillation from several seeds: what a figure is worth. Rule: the last epoch's accuracy is the result."""

import statistics
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

from pipeline.chain import distill, synthesize, teach
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Recipe
from pipeline.run import Run
from pipeline.stages.predict import predict
from pipeline.tasks import AnyTask
from pipeline.trials import check_losses


@dataclass(frozen=True)
class SeedFigures:
    """Accuracies of one student, fractions; `test` is the last epoch's, on all test images."""

    seed: int
    test: float
    validation: float
    best_validation: float


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (with n - 1; None of a single value) of n values."""

    mean: float
    std: float | None
    n: int


def spread_of(values: list[float]) -> Spread:
    """Return mean, spread and number of values."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, len(values))


def distill_seeds(recipe: Recipe, num_seeds: int, run: Run) -> tuple[float, list[SeedFigures]]:
    """Distill the recipe's student from `num_seeds` seeds in a row; return the teacher's test accuracy and theirs.

    Only the student's seed changes: teachers, assistants, and the views that students meet are the same, paid once.
    """
    check_losses(recipe)
    teachers = teach(recipe, run)
    images = synthesize(recipe, teachers[0], run)
    figures = []
    base = recipe.distillation
    assistants = tuple(each.model_copy(update={"training": each.training or base.training}) for each in base.assistants)
    for seed in range(recipe.distillation.training.seed, recipe.distillation.training.seed + num_seeds):
        training = recipe.distillation.training.model_copy(update={"seed": seed})
        distillation = base.model_copy(update={"training": training, "assistants": assistants})
        student = distill(recipe.model_copy(update={"distillation": distillation}), teachers, images, run)
        checkpoint = student.checkpoint
        figures.append(
            SeedFigures(
                seed=seed,
                test=accuracy_on_test(recipe.task.for_student(), student, run),
                validation=checkpoint.validation_accuracy,
                best_validation=checkpoint.best_validation_accuracy,
            )
        )
    return accuracy_on_test(recipe.task.for_teacher(), teachers[0], run), figures


def accuracy_on_test(task: AnyTask, trained: TrainedModel, run: Run) -> float:
    """Return the accuracy on all test images, in float32 on the host."""
    logits = safetensors.numpy.load_file(run.stage(predict, task, trained).path)["logits"]
    return float(np.mean(task.correct(logits, task.load().test.labels)))
