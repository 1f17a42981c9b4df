"""The students of `make bench-quantization`: five networks, trained briefly on CIFAR-10 by the chain's own stages.

    python benchmarks/quantization_students.py [--only resnet8,vit] [--threads 2]

Every training is a stage of the store: interrupted, it goes on from its last epoch; finished, it is never run again.
From nothing, without a teacher, in bf16, for a few epochs (ResNet-20 is loaded): what is measured is quantization, not
the students.
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
from safetensors.torch import save_file
from torch import fx

from benchmarks.distillation_table import recipe_with_data
from pipeline.artifacts import OnnxModel
from pipeline.chain import distill, teach
from pipeline.export.capture import INPUT
from pipeline.models.trained import TrainedModel, read_state
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.stages.load_teacher import load_teacher
from pipeline.tasks.cifar10 import Cifar10
from pipeline.tasks.dataset import Cut
from pipeline.user_files import find_file

BUILD = Path("build/bench/quantization")
OPSET = 20
"""Of the files that quantizers get: the exporter's own default (torch 2.13), so what users have."""
VALIDATION_SHARE = 0.05
"""Of the training images; on these quantizers calibrate and `auto` judges."""
CALIBRATION_IMAGES = 512
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Student:
    """A network by the name of its rows, and how long it is trained."""

    name: str
    model: dict[str, Any]
    """As a recipe's student.model has it."""
    training: dict[str, Any]
    """What differs from the recipe's distillation.training."""
    is_transformer: bool = False
    checkpoint: str | None = None
    """Weights beside the base recipe's teacher, trained already; instead of training."""


@dataclass(frozen=True)
class Prepared:
    """What quantizers get of one student: its float ONNX file, and the traced torch module for those that train."""

    student: Student
    onnx: OnnxModel
    torch_file: Path


ADAMW = {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05}

STUDENTS = (
    Student("resnet8", {"kind": "resnet", "depth": 8, "width": 16}, {"epochs": 10}),
    Student("resnet20", {"kind": "resnet", "depth": 20, "width": 16}, {"epochs": 1}, checkpoint="resnet20_ft_jpeg.pt"),
    Student("mobilenet_v2", {"kind": "mobilenet_v2", "width": 0.35, "last_channels": 256}, {"epochs": 2}),
    Student(
        "mobilenet_v3",
        {"kind": "mobilenet_v3", "width": 0.5, "last_channels": 256},
        {"epochs": 3, "warmup_epochs": 0.5, "learning_rate": 0.05},
    ),
    Student("vit", {"kind": "vit", "depth": 4, "width": 96, "heads": 3}, {**ADAMW, "epochs": 2}, is_transformer=True),
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
    trained = load_student(recipe, student, run) or distill(recipe, teach(recipe, run), None, run)
    model = run.stage(export_onnx, trained, Export(opset=OPSET), encoding=None, highest_opset=OPSET)
    torch_file = BUILD / "students" / f"{student.name}-{trained.checkpoint.sha256}.pt"
    if not torch_file.is_file():
        save_traced(trained, torch_file)
    return Prepared(student, model, torch_file)


def load_student(recipe: Recipe, student: Student, run: Run) -> TrainedModel | None:
    """Load weights that were trained elsewhere, where the student has some."""
    if student.checkpoint is None or recipe.teacher.checkpoint is None:
        return None
    path = find_file(recipe.teacher.checkpoint, recipe.folder, what="the teacher's checkpoint").parent
    converted = BUILD / "students" / f"{student.name}-with-projections.safetensors"
    converted.parent.mkdir(parents=True, exist_ok=True)
    save_file(with_projections(read_state(path / student.checkpoint)), converted)
    checkpoint = run.stage(load_teacher, recipe.task, recipe.student.model, converted, None)
    return TrainedModel(recipe.student.model, checkpoint)


def with_projections(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a CIFAR ResNet's weights with its shortcuts of option A (subsampled, channels padded) as option B.

    A convolution of one pixel and stride 2 with rows of the identity matrix, and a BatchNorm that does nothing, compute
    the same; padding and slicing, which runtimes have in float only, are gone.
    """
    found = {name: tensor.contiguous() for name, tensor in state.items()}
    for layer in ("layer2.0", "layer3.0"):
        outputs, inputs = state[f"{layer}.conv1.weight"].shape[:2]
        projection = torch.zeros(outputs, inputs, 1, 1)
        projection[outputs // 4 : outputs // 4 + inputs, :, 0, 0] = torch.eye(inputs)
        found[f"{layer}.shortcut.0.weight"] = projection
        norm = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - BATCH_NORM_EPS}
        found.update({f"{layer}.shortcut.1.{name}": torch.full((outputs,), value) for name, value in norm.items()})
        found[f"{layer}.shortcut.1.num_batches_tracked"] = torch.tensor(0)
    return found


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
