"""Five students of one teacher: the teacher is paid once. Prints what each student cost, and the teacher's part of it.

    python benchmarks/student_sweep.py [--images 10000] [--epochs 3]

Runs in a fresh folder each time: nothing is there before the first student. EDGEPROOF_DATA names the data folder.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.distillation_methods import FULL
from benchmarks.distillation_table import recipe_with_data, varied
from pipeline.chain import distill, teach
from pipeline.models.resnet import ResNet
from pipeline.run import open_run

STUDENTS = (ResNet(depth=8, width=16), ResNet(depth=8, width=8), ResNet(depth=8, width=24), ResNet(depth=14), ResNet())
BUILD = Path("build/bench/student_sweep")


def main() -> int:
    """Distill the five in a row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    console = Console(highlight=False)
    if (base := recipe_with_data(console)) is None:
        return 0
    shutil.rmtree(BUILD, ignore_errors=True)
    run = open_run(console, BUILD)
    kd = next(method for method in FULL if method.name == "KD")
    table = Table(title=f"one teacher, five students; {options.images} images, {options.epochs} epochs", box=None)
    for column in ("student", "seconds", "of them the teacher", "the student"):
        table.add_column(column, justify="right")
    for place, model in enumerate(STUDENTS):
        recipe = varied(base, kd, depth=8, images=options.images, epochs=options.epochs, seed=place)
        recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update={"model": model})})
        teachers = teach(recipe, run)
        started = time.perf_counter()
        student = distill(recipe, teachers, None, run)
        seconds = time.perf_counter() - started
        lines = (student.checkpoint.path.parent / "metrics.jsonl").read_text().splitlines()
        teacher = sum(json.loads(line)["teacher_seconds"] for line in lines)
        name = f"ResNet-{model.depth}, width {model.width}, seed {place}"
        table.add_row(name, f"{seconds:.1f}", f"{teacher:.2f}", f"{seconds - teacher:.1f}")
    console.print(table)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; teacher ResNet-56", style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
