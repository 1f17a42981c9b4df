"""Plain distillation by Edgeproof, timed: a process that sleeps until a line on stdin asks for steps.

Rule: what is timed is `pipeline.training.fit.fit` as the stages call it, from an epoch's start to its last step:
the teacher or its table, views, forward, backward, optimizer. Validation and checkpoint come after it, as for the peer.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.operators import OperatorSplit
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.models.resnet import ResNet
from pipeline.models.trained import load_weights, read_state
from pipeline.tasks.classification import Normalization, Views
from pipeline.training.fit import TrainingData, fit
from pipeline.training.int8_teacher import TeacherPrecision
from pipeline.training.objective import Networks, Objective, build_objective
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.teacher_outputs import TeacherOutputs
from pipeline.training.teachers import LiveTeachers, StoredTeachers, TeacherSource
from pipeline.training.views import ViewedImages, ViewSchedule

BATCH_SIZE = 128
EPOCHS = 2
VIEWS = Views(padding=4, flip=True, in_use=1)
NORMALIZATION = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LOSSES = (CrossEntropy(weight=0.1), KnowledgeDistillation(weight=0.9, temperature=4.0))


class Distillation:
    """One student under one teacher, kept between the turns."""

    def __init__(self, depth: int, teacher: nn.Module, images: Tensor, labels: Tensor) -> None:
        torch.manual_seed(0)
        self._student = ResNet(depth=depth, width=16).build(3, 10)
        self._teacher = teacher
        self._images, self._labels = images, labels
        self._first_loss: float | None = None

    def turn(
        self, steps: int, *, stored: bool, precision: TeacherPrecision, split: OperatorSplit | None = None
    ) -> dict[str, float]:
        """Train two epochs of `steps` steps; return images/s of the second, losses, and what filling the table cost.

        Stored: the table of both epochs was filled before. Live: the teacher is asked at every step.
        """
        num = steps * BATCH_SIZE
        images = ViewedImages(self._images[:num], VIEWS, NORMALIZATION.processing())
        views = ViewSchedule(VIEWS, num, seed=0)
        clock = _Clock(split)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            kept = Path(folder) if stored else None
            teachers = self._teachers(kept, images, views, precision)
            filling_s = time.perf_counter() - started
            fit(
                self._student,
                self._objective(images),
                TrainingData(images, self._labels[:num], views, teachers),
                TrainingSchedule(epochs=EPOCHS, batch_size=BATCH_SIZE),
                name="bench",
                validate=lambda model: 0.0,
                out_dir=Path(folder),
                on_progress=clock.on_progress,
                on_epoch=clock.on_epoch,
            )
        if self._first_loss is None:
            self._first_loss = clock.losses[0]
        return {
            "images_per_s": num / clock.seconds,
            "seconds": clock.seconds,
            "filling_s_per_1000": filling_s / num * 1000,
            "first_loss": self._first_loss,
            "last_loss": clock.losses[-1],
        }

    def _teachers(
        self, folder: Path | None, images: ViewedImages, views: ViewSchedule, precision: TeacherPrecision
    ) -> TeacherSource:
        """Return a table, filled, in a folder; without one a live teacher."""
        if folder is None:
            return LiveTeachers([self._teacher], (), images, views, precision)
        outputs = TeacherOutputs(
            OutputsFolder(folder / "outputs"), {}, self._teacher, images, views, precision=precision
        )
        outputs.column(0)
        return StoredTeachers([outputs])

    def _objective(self, images: ViewedImages) -> Objective:
        example = images.batch(torch.tensor([0]))
        networks = Networks(
            student=self._student,
            student_example=example,
            teachers=(self._teacher,),
            teacher_example=example,
            labels=self._labels,
            num_classes=10,
            num_teacher_classes=10,
            new_student=lambda: self._student,
            same_architecture=True,
        )
        return build_objective(LOSSES, networks, EPOCHS)


class _Clock:
    """Times the last epoch of a fit: from its start to the end of its last step."""

    def __init__(self, split: OperatorSplit | None) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0
        self._split = split
        self._started = 0.0

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Start; what went before was warm-up."""
        if self._split and epoch == EPOCHS - 1:
            self._split.start()
        self._started = time.perf_counter()

    def on_progress(self, done: int, total: int, metrics: Mapping[str, float] = MappingProxyType({}), /) -> None:
        """Note how far it came, and the loss."""
        self.seconds = time.perf_counter() - self._started
        if "loss" in metrics:
            self.losses.append(metrics["loss"])
        if self._split and done == total:
            self._split.stop()


def main() -> None:
    """Answer each line {"depth", "steps", "stored", "precision", "split"} with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images.npy and labels.npy")
    parser.add_argument("--teacher", type=Path, help="weights of the ResNet-56; random ones if left out")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = torch.from_numpy(np.load(arguments.data / "images.npy"))
    labels = torch.from_numpy(np.load(arguments.data / "labels.npy"))
    teacher = ResNet(depth=56, width=16, shortcut="A").build(3, 10)
    if arguments.teacher:
        load_weights(teacher, read_state(arguments.teacher), where=str(arguments.teacher))
    distillations: dict[int, Distillation] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        depth = asked["depth"]
        if depth not in distillations:
            distillations[depth] = Distillation(depth, teacher.eval(), images, labels)
        split = OperatorSplit() if asked.get("split") else None
        precision = asked["precision"]
        answer = distillations[depth].turn(asked["steps"], stored=asked["stored"], precision=precision, split=split)
        print(json.dumps(split.shares(answer["seconds"]) if split else answer), flush=True)


if __name__ == "__main__":
    main()
