"""One fit, run by torchrun or alone: writes its metrics and weights to the folder that it is given."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.distillation import AnyLoss
from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation, InfoNce
from pipeline.distillation.correlation import CorrelationDistillation
from pipeline.distillation.hints import SRD
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.distillation.sample_relations import RelationalKnowledgeDistillation, SimilarityPreserving
from pipeline.models.resnet import ResNet
from pipeline.models.trained import save_weights
from pipeline.tasks.classification import Normalization, Views
from pipeline.training.fit import TrainingData, fit
from pipeline.training.objective import Networks, build_objective
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.teachers import LiveTeachers
from pipeline.training.views import ViewedImages, ViewSchedule

LOSSES: dict[str, tuple[AnyLoss, ...]] = {
    "each sample": (CrossEntropy(), KnowledgeDistillation()),
    "dist": (CrossEntropy(), CorrelationDistillation()),
    "rkd": (CrossEntropy(), RelationalKnowledgeDistillation()),
    "sp": (CrossEntropy(), SimilarityPreserving(weight=30.0)),
    "srd": (CrossEntropy(), SRD()),
    "info_nce": (CrossEntropy(), InfoNce()),
    "crd": (CrossEntropy(), ContrastiveRepresentationDistillation()),
}


class Plain(nn.Module):
    """A student without normalization, whose gradient is the mean of its samples'."""

    stages = ("act2",)

    def __init__(self) -> None:
        super().__init__()
        self.stages = Plain.stages
        self.conv1, self.act1 = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def main(out_dir: Path, student: str, losses: str, num: int, batch_size: int) -> None:
    """Train for two epochs."""
    torch.manual_seed(0)
    network = Plain() if student == "plain" else ResNet(depth=8, width=4).build(3, 4)
    teacher = ResNet(depth=8, width=8).build(3, 4)
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, num))
    views = Views(padding=1, flip=True)
    processing = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3).processing()
    images = ViewedImages(torch.from_numpy(rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)), views, processing)
    schedule = ViewSchedule(views, num, 0)
    example = images.batch(torch.tensor([0]))
    networks = Networks(network, example, (teacher,), example, labels, 4, 4, Plain, same_architecture=False)
    objective = build_objective(LOSSES[losses], networks, epochs=2)
    fit(
        network,
        objective,
        TrainingData(images, labels, schedule, LiveTeachers((teacher,), objective.teacher_layers, images, schedule)),
        TrainingSchedule(epochs=2, batch_size=batch_size, learning_rate=0.02, precision="32-true", warmup_epochs=0),
        name="test",
        validate=lambda _: 0.5,
        out_dir=out_dir,
    )
    if os.environ.get("RANK", "0") == "0":
        save_weights(out_dir / "model.safetensors", network)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
