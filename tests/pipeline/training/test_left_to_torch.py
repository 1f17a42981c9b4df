"""What the kernels cannot do is left as it was, and a fit on them ends where one without them does."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_steps import Net, make, needs_kernels, step

from pipeline.distillation.labels import CrossEntropy
from pipeline.models.resnet import ResNet
from pipeline.tasks.classification import Normalization, Views
from pipeline.training.fast_step import is_fusible_norm, is_usual_convolution, with_kernels
from pipeline.training.fit import TrainingData, fit
from pipeline.training.kernels.library import find_library
from pipeline.training.objective import Objective, PlacedTerm
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.views import ViewedImages, ViewSchedule


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="kernels need Linux and g++")
def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """Else all that needs them would be skipped in silence."""
    assert find_library() is not None or os.environ.get("EDGEPROOF_KERNELS") == "off"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.Conv2d(16, 16, 3, 1, 1, groups=2, bias=False),
        nn.Conv2d(16, 16, 3, 1, 2, dilation=2, bias=False),
        nn.Conv2d(16, 16, 3, 1, (1, 0), bias=False),
        nn.Conv2d(16, 16, 3, 1, "same", bias=False),
        nn.Conv2d(16, 16, 3, 1, 1, padding_mode="reflect", bias=False),
        nn.Conv2d(16, 16, (3, 1), 1, (1, 0), bias=False),
        nn.Conv2d(16, 16, 5, 1, 2, bias=False),
        nn.Conv2d(16, 16, 3, 3, 1, bias=False),
        nn.Conv2d(16, 16, 3, (1, 2), 1, bias=False),
        nn.Conv2d(16, 24, 3, 1, 1, bias=False),
        nn.Conv2d(16, 512, 1, bias=False),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1, bias=False)),
        nn.Linear(16, 16),
    ],
    ids=str,
)
def test_unusual_convolutions_are_left_alone(layer: nn.Module) -> None:
    assert not is_usual_convolution(layer)
    assert is_usual_convolution(nn.Conv2d(16, 16, 3, 1, 1, bias=False))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(16, momentum=None),
        nn.BatchNorm2d(16, affine=False),
        nn.BatchNorm2d(16, track_running_stats=False),
        nn.BatchNorm2d(24),
        nn.BatchNorm1d(16),
        nn.SyncBatchNorm(16),
    ],
    ids=str,
)
def test_unusual_norms_are_left_alone(layer: nn.Module) -> None:
    assert not is_fusible_norm(layer)
    assert is_fusible_norm(nn.BatchNorm2d(16))


class Looks(Net):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x) if x.sum() > 0 else x


class Draws(Net):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x) * torch.rand(1).item()


class DrawsInPython(Net):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x) * random.random()


class DrawsInNumPy(Net):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x) * float(np.random.rand())


class Counts(Net):
    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().body(x)


class CountsAndLooks(Looks):
    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().body(x)


class CountsInABuffer(Net):
    def body(self, x: Tensor) -> Tensor:
        self.total += 1
        return super().body(x)


class Keeps(Net):
    def body(self, x: Tensor) -> Tensor:
        self.kept = x
        return super().body(x)


class WithoutGradients(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.side(x)
        return super().body(x)


class InFloat(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.side(x.float())
        return super().body(x)


class FreezesItself(Net):
    def train(self, mode: bool = True) -> "FreezesItself":
        super().train(mode)
        self.norm.eval()
        return self


@needs_kernels
@pytest.mark.parametrize(
    "kind",
    [
        *(Looks, Draws, DrawsInPython, DrawsInNumPy, Counts, CountsAndLooks, CountsInABuffer, Keeps),
        *(WithoutGradients, InFloat, FreezesItself),
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_network_that_a_graph_would_change_is_returned_as_it_is(kind: type[Net]) -> None:
    network = make(kind)
    network.calls, network.kept = 0, None
    network.register_buffer("total", torch.zeros(()))
    assert with_kernels(network) is network
    assert (network.calls, network.kept, float(network.total)) == (0, None, 0.0)
    step(network)


@needs_kernels
def test_hooks_on_a_network_or_a_block_are_called() -> None:
    seen: list[Tensor] = []
    for place in ("", "0"):
        network = nn.Sequential(make(Net), nn.Identity())
        network.get_submodule(place).register_forward_hook(lambda layer, args, y: seen.append(y))
        step(with_kernels(network))
    assert len(seen) == 2


def fit_small(folder: Path, stop_after: int | None = None) -> None:
    """Train a network of which every layer has kernels, for three epochs of four steps."""

    def on_progress(done: int, total: int, metrics: Mapping[str, float] | None = None, /) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 64)
    pixels = rng.integers(0, 120, (64, 8, 8, 3)) + 40 * labels[:, None, None, None] * (np.arange(3) == 1)
    views = Views(padding=1)
    processing = Normalization(mean=(0.4,) * 3, std=(0.2,) * 3).processing()
    images = ViewedImages(torch.from_numpy(np.minimum(pixels, 255).astype(np.uint8)), views, processing)
    torch.manual_seed(0)
    network = ResNet(depth=8, width=16).build(3, 4)
    fit(
        network,
        Objective({"cross_entropy": PlacedTerm(CrossEntropy(), CrossEntropy())}, epochs=3),
        TrainingData(images, torch.from_numpy(labels), ViewSchedule(views, 64, 0)),
        TrainingSchedule(epochs=3, batch_size=16, learning_rate=0.02),
        name="test",
        validate=lambda _: 0.5,
        out_dir=folder,
        on_progress=on_progress,
    )
    torch.save(network.state_dict(), folder / "model.pt")


def trained(folder: Path) -> tuple[dict[str, Tensor], list[float]]:
    """Return the weights that `fit_small` has left, and each epoch's loss."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return torch.load(folder / "model.pt"), [json.loads(line)["cross_entropy"] for line in lines]


@needs_kernels
def test_fit_ends_close_to_where_it_ends_without_kernels(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("own", "torch")]
    for folder in folders:
        folder.mkdir()
    fit_small(folders[0])
    environment = {**os.environ, "EDGEPROOF_KERNELS": "off"}
    subprocess.run([sys.executable, __file__, str(folders[1])], env=environment, check=True, timeout=120)
    (ours, our_losses), (theirs, their_losses) = map(trained, folders)
    assert not torch.equal(ours["conv1.weight"], theirs["conv1.weight"])  # else one of them ran as the other
    assert our_losses == pytest.approx(their_losses, rel=0.05)
    assert our_losses[-1] < our_losses[0]


@needs_kernels
@pytest.mark.parametrize("after", [2, 7])
def test_an_interrupted_fit_on_kernels_resumes_to_the_bit(tmp_path: Path, after: int) -> None:
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    fit_small(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path / "resumed", stop_after=after)
    fit_small(tmp_path / "resumed")
    (whole, _), (resumed, _) = trained(tmp_path / "whole"), trained(tmp_path / "resumed")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


if __name__ == "__main__":
    fit_small(Path(sys.argv[1]))
