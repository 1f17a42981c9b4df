"""Fused convolutions give what the plain layers give, and step back where oneDNN does not reach."""

import copy
import operator
from typing import Literal

import pytest
import torch
from small_networks import CLASSES, NETWORKS, make_images, make_network
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pipeline.models.resnet import ResNet
from pipeline.training.features import with_features
from pipeline.training.fused_convolution import FusedConvolution, fuse_convolutions
from pipeline.training.layout import UNTRACEABLE, fold_batch_norm, to_channels_last

IMAGES = make_images(3)
HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fused(network: nn.Module, layers: tuple[str, ...] = ()) -> fx.GraphModule:
    traced = with_features(copy.deepcopy(network).eval().requires_grad_(False), layers, who="test")
    assert isinstance(traced, fx.GraphModule)
    fold_batch_norm(traced)
    fuse_convolutions(traced)
    to_channels_last(traced)
    return traced


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


class Overwritten(nn.Module):
    """What the convolution has read is overwritten before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main, self.inplace = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.main(x)
        logits: Tensor = self.linear(F.relu(y + self.inplace(x)).mean((2, 3)))
        return logits


class OverwrittenByASum(nn.Module):
    """What the convolution has read is added to another one before, whose sum takes its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main, self.side = (nn.Conv2d(4, 4, 3, 1, 1) for _ in range(3))
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.main(x)
        shallow = F.relu(self.side(images) + x)
        logits: Tensor = self.linear(F.relu(y + shallow).mean((2, 3)))
        return logits


class ReadAgain(nn.Module):
    """What is added to a convolution is read after the sum, under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main, self.last = (nn.Conv2d(4, 4, 3, 1, 1) for _ in range(3))
        self.same, self.linear = nn.Identity(), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.main(self.last(x)) + self.same(x))
        logits: Tensor = self.linear((y + x).mean((2, 3)))
        return logits


class ReadByItself(nn.Module):
    """What is added to a convolution is what enters it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main, self.linear = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        logits: Tensor = self.linear(F.relu(x + self.main(x)).mean((2, 3)))
        return logits


def is_traceable(kind: type[nn.Module]) -> bool:
    try:
        fx.symbolic_trace(make_network(kind))
    except UNTRACEABLE:
        return False
    return True


TRACEABLE = [kind for kind in NETWORKS if is_traceable(kind)]


@pytest.mark.parametrize("kind", [*TRACEABLE, Overwritten, OverwrittenByASum, ReadAgain, ReadByItself])
def test_a_fused_network_gives_the_same_logits(kind: type[nn.Module]) -> None:
    network = make_network(kind)
    rewritten = fused(network)
    with torch.inference_mode():  # float32 both: only the order of sums differs
        torch.testing.assert_close(rewritten(IMAGES)[0], network(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_no_relu_of_a_residual_network_stays_alone(shortcut: Literal["A", "B"]) -> None:
    network = fused(ResNet(depth=8, width=4, shortcut=shortcut).build(3, 10))
    assert count(network, FusedConvolution) == 7
    assert count(network, nn.ReLU) == 0
    assert sum(len(node.args) == 3 for node in network.graph.nodes) == (3 if shortcut == "B" else 1)


def test_features_are_those_of_the_plain_network() -> None:
    network, layers = ResNet(depth=8, width=4).build(3, 10).eval(), ("layer1.0.relu2", "layer2.0.bn2", "layer3")
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours, theirs = fused(network, layers)(images), with_features(network, layers, who="test")(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16 in oneDNN")
def test_bfloat16_strays_no_further_from_float32_than_the_plain_network() -> None:
    network = ResNet(depth=20, width=8).build(3, 10).eval()
    images = torch.randn(16, 3, 32, 32)
    traced, plain = fused(network), fx.symbolic_trace(copy.deepcopy(network))
    fold_batch_norm(plain)
    with torch.inference_mode():
        exact = network(images)
        errors = [
            (logits(to_channels_last(model.bfloat16())(images.bfloat16())).float() - exact).norm() / exact.norm()
            for model, logits in ((traced, operator.itemgetter(0)), (plain, torch.Tensor.detach))
        ]
    assert errors[0] < 1.25 * errors[1] + 1e-3  # one rounding fewer a sum, but the errors themselves are random


def test_where_onednn_does_not_reach_the_plain_layers_are_called() -> None:
    layer = FusedConvolution(nn.Conv2d(4, 4, 3, padding=1))
    for image in (IMAGES.double(), IMAGES.requires_grad_()):
        layer.to(image.dtype)
        torch.testing.assert_close(layer(image, image[:1]), F.relu(layer.convolution(image) + image[:1]))
    assert layer(IMAGES).requires_grad


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16 in oneDNN")
@pytest.mark.parametrize("may_overwrite", [False, True])
@pytest.mark.parametrize(
    ("groups", "lost"), [(2, ()), (4, ()), (1, ("x",)), (1, ("other",)), (1, ("x", "other")), (4, ("x", "other"))]
)
def test_bfloat16_sums_of_groups_or_without_channels_last_are_the_plain_ones(
    groups: int, lost: tuple[str, ...], may_overwrite: bool
) -> None:
    layer = FusedConvolution(nn.Conv2d(4, 4, 3, padding=1, groups=groups)).bfloat16()
    x, other = (
        image.bfloat16().contiguous(memory_format=torch.contiguous_format if name in lost else torch.channels_last)
        for name, image in (("x", make_images(3)), ("other", torch.ones(3, 4, 8, 8)))
    )
    with torch.inference_mode():
        expected = F.relu(layer.convolution(x) + other)
        assert torch.equal(layer(x, other, may_overwrite), expected)
        torch.testing.assert_close(layer(x), F.relu(layer.convolution(x)))  # no sum: oneDNN knows groups and layouts


def test_new_weights_or_sizes_are_not_met_with_the_old_ones() -> None:
    layer = FusedConvolution(nn.Conv2d(4, 4, 3, stride=2, padding=1)).requires_grad_(False)
    for size in (8, 6, 6):
        image = torch.randn(2, 4, size, size)
        torch.testing.assert_close(layer(image), F.relu(layer.convolution(image)), rtol=1e-4, atol=1e-5)
        layer.convolution.weight.data = torch.randn(4, 4, 3, 3)
