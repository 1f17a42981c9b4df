"""Plain distillation by torchdistill 1.1.5, timed: a process that sleeps until a line on stdin asks for steps.

Rule: models, loss, box, loader and the order of calls are torchdistill's own, as its example script for images and its
CIFAR-10 configuration have them; this file imports nothing of Edgeproof and runs in an environment of its own.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from torchvision_on_cpu import declare_missing_operators

OPERATORS = declare_missing_operators()

from torchdistill.core.distillation import get_distillation_box  # noqa: E402 - after the declarations
from torchdistill.datasets.util import build_data_loader  # noqa: E402
from torchdistill.misc.log import MetricLogger, SmoothedValue  # noqa: E402
from torchdistill.models.classification.resnet import resnet  # noqa: E402
from torchvision.datasets import CIFAR10, VisionDataset  # noqa: E402
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor  # noqa: E402

BATCH_SIZE = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the shared teacher was trained with."""
CPU = torch.device("cpu")


class Images(CIFAR10):
    """torchvision's CIFAR-10, reading included, over images in memory instead of its own archive."""

    def __init__(self, images_NHWC: np.ndarray, labels_N: np.ndarray) -> None:
        transforms = [
            RandomCrop(32, padding=4),
            RandomHorizontalFlip(0.5),
            ToTensor(),
            Normalize(MEAN, STD),
        ]
        VisionDataset.__init__(self, root=".", transform=Compose(transforms))
        self.data = images_NHWC
        self.targets = labels_N.tolist()


def train_config(num_workers: int, num_images: int) -> dict[str, Any]:
    """Return what torchdistill's CIFAR-10 configuration for KD says; CE 0.1 and KD 0.9 (its alpha weighs CE)."""
    logits = {"module_path": ".", "module_io": "output"}
    kd = {f"{who}_{key}": value for who in ("student", "teacher") for key, value in logits.items()}
    kd |= {"temperature": 4.0, "alpha": 0.1, "reduction": "batchmean"}
    model = {"forward_proc": "forward_batch_only", "sequential": [], "frozen_modules": []}
    return {
        "log_freq": 100,
        "num_epochs": 182,
        "train_data_loader": {
            "dataset_id": "train",
            "requires_supp": True,
            "sampler": {"class_or_func": RandomSampler, "kwargs": {"num_samples": num_images}},
            "kwargs": {"batch_size": BATCH_SIZE, "num_workers": num_workers, "drop_last": False},
        },
        "teacher": {**model, "requires_grad": False},
        "student": {**model, "adaptations": None, "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0001}},
        "scheduler": {"key": "MultiStepLR", "kwargs": {"milestones": [91, 136], "gamma": 0.1}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}},
        },
    }


class Distillation:
    """One student under one teacher in a torchdistill box, which keeps both between the turns."""

    def __init__(self, depth: int, dataset: Images, teacher: Path | None) -> None:
        torch.manual_seed(0)
        self.dataset = dataset
        self.teacher = resnet(56, num_classes=10, pretrained=False, progress=False).eval()
        if teacher:
            self.teacher.load_state_dict(with_convolved_shortcuts(torch.load(teacher, weights_only=True)))
        student = resnet(depth, num_classes=10, pretrained=False, progress=False)
        config = train_config(0, BATCH_SIZE)
        self.first_loss: float | None = None
        self.box = get_distillation_box(self.teacher, student, {"train": dataset}, config, CPU, None, False, 1)

    def turn(self, steps: int, warmup: int, num_workers: int, teacher_trains: bool) -> dict[str, float]:
        """Train `warmup` + `steps` steps as the example script does; return images/s of the latter, and the losses.

        The loader's workers start with the turn and end with it: nothing is busy while others are timed.
        """
        loader_config = train_config(num_workers, (warmup + steps) * BATCH_SIZE)["train_data_loader"]
        self.box.train_data_loader = build_data_loader(self.dataset, loader_config, False)
        self.teacher.train(teacher_trains)
        self.box.pre_epoch_process(epoch=0)
        metrics = MetricLogger(delimiter="  ")
        metrics.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
        metrics.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
        losses: list[float] = []
        started = time.perf_counter()
        for images, targets, supplement in metrics.log_every(self.box.train_data_loader, 100, "Epoch: [0]"):
            step_started = time.time()
            loss = self.box.forward_process(images.to(CPU), targets.to(CPU), supplement)
            self.box.post_forward_process(loss=loss)
            losses.append(loss.item())
            metrics.update(loss=losses[-1], lr=self.box.optimizer.param_groups[0]["lr"])
            metrics.meters["img/s"].update(len(images) / (time.time() - step_started))
            if torch.isnan(loss) or torch.isinf(loss):
                raise ValueError(f"the training loop was broken due to loss = {loss}")
            if len(losses) == warmup:
                started = time.perf_counter()
            if len(losses) == warmup + steps:
                seconds = time.perf_counter() - started
        self.first_loss = losses[0] if self.first_loss is None else self.first_loss
        return {"images_per_s": steps * BATCH_SIZE / seconds, "first_loss": self.first_loss, "last_loss": losses[-1]}


def with_convolved_shortcuts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an option-A ResNet as torchdistill's option B, which then computes exactly the same.

    Every second pixel, the new channels zero on both sides, is a 1x1 convolution with stride 2 and weights of one; the
    BatchNorm after it, of torch's default epsilon, leaves it as it is.
    """
    state = {name.replace("linear.", "fc."): value for name, value in state.items()}
    for stage in ("layer2.0", "layer3.0"):
        channels, channels_in = state[f"{stage}.conv1.weight"].shape[:2]
        places = torch.arange(channels_in)
        weight = torch.zeros(channels, channels_in, 1, 1)
        weight[(channels - channels_in) // 2 + places, places] = 1.0
        norm = nn.BatchNorm2d(channels)
        assert norm.running_var is not None
        norm.running_var -= norm.eps
        state[f"{stage}.downsample.0.weight"] = weight
        state |= {f"{stage}.downsample.1.{name}": value for name, value in norm.state_dict().items()}
    return state


def main() -> None:
    """Answer each line {"depth", "steps", "warmup", "num_workers", "teacher_trains"} with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images.npy and labels.npy")
    parser.add_argument("--teacher", type=Path, help="weights of the ResNet-56; random ones if left out")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = Images(np.load(arguments.data / "images.npy"), np.load(arguments.data / "labels.npy"))
    distillations: dict[int, Distillation] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        depth = asked.pop("depth")
        if depth not in distillations:
            distillations[depth] = Distillation(depth, dataset, arguments.teacher)
        print(json.dumps(distillations[depth].turn(**asked)), flush=True)


if __name__ == "__main__":
    main()
