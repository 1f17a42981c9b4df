"""Quantized distillation at temperatures 1, 2 and 4: does an int8 student collapse at a high one?

    python benchmarks/quantized_temperature.py [--images 10000] [--epochs 2]

The float student is that of the table (`distillation_table.py short --only KD`), put on the int8 grid of the first
deployment, and trained on by KL alone, without labels, at several learning rates. EDGEPROOF_DATA names the data folder.
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.distillation_methods import FULL
from benchmarks.distillation_table import BUILD, recipe_with_data, varied
from calibration.scheme import Scheme
from pipeline.chain import distill, teach
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from pipeline.seeds import accuracy_on_test
from pipeline.stages.calibrate_student import calibrate_student
from pipeline.stages.train_quantized import train_quantized
from pipeline.training.calibrate import Calibration
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching

RATES, TEMPERATURES = (0.001, 0.01), (1.0, 2.0, 4.0)


def main() -> int:
    """Train on at every temperature and rate; print accuracies on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    console = Console(highlight=False)
    if (base := recipe_with_data(console)) is None:
        return 0
    kd = next(method for method in FULL if method.name == "KD")
    recipe = varied(base, kd, depth=8, images=options.images, epochs=5, seed=0)
    run = open_run(console, BUILD)
    teachers = teach(recipe, run)
    student = distill(recipe, teachers, None, run)
    scheme, calibration = base.deployments[0].target.scheme, Calibration(samples=512)
    calibrated = run.stage(calibrate_student, recipe.task, student, calibration, scheme)
    table = Table(title=f"int8 ResNet-8, KL alone, {options.epochs} epochs of {options.images} images", box=None)
    for column in ("learning rate", *(f"T = {temperature:g}" for temperature in TEMPERATURES)):
        table.add_column(column, justify="right")
    for rate in RATES:
        cells = [
            accuracy_on_test(
                recipe.task, quantized(recipe, student, teachers, run, scheme, rate, temperature, options.epochs), run
            )
            for temperature in TEMPERATURES
        ]
        table.add_row(f"{rate:g}", *(f"{cell:.2%}" for cell in cells))
    console.print(table)
    floats, grid = (
        accuracy_on_test(recipe.task, student, run),
        accuracy_on_test(recipe.task, TrainedModel(student.model, calibrated, scheme), run),
    )
    console.print(f"float {floats:.2%}, int8 by calibration alone {grid:.2%}; one seed; torch {torch.__version__}")
    return 0


def quantized(
    recipe: Recipe,
    student: TrainedModel,
    teachers: tuple[TrainedModel, ...],
    run: Run,
    scheme: Scheme,
    rate: float,
    temperature: float,
    epochs: int,
) -> TrainedModel:
    """Return the student trained on the grid by KL at one temperature."""
    schedule = TrainingSchedule(
        epochs=epochs, learning_rate=rate, warmup_epochs=0.2, weight_decay=0.0, precision="32-true"
    )
    losses = (KnowledgeDistillation(weight=1.0, temperature=temperature),)
    teaching = Teaching(teachers, losses, run.outputs)
    checkpoint = run.stage(
        train_quantized,
        recipe.task,
        student,
        schedule,
        teaching,
        calibration=Calibration(samples=512),
        scheme=scheme,
    )
    return TrainedModel(student.model, checkpoint, scheme)


if __name__ == "__main__":
    sys.exit(main())
