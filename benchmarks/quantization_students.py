"""The students of `make bench-quantization`: five networks, trained briefly on CIFAR-10 by the chain's own stages.

    python benchmarks/quantization_students.py [--only resnet8,vit] [--threads 2]

Every training is a stage of the store: interrupted, it goes on from its last epoch; finished, it is never run again.
From nothing, without a teacher, in bf16, for a few epochs: what is measured is quantization, not the students.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from torch import fx

from benchmarks.distillation_table import recipe_with_data
from pipeline.artifacts import OnnxModel
from pipeline.chain import distill, teach
from pipeline.export.capture import INPUT
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.tasks.cifar10 import Cifar10
from pipeline.tasks.dataset import Cut

BUILD = Path("build/bench/quantization")
OPSET = 20
"""Of the files that quantizers get: the exporter's own default (torch 2.13), so what users have."""
VALIDATION_SHARE = 0.05
"""Of the training images; on these quantizers calibrate and `auto` judges."""
CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class Student:
    """A network by the name of its rows, and how long it is trained."""

    name: str
    model: dict[str, Any]
    """As a recipe's student.model has it."""
    training: dict[str, Any]
    """What differs from the recipe's distillation.training."""
    is_transformer: bool = False


@dataclass(frozen=True)
class Prepared:
    """What quantizers get of one student: its float ONNX file, and the traced torch module for those that train."""

    student: Student
    onnx: OnnxModel
    torch_file: Path


ADAMW = {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05}

STUDENTS = (
    Student("resnet8", {"kind": "resnet", "depth": 8, "width": 16}, {"epochs": 10}),
    Student("resnet20", {"kind": "resnet", "depth": 20, "width": 16}, {"epochs": 5}),
    Student("mobilenet_v2", {"kind": "mobilenet_v2", "width": 0.35, "last_channels": 256}, {"epochs": 4}),
    Student("mobilenet_v3", {"kind": "mobilenet_v3", "width": 0.5, "last_channels": 256}, {"epochs": 4}),
    Student("vit", {"kind": "vit", "depth": 4, "width": 96, "heads": 3}, {**ADAMW, "epochs": 8}, is_transformer=True),
)


def bench_recipe(base: Recipe) -> Recipe:
    """Return the recipe that all students share: with a validation cut that is large enough to judge by."""
    data = base.task.data
    assert isinstance(data, Cifar10)
    wider = data.model_copy(update={"validation": Cut(share=VALIDATION_SHARE)})
    return base.model_copy(update={"task": base.task.model_copy(update={"data": wider})})


def student_recipe(base: Recipe, student: Student, epochs: int | None = None) -> Recipe:
    """Return the recipe of one student: the base's data and views, labels alone, fp32 deployment; its own epochs."""
    content: dict[str, Any] = base.model_dump(mode="json", exclude={"deployments": True, "quantization": True})
    content["deployments"] = [
        {"name": "none", "target": {"kind": "null"}, "precision": "fp32", "budget": {"latency": {"max_ms": 1e6}}}
    ]
    content["student"]["model"] = student.model
    training = {"batch_size": 128, "learning_rate": 0.1, "weight_decay": 5e-4, **student.training}
    training |= {} if epochs is None else {"epochs": epochs}
    content["distillation"] = {"training": training, "losses": [{"kind": "cross_entropy", "weight": 1.0}]}
    return Recipe.model_validate_json(json.dumps(content), context={"folder": base.folder})


def prepare_student(base: Recipe, student: Student, run: Run, epochs: int | None = None) -> Prepared:
    """Train a student where the store has it not yet, and write what quantizers get."""
    recipe = student_recipe(base, student, epochs)
    trained = distill(recipe, teach(recipe, run), None, run)
    model = run.stage(export_onnx, trained, Export(opset=OPSET), encoding=None, highest_opset=OPSET)
    torch_file = BUILD / "students" / f"{student.name}-{trained.checkpoint.sha256}.pt"
    if not torch_file.is_file():
        save_traced(trained, torch_file)
    return Prepared(student, model, torch_file)


def save_traced(trained: TrainedModel, path: Path) -> None:
    """Write the network as a traced module of torch's own layers, which another environment loads without this project.

    A pickle, read by the peer's process alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(fx.symbolic_trace(trained.load()), path)


@dataclass(frozen=True)
class Halves:
    """The two parts of the validation cut, as .npz files with normalized images under the name of the model's input."""

    calibration: Path
    """What every quantizer calibrates on."""
    exam: Path
    """The rest: what `auto` judges by."""
    exam_labels: tuple[int, ...]


def write_halves(recipe: Recipe) -> Halves:
    """Write both parts, the same for all students."""
    split = recipe.task.load().validation
    order = np.random.default_rng(0).permutation(len(split))
    calibration, exam = split.take(order[:CALIBRATION_IMAGES]), split.take(order[CALIBRATION_IMAGES:])
    processing = recipe.task.normalization.processing()
    halves = Halves(BUILD / "calibration.npz", BUILD / "exam.npz", tuple(exam.labels.tolist()))
    for path, part in ((halves.calibration, calibration), (halves.exam, exam)):
        arrays = {INPUT: processing.preprocess(part.images)}
        np.savez(path, allow_pickle=False, **arrays)
    return halves


def main() -> int:
    """Train the students asked for, and list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of students, parted by commas")
    parser.add_argument("--epochs", type=int, help="of every student; its own number if left out")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    if (found := recipe_with_data(console)) is None:
        return 0
    base = bench_recipe(found)
    run = open_run(console, BUILD)
    for student in chosen_students(options.only):
        prepared = prepare_student(base, student, run, options.epochs)
        num_nodes = len(onnx.load(prepared.onnx.path).graph.node)
        console.print(f"{student.name}: {prepared.onnx.size_bytes:,} bytes, {num_nodes} nodes, {prepared.onnx.path}")
    return 0


def chosen_students(only: str | None) -> tuple[Student, ...]:
    """Return the students named, or all; ends the program where a name is unknown."""
    if only is None:
        return STUDENTS
    by_name = {student.name: student for student in STUDENTS}
    names = [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in by_name]:
        sys.exit(f"--only: expected names among {', '.join(by_name)}; got {unknown[0]}")
    return tuple(by_name[name] for name in names)


if __name__ == "__main__":
    sys.exit(main())
