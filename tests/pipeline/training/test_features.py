"""Features by name: from the graph where there is one, through hooks where there is none, and always the right ones."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import RecipeError
from pipeline.models.resnet import ResNet
from pipeline.training.features import resolve_layers, shapes_of, stages_of, with_features

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """Two convolutions, the second one's activation in place; what `forward` does is known."""

    def __init__(self, *, traceable: bool) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 5, 3)
        self.idle = nn.Linear(1, 1)
        self.linear = nn.Linear(5, 2)
        self.traceable = traceable

    def forward(self, x: Tensor) -> Tensor:
        if not self.traceable and len(x) > 100:
            x = x[:100]
        x = self.second(self.act(self.first(x)))
        x += 1  # spoils what the second convolution gave
        logits: Tensor = self.linear(F.relu(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize("traceable", [True, False])
def test_a_feature_is_what_its_layer_gave_whatever_works_in_place_after_it(traceable: bool) -> None:
    network = Plain(traceable=traceable)
    layers = ("first", "act:input", "act", "second")
    logits, (first, entered, acted, second) = with_features(network, layers, who="test")(IMAGES)
    expected = F.conv2d(IMAGES, network.first.weight, network.first.bias)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(entered, expected)
    torch.testing.assert_close(acted, F.relu(expected))
    torch.testing.assert_close(second, F.conv2d(F.relu(expected), network.second.weight, network.second.bias))
    torch.testing.assert_close(logits, network(IMAGES))


@pytest.mark.parametrize("traceable", [True, False])
def test_gradients_of_a_feature_reach_the_networks_own_weights(traceable: bool) -> None:
    network = Plain(traceable=traceable)
    _, (feature,) = with_features(network, ("act",), who="test")(IMAGES)
    feature.sum().backward()
    assert network.first.weight.grad is not None
    assert network.second.weight.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_stages_are_the_networks_own_and_shapes_those_of_one_image() -> None:
    network = ResNet(depth=14, width=4).build(3, 10)
    layers = resolve_layers(("stage:1", "stage:last", "stage:2:input", "layer1.0.conv1"), network, who="test")
    assert layers == ("layer1.1.relu2", "layer3.1.relu2", "layer2.1.relu2:input", "layer1.0.conv1")
    shapes = shapes_of(network, IMAGES[:1], layers=layers, who="test")
    assert shapes == ((4, 8, 8), (16, 2, 2), (8, 4, 4), (4, 8, 8))
    assert network.training  # as it was


def test_containers_are_layers_too() -> None:
    network = ResNet(depth=8, width=4).build(3, 10).eval()
    _, (stage, last) = with_features(network, ("layer2", "layer2.0.relu2"), who="test")(IMAGES)
    assert torch.equal(stage, last)


class Alias(nn.Module):
    """An activation that works in place on memory that has another name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same, self.act = nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.act(self.same(self.conv(x))).mean((2, 3))
        return logits


def test_a_feature_is_safe_from_what_works_in_place_under_another_name() -> None:
    network = Alias()
    _, (feature,) = with_features(network, ("conv",), who="test")(IMAGES)
    torch.testing.assert_close(feature, F.conv2d(IMAGES, network.conv.weight, network.conv.bias))


class Drops(nn.Module):
    """Leaves its middle out at random, by a number drawn in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.training and torch.rand(1).item() < 0.5:
            y = y * 0
        return y.mean((2, 3))


def test_what_a_forward_draws_is_not_frozen() -> None:
    network = with_features(Drops().train(), ("conv",), who="test")
    torch.manual_seed(0)
    assert len({network(IMAGES)[0].sum().item() for _ in range(20)}) == 2


class Checks(nn.Module):
    """Looks at what it is given, as many networks do; a graph cannot."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 4, 3), error

    def forward(self, *, x: Tensor | None = None, images: Tensor | None = None) -> Tensor:
        return self.conv(input=x).mean((2, 3)) if x is not None else torch.zeros(0)


class Wrapped(nn.Module):
    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.inner = Checks(error)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise self.inner.error("expected a tensor")
        result: Tensor = self.inner(x=x)
        return result


@pytest.mark.parametrize("error", [AssertionError, ValueError, KeyError, AttributeError])
def test_a_network_that_checks_its_input_is_read_through_hooks(error: type[Exception]) -> None:
    network = Wrapped(error)
    logits, (entered, left) = with_features(network, ("inner.conv:input", "inner.conv"), who="test")(IMAGES)
    assert torch.equal(entered, IMAGES)
    torch.testing.assert_close(left.mean((2, 3)), logits)


@pytest.mark.parametrize("stages", [4, [2, 2, 6, 2], ("nowhere",), nn.ModuleList()])
def test_what_else_networks_call_stages_is_not_taken_for_layers(stages: object) -> None:
    network = Alias()
    network.stages = stages
    assert stages_of(network) == ()


def test_stages_may_be_those_of_the_class() -> None:
    class Named(Alias):
        stages = ("act",)

    assert stages_of(Named()) == ("act",)


def test_a_batch_norm_that_its_author_froze_stays_frozen() -> None:
    network = ResNet(depth=8, width=4).build(3, 10)
    network.bn1.eval()
    shapes_of(network, IMAGES, layers=("layer1.0.relu2",), who="test")
    assert network.training
    assert not network.bn1.training


def test_features_compile_in_one_graph() -> None:
    network = with_features(ResNet(depth=8, width=4).build(3, 10), ("layer1.0.relu2",), who="test")
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(IMAGES)[1][0], network(IMAGES)[1][0])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("layer2.0.relu3", r"layer2.0.relu3' \(did you mean 'layer2.0.relu2'"),
        ("stage:4", "expected stage:1 to stage:3, or stage:last; got stage:4. Its stages are layer1.0.relu2"),
        ("nonsense", "its layers are conv1, bn1, relu, layer1"),
    ],
)
def test_a_wrong_name_lists_the_candidates(word: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_layers((word,), ResNet(depth=8).build(3, 10), who="losses: at: student_layers")


@pytest.mark.parametrize("traceable", [True, False])
def test_a_layer_that_is_never_called_says_so(traceable: bool) -> None:
    with pytest.raises(RecipeError, match=r"the teacher: layer 'idle' is there, but the network's forward never calls"):
        shapes_of(Plain(traceable=traceable), IMAGES[:1], layers=("idle",), who="the teacher")


def test_a_network_without_stages_says_how_to_name_layers() -> None:
    with pytest.raises(RecipeError, match=r"lists no stages, so stage:last means nothing: name its layers"):
        resolve_layers(("stage:last",), Plain(traceable=True), who="losses: srd: student_layers")
