"""A training step on the kernels is the plain network's up to rounding, however its layers are wired."""

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_steps import IMAGES, Net, assert_close, assert_steps_alike, make, needs_kernels, step

from pipeline.models.resnet import ResNet
from pipeline.training.fast_step import KernelBatchNorm, KernelConvolutionNorm, with_kernels
from pipeline.training.features import with_features
from pipeline.training.kernels.library import find_library
from pipeline.training.layout import to_channels_last


class Alone(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class SumBehind(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + x)


class SumBefore(Net):
    def body(self, x: Tensor) -> Tensor:
        return F.relu(torch.add(x, self.norm(self.conv(x))))


class SumWithoutRelu(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + x


class BothNorms(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + self.side_norm(self.side(x)))


class AddedInto(Net):
    """As torchvision writes it."""

    def body(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        out += x
        return self.act(out)


class AddedIntoTheOther(Net):
    def body(self, x: Tensor) -> Tensor:
        other = self.side(x)
        other += self.norm(self.conv(x))
        return self.act(other)


class OtherOverwritten(Net):
    """What is added changes between the sum and its ReLU."""

    def body(self, x: Tensor) -> Tensor:
        other = self.side(x)
        total = self.norm(self.conv(x)) + other
        other.mul_(-3)
        return F.relu(total) + other


class Weighted(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(torch.add(self.norm(self.conv(x)), x, alpha=-2))


class NumberAdded(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + x.shape[2])


class Broadcast(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + x.mean((2, 3), keepdim=True))


class Capped(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act6(self.norm(self.conv(x)))


class TwoReaders(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return F.relu(y) + y


class Twice(Net):
    """One convolution and one norm, called twice."""

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.relu(self.norm(self.conv(x))))))


class Keywords(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.act(input=self.norm(input=self.conv(input=x)))


class Dropped(Net):
    def body(self, x: Tensor) -> Tensor:
        return F.dropout(self.dropout(self.act(self.norm(self.conv(x)))), 0.2, self.training)


WIRINGS: dict[type[Net], list[tuple[int, bool]]] = {  # of each norm: the tensors that it takes, whether it has a ReLU
    Net: [(1, True)],
    Alone: [(1, False)],
    SumBehind: [(2, True)],
    SumBefore: [(2, True)],
    SumWithoutRelu: [(2, False)],
    BothNorms: [(1, False), (2, True)],
    AddedInto: [(2, True)],
    AddedIntoTheOther: [(2, True)],  # torch.fx records a plain sum
    OtherOverwritten: [(2, True)],
    Weighted: [(1, False)],
    NumberAdded: [(2, True)],
    Broadcast: [(2, True)],
    Capped: [(1, False)],
    TwoReaders: [(1, False)],
    Twice: [(1, True), (1, True)],
    Keywords: [],
    Dropped: [(1, True)],
}

NORMS = (KernelBatchNorm, KernelConvolutionNorm)


def norms_of(network: nn.Module) -> list[tuple[int, bool]]:
    modules, nodes = dict(network.named_modules()), getattr(network, "graph").nodes  # noqa: B009 - mypy sees a Module
    called = [(node, modules[str(node.target)]) for node in nodes if node.op == "call_module"]
    return sorted((len(node.args), layer.with_relu) for node, layer in called if isinstance(layer, NORMS))


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


@needs_kernels
@pytest.mark.parametrize("kind", WIRINGS, ids=lambda kind: kind.__name__)
def test_a_step_on_kernels_is_the_plain_networks(kind: type[Net]) -> None:
    network, plain = make(kind), make(kind)
    keys = list(network.state_dict())
    fast = with_kernels(network)
    assert norms_of(fast) == WIRINGS[kind]
    assert_close(step(fast), step(plain))
    assert_steps_alike(network, plain)
    assert list(network.state_dict()) == keys
    assert {id(p) for p in fast.parameters()} <= {id(p) for p in network.parameters()}


@needs_kernels
def test_the_given_network_evaluates_with_what_was_trained() -> None:
    network, plain = make(BothNorms), make(BothNorms)
    fast = with_kernels(network)
    for _ in range(3):
        step(fast)
        step(plain)
    assert network.norm.num_batches_tracked == 3
    with torch.no_grad():
        assert_close(network.eval()(IMAGES), plain.eval()(IMAGES))


@needs_kernels
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_no_layer_of_a_residual_network_stays_with_torch(shortcut: Literal["A", "B"]) -> None:
    library = find_library()
    assert library is not None
    network = to_channels_last(ResNet(depth=8, width=16, shortcut=shortcut).build(3, 5)).train()
    plain = copy.deepcopy(network)
    fast = with_kernels(network)
    projections = 2 if shortcut == "B" else 0
    assert norms_of(fast) == [(1, False)] * projections + [(1, True)] * 4 + [(2, True)] * 3
    assert count(fast, nn.ReLU) == 0
    assert count(fast, KernelConvolutionNorm) == (7 + projections if library.convolutions else 0)
    assert_close(step(fast), step(plain))


@needs_kernels
def test_without_autocast_the_plain_operators_are_called() -> None:
    network, plain = make(BothNorms), make(BothNorms)
    fast = with_kernels(network)
    assert torch.equal(fast(IMAGES), plain(IMAGES))
    assert_steps_alike(network, plain)


@needs_kernels
def test_images_may_lie_otherwise_but_not_be_single_values() -> None:
    network, plain = make(SumBehind), make(SumBehind)
    fast = with_kernels(network)
    assert_close(step(fast, IMAGES.contiguous()), step(plain, IMAGES.contiguous()))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        step(fast, IMAGES[:1, :, :1, :1])


@needs_kernels
def test_layers_whose_channels_do_not_fit_are_refused_as_torch_refuses_them() -> None:
    network = make(Net)
    network.norm, network.conv = nn.BatchNorm2d(32), nn.Conv2d(16, 16, 1, bias=False)
    with pytest.raises(RuntimeError, match="running_mean should contain 16 elements not 32"):
        step(with_kernels(network))
    network.conv = nn.Conv2d(32, 32, 1, bias=False)
    with pytest.raises(RuntimeError, match=r"expected input.* to have 32 channels, but got 16 channels"):
        step(with_kernels(network))


@needs_kernels
def test_features_are_those_of_the_plain_network() -> None:
    network, plain = make(AddedInto), make(AddedInto)
    layers = ("norm", "act", "conv")
    fast = with_kernels(with_features(network, layers, who="test"))
    slow = with_features(plain, layers, who="test")
    assert norms_of(fast) == [(1, False)]  # its own output is read, not only the sum
    with torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(fast(IMAGES)[1], slow(IMAGES)[1], strict=True):
            assert_close(ours, theirs)


@needs_kernels
def test_features_that_hooks_read_are_still_read() -> None:
    hooked = with_features(make(Keywords), ("norm:input",), who="test")
    assert with_kernels(hooked) is hooked


@needs_kernels
def test_a_frozen_norm_stays_frozen() -> None:
    network, plain = make(BothNorms), make(BothNorms)
    for net in (network, plain):
        net.norm.eval()
    fast = with_kernels(network)
    assert not network.norm.training
    assert network.side_norm.training
    assert_close(step(fast), step(plain))
    assert network.norm.num_batches_tracked == 0
    assert network.norm.running_mean.count_nonzero() == 0


@needs_kernels
def test_a_frozen_convolution_gets_no_gradient() -> None:
    network, plain = make(BothNorms), make(BothNorms)
    for net in (network, plain):
        net.conv.requires_grad_(False)
        net.norm.requires_grad_(False)
    step(with_kernels(network))
    step(plain)
    assert_steps_alike(network, plain)


@needs_kernels
def test_hooks_on_a_layer_are_called() -> None:
    network, seen = make(BothNorms), []
    network.norm.register_forward_hook(lambda layer, args, y: seen.append(y))
    network.conv.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    network.side.register_full_backward_pre_hook(lambda layer, gradient: seen.append(gradient[0]))
    fast = with_kernels(network)
    assert norms_of(fast) == [(2, True)]  # the other norm's
    step(fast)
    assert [tuple(value.shape) for value in seen] == [(8, 16, 8, 8)] * 3
