"""Placement over operators of today's networks, mixed precision by names, and what is said of what does not fit."""

import inspect
import logging

import pytest
import torch
from small_networks import CLASSES, Depthwise, MaxPoolFlatten, Residual, Transposed, make_images, make_network
from torch import Tensor, fx, nn
from torch.nn import functional as F

from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.models.mobilenet import MobileNetV2
from pipeline.models.resnet import ResNet
from pipeline.models.vit import VisionTransformer
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import FakeQuantizeActivation, FakeQuantizeWeight, activation_quantizers
from pipeline.training.features import resolve_layers, stages_of, with_features
from pipeline.training.plain_attention import PlainAttention
from pipeline.training.quantized_model import make_quantized

IMAGES = make_images(32)


class Between(nn.Module):
    """An operator between two convolutions."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(4, 8, 3, 1, 1), act, nn.Conv2d(8, CLASSES, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x))).mean((2, 3))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.gate = nn.Conv2d(8, 8, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.squeeze(x.mean((2, 3), keepdim=True)))


def quantized(network: nn.Module, plan: frozenset[str] = frozenset()) -> fx.GraphModule:
    torch.manual_seed(0)
    found = make_quantized(network.eval(), Scheme(), plan)
    calibrate(found, lambda index: IMAGES[index], len(IMAGES), Calibration())
    return found.eval()


def grids(network: nn.Module) -> set[str]:
    return {name.removeprefix("quantize_") for name in activation_quantizers(make_quantized(network.eval(), Scheme()))}


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (nn.ReLU6(), {"act"}),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), {"act_0"}),  # moved, on the same grid
        (nn.Upsample(scale_factor=2), {"first"}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), {"first", "act"}),
        (nn.Hardswish(), {"first", "act"}),
        (nn.PReLU(), {"first", "act"}),
        (nn.GELU(), {"first", "act"}),
        (nn.SiLU(), {"first", "sigmoid", "mul"}),
        (SqueezeExcite(), {"first", "mean", "act_squeeze", "act_gate", "mul"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_both_sides_of_a_convolution_are_on_grids_and_floats_are_float_inside(
    act: nn.Module, expected: set[str]
) -> None:
    assert grids(Between(act)) == {"x", *expected, "last"}


def test_a_transformer_quantizes_what_its_products_read_and_nothing_else() -> None:
    network = VisionTransformer(image_size=8, patch_size=4, depth=1, width=12, stem="patches").build(4, CLASSES)
    products = {"blocks_0_norm1", "blocks_0_attn_qkv", "softmax", "matmul_1", "blocks_0_norm2", "blocks_0_mlp_1"}
    assert grids(network) == {"x", "stem_0", *products, "mean"}  # no sum, no output that only floats read


class Attentive(nn.Module):
    def __init__(self, batch_first: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(4, 12, 2, 2), nn.Linear(12, CLASSES)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=batch_first, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        attended, _ = self.attention(x, x, x)
        return self.head((x + attended).mean(1))


def test_multihead_attention_is_opened_and_its_layers_are_quantized() -> None:
    found = quantized(Attentive())
    weights = {name for name, module in found.named_modules() if isinstance(module, FakeQuantizeWeight)}
    assert sum(name.startswith("attention.") for name in weights) == 4
    network = Attentive().eval()
    found = quantized(network)
    with torch.no_grad():
        assert (found(IMAGES) - network(IMAGES)).abs().max() < 0.1 * network(IMAGES).std()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "floats", "padding"])
def test_plain_attention_is_torchs(batch_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    original = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    x = torch.randn(2, 5, 12) if batch_first else torch.randn(5, 2, 12)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    masks = {
        "none": {},
        "causal": {"attn_mask": causal},
        "floats": {"attn_mask": torch.randn(5, 5)},
        "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    }[mask]
    expected, weights = original(x, 2 * x, x, **masks)
    ours, our_weights = PlainAttention(original)(x, 2 * x, x, **masks)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(our_weights, weights)


class Functional(nn.Module):
    """Convolutions and products as functions; two of them share one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.mix = nn.Parameter(torch.randn(4, 4, 3, 3) / 6), nn.Parameter(torch.randn(4, 6) / 2)
        self.head = nn.Parameter(torch.randn(CLASSES, 6) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1))
        x = F.relu(F.conv2d(x, self.kernel, padding=1)).mean((2, 3))
        return F.linear(F.relu(x @ self.mix), self.head)


def test_weights_of_functions_are_quantized_once_a_parameter() -> None:
    torch.manual_seed(0)
    network = Functional().eval()
    found = quantized(network)
    scales = {name: m.scale.shape[0] for name, m in found.named_modules() if isinstance(m, FakeQuantizeWeight)}
    assert scales == {"quantize_weight_kernel": 4, "quantize_weight_mix_1": 6, "quantize_weight_head": CLASSES}
    with torch.no_grad():
        assert 0 < (found(IMAGES) - network(IMAGES)).abs().max() < 0.1 * network(IMAGES).std()


def test_layers_that_share_a_weight_share_its_grid() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, CLASSES))
    network[2].weight = network[0].weight
    found = make_quantized(network.eval(), Scheme())
    first, second = (found.get_submodule(name).parametrizations["weight"] for name in ("0", "2"))
    assert first[0] is second[0]
    assert first.original is second.original


class Standardized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.head = nn.Parameter(torch.randn(4, 4, 3, 3)), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.conv2d(x, self.kernel / self.kernel.norm()).mean((2, 3)))


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class OwnGradient(Standardized):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(_Doubled.apply(x).mean((2, 3)))


class Looping(Standardized):
    def forward(self, x: Tensor) -> Tensor:
        while x.norm() > 1:
            x = x / 2
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        (Standardized, "F.conv2d(", "expected a weight that is a parameter of the network; {} computes it in forward"),
        (OwnGradient, "", "expected operators that torch can differentiate; {} calls an autograd Function of your own"),
        (Looping, "while x.norm()", "expected a forward that can be traced; {}: "),
    ],
)
def test_what_cannot_be_quantized_is_named_by_line_with_the_ways_out(
    kind: type[nn.Module], line: str, message: str
) -> None:
    source, start = inspect.getsourcelines(kind.forward if line else _Doubled.forward)
    number = start + next(n for n, text in enumerate(source) if (line or "return x * 2") in text)
    with pytest.raises(RecipeError) as caught:
        make_quantized(kind(), Scheme())
    assert message.format(f"{__file__}:{number}") in str(caught.value)
    assert 'precision = "fp32"' in str(caught.value)
    assert "`edgeproof quantize MODEL.onnx`" in str(caught.value)


def test_a_computed_weight_is_accepted_where_the_plan_keeps_it_in_float() -> None:
    network = Standardized()
    found = quantized(network, frozenset({"/Conv"}))
    assert weights_in_int8(found) == {"head"}
    assert set(activation_quantizers(found)) == {"quantize_conv2d", "quantize_mean"}  # what the mean reads, and gives


def test_a_layer_that_int8_has_no_form_of_is_told_and_stays_float(caplog: pytest.LogCaptureFixture) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with caplog.at_level(logging.WARNING):
        make_quantized(nn.Sequential(nn.Conv2d(4, 8, 8), nn.Flatten(2), layer, nn.Linear(1, 1)), Scheme())
    assert caplog.messages == ["student.model: 2 (TransformerEncoderLayer) stays in float: int8 has no form of it"]


def weights_in_int8(network: fx.GraphModule) -> set[str]:
    return {
        name.partition(".parametrizations")[0]
        for name, module in network.named_modules()
        if isinstance(module, FakeQuantizeWeight)
    }


@pytest.mark.parametrize(
    ("plan", "floats"),
    [
        ({"stem"}, {"stem.0"}),
        ({"stem.0/Conv", "linear/Gemm"}, {"stem.0", "linear"}),
        ({"main", "skip.0"}, {"main.0", "skip.0"}),
    ],
    ids=["a module", "nodes", "modules"],
)
def test_a_plan_keeps_layers_in_float_by_the_names_of_onnx_files(plan: set[str], floats: set[str]) -> None:
    network = make_network(Residual)
    mixed = quantized(network, frozenset(plan))
    assert weights_in_int8(mixed) == {"stem.0", "main.0", "skip.0", "linear"} - floats
    with torch.no_grad():
        assert 0 < (mixed(IMAGES) - network(IMAGES)).abs().max() < 0.08 * network(IMAGES).std()


def test_a_float_layer_reads_and_writes_floats_and_its_neighbours_codes() -> None:
    found = quantized(make_network(Depthwise), frozenset({"depthwise.0", "depthwise.2"}))
    reads = {node.name: [value.name for value in node.all_input_nodes] for node in found.graph.nodes}
    assert reads["depthwise_0"] == ["quantize_expand_2"]  # what the layer before it writes
    assert reads["depthwise_2"] == ["depthwise_0"]
    assert reads["project_0"] == ["quantize_depthwise_2"]


def test_functions_are_named_by_the_module_around_them_and_repeats_are_numbered() -> None:
    network = make_network(Residual)
    whole, first, second = (
        set(activation_quantizers(quantized(network, plan)))
        for plan in (frozenset[str](), frozenset({"/Add"}), frozenset({"/Add_1"}))
    )
    assert whole - first == {"quantize_main_1"} - first
    assert second != first
    blocks = ResNet(depth=8, width=4).build(4, CLASSES)
    named = quantized(blocks, frozenset({"layer2.0/Add"}))
    add = next(node for node in named.graph.nodes if node.name == "add_1")
    assert isinstance(named.get_submodule(str(next(iter(add.users)).target)), nn.ReLU)


def test_everything_in_float_is_refused_and_a_name_that_is_none_lists_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"or a shorter float_layers; got none"):
        quantized(make_network(MaxPoolFlatten), frozenset({"features", "head"}))
    message = (
        r"float_layers: expected names of layers, .*; got 'stem.7' \(did you mean 'stem.\d'.*its layers are stem.0, "
    )
    with pytest.raises(RecipeError, match=message):
        quantized(make_network(Residual), frozenset({"stem.7"}))
    with pytest.raises(RecipeError, match=r"got '/Add_2' \(did you mean '/Add"):
        quantized(make_network(Residual), frozenset({"/Add_2"}))


@pytest.mark.parametrize(
    "model", [ResNet(depth=8, width=4), MobileNetV2(width=0.1, last_channels=16), VisionTransformer(width=12, depth=2)]
)
def test_stages_have_the_same_shapes_in_float_and_quantized(model: ResNet | MobileNetV2 | VisionTransformer) -> None:
    network, images = model.build(3, CLASSES).eval(), torch.randn(2, 3, 32, 32)
    both = [network, make_quantized(network, Scheme()).eval()]
    shapes = []
    for each in both:
        words = [f"stage:{place + 1}" for place in range(len(stages_of(each)))]
        _, features = with_features(each, resolve_layers(words, each, who="test"), who="test")(images)
        shapes.append([feature.shape for feature in features])
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) >= 2


def test_a_transposed_convolution_has_scales_along_its_own_channels() -> None:
    found = make_quantized(make_network(Transposed), Scheme())
    grid = found.get_submodule("up").parametrizations["weight"][0]
    assert isinstance(grid, FakeQuantizeWeight)
    assert (grid.axis, grid.scale.shape) == (1, (6,))


def test_a_relu6_tells_its_ceiling() -> None:
    found = make_quantized(make_network(Depthwise), Scheme())
    ceilings = {name: module.ceiling for name, module in activation_quantizers(found).items()}
    assert ceilings["quantize_expand_2"] == 6.0
    assert ceilings["quantize_x"] is None
    assert all(isinstance(module, FakeQuantizeActivation) for module in activation_quantizers(found).values())
