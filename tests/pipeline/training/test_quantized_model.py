"""Fake quantization: where it goes, what it computes, and what is said of models that it cannot be put into."""

import copy
import inspect

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, ReluReadTwice, SharedTwice, Shuffle, make_images, make_network
from torch import Tensor, fx, nn

from calibration.affine import dequantize, quantize, scale_of_channels, scale_of_range
from calibration.scheme import Scheme
from pipeline.errors import DataError, RecipeError
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import (
    FakeQuantizeActivation,
    FakeQuantizeWeight,
    activation_quantizers,
    quantize_weight,
    restore_grids,
)
from pipeline.training.layout import fold_batch_norm
from pipeline.training.quantized_model import make_quantized

IMAGES = make_images(64)


def calibrated(kind: type[nn.Module], scheme: Scheme | None = None) -> fx.GraphModule:
    network = make_quantized(make_network(kind), scheme or Scheme())
    calibrate(network, lambda index: IMAGES[index], len(IMAGES), Calibration())
    return network.eval()


@pytest.mark.parametrize(("low", "codes"), [(0.0, "uint8"), (-1.5, "int8")])
def test_activations_are_rounded_as_the_quantize_formula_says(low: float, codes: str) -> None:
    quantizer = FakeQuantizeActivation(255)
    quantizer.settle(low, 3.0)
    x = torch.linspace(-2, 4, 1001)
    scale = np.float32(scale_of_range(low, 3.0, nonnegative=codes == "uint8"))
    expected = dequantize(quantize(x.numpy(), scale, 0, codes), scale, 0)
    difference = np.abs(quantizer(x).numpy() - expected)
    assert (difference < 1e-6).mean() > 0.99
    assert difference.max() < 1.01 * scale  # torch multiplies by 1 / scale, so that halves may fall to either side


def test_weights_are_rounded_as_the_quantize_formula_says_for_each_channel() -> None:
    torch.manual_seed(0)
    layers = [(nn.Conv2d(3, 4, 3), 0), (nn.Linear(5, 4), 0), (nn.ConvTranspose2d(3, 4, 2), 1)]
    for layer, axis in layers:
        weight = layer.weight.detach().numpy().copy()
        quantize_weight(layer, 8)
        scale = scale_of_channels(weight, axis).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        expected = dequantize(quantize(weight, scale, 0, "int8"), scale, 0)
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected, atol=1e-6)


def test_fewer_bits_have_fewer_codes() -> None:
    layer = nn.Linear(50, 4)
    quantize_weight(layer, 3)
    scale = layer.parametrizations["weight"][0].scale
    codes = (layer.weight / scale[:, None]).round().detach()
    assert codes.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_gradients_pass_straight_through_where_nothing_is_cut() -> None:
    quantizer = FakeQuantizeActivation(255)
    quantizer.settle(-1.0, 1.0)
    x = torch.tensor([-3.0, -0.7, 0.2, 0.99, 3.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_weights_grid_follows_training_and_stays_when_restored() -> None:
    layer = nn.Linear(3, 2, bias=False)
    quantize_weight(layer, 8)
    grid = layer.parametrizations["weight"][0]
    assert isinstance(grid, FakeQuantizeWeight)
    for expected in (2.0, 5.0):
        layer.parametrizations["weight"].original.data.fill_(expected)
        layer.eval()(torch.ones(1, 3))  # what validation sees, after the last step
        assert grid.scale.tolist() == pytest.approx([expected / 127] * 2)
    restore_grids(layer)
    layer.parametrizations["weight"].original.data.fill_(9.0)
    assert layer(torch.ones(1, 3))[0, 0].item() == pytest.approx(15.0)  # 3 x 5, cut


def test_a_range_is_settled_then_moves_then_is_fixed() -> None:
    quantizer = FakeQuantizeActivation(255)
    quantizer.settle(0.0, 4.0)
    assert quantizer.scale.item() == pytest.approx(4 / 255)
    quantizer.moving = True
    quantizer.train()(torch.tensor([0.0, 14.0]))
    assert quantizer.scale.item() == pytest.approx((0.99 * 4 + 0.01 * 14) / 255)
    quantizer.eval()(torch.tensor([0.0, 99.0]))
    quantizer.moving = False
    quantizer.train()(torch.tensor([0.0, 99.0]))
    assert quantizer.scale.item() == pytest.approx(4.1 / 255)


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_the_float_model_is_untouched_and_the_quantized_one_close(kind: type[nn.Module]) -> None:
    network = make_network(kind)
    before = copy.deepcopy(network.state_dict())
    quantized = make_quantized(network, Scheme())
    calibrate(quantized, lambda index: IMAGES[index], len(IMAGES), Calibration())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with torch.no_grad():
        difference = (quantized(IMAGES) - network(IMAGES)).abs().max() / network(IMAGES).std()
    assert 0 < difference < 0.08  # 8 bits, a handful of layers


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_folding_keeps_the_outputs(kind: type[nn.Module]) -> None:
    network = make_network(kind)
    folded = fx.symbolic_trace(copy.deepcopy(network))
    fold_batch_norm(folded)
    with torch.no_grad():
        assert torch.allclose(folded(IMAGES), network(IMAGES), atol=1e-5)


def test_two_norms_in_a_row_are_both_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    network = make_network(Twice)
    folded = fx.symbolic_trace(copy.deepcopy(network))
    fold_batch_norm(folded)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        assert torch.allclose(folded(IMAGES), network(IMAGES), atol=1e-5)


def grid_of(quantized: fx.GraphModule, node: object) -> FakeQuantizeActivation | None:
    assert isinstance(node, fx.Node)
    module = quantized.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, FakeQuantizeActivation) else None


INTEGER_NAMES = ("add", "cat", "avg_pool", "mean", "leaky")


def computes_in_int8(quantized: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        kinds = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d, nn.AdaptiveAvgPool2d, nn.LeakyReLU)
        return isinstance(quantized.get_submodule(str(node.target)), kinds)
    is_plain = any(not isinstance(value, fx.Node) for value in node.args[:2]) and node.name.startswith("add")
    return node.op != "placeholder" and any(word in node.name for word in INTEGER_NAMES) and not is_plain


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_what_an_integer_operator_reads_is_quantized_once_and_the_output_never(kind: type[nn.Module]) -> None:
    quantized = make_quantized(make_network(kind), Scheme())
    for node in quantized.graph.nodes:
        if node.op == "output":
            assert grid_of(quantized, node.args[0]) is None
        elif grid_of(quantized, node) is not None:
            assert grid_of(quantized, node.args[0]) is None  # never twice in a row
        elif computes_in_int8(quantized, node):
            inputs = [value for value in node.all_input_nodes if value.op != "get_attr"]
            assert [value.name for value in inputs if grid_of(quantized, value) is None] == [], node.format_node()


def test_a_grid_that_is_only_moved_is_shared_and_observed_once() -> None:
    quantized = calibrated(Shuffle)
    targets = [str(node.target) for node in quantized.graph.nodes if node.op == "call_module"]
    assert targets.count("quantize_stem_2") == 2  # behind the ReLU, and the half that a convolution reads
    quantized.train()
    grids = activation_quantizers(quantized)
    before = grids["quantize_stem_2"].high.item()
    for grid in grids.values():
        grid.moving = True
    quantized(10 * IMAGES)
    stem = quantized.eval().get_submodule("stem.0")
    seen = torch.relu(stem(grids["quantize_x"](10 * IMAGES))).max().item()
    assert grids["quantize_stem_2"].high.item() == pytest.approx(0.99 * before + 0.01 * seen, rel=1e-3)


def test_a_layer_called_twice_has_one_weight_grid_and_two_outputs() -> None:
    quantized = calibrated(SharedTwice)
    weights = [module for module in quantized.modules() if isinstance(module, FakeQuantizeWeight)]
    assert len(weights) == 2  # the convolution and the linear layer
    assert {"quantize_conv", "quantize_conv_1"} <= activation_quantizers(quantized).keys()


def test_a_relu_is_absorbed_only_where_nobody_reads_before_it() -> None:
    names = activation_quantizers(calibrated(ReluReadTwice)).keys()
    assert {"quantize_stem", "quantize_relu"} <= names
    assert not any(
        grid.is_nonnegative
        for name, grid in activation_quantizers(calibrated(ReluReadTwice)).items()
        if name == "quantize_stem"
    )


def test_tensors_that_are_never_negative_have_unsigned_codes() -> None:
    grids = activation_quantizers(calibrated(SharedTwice))
    assert {name: grid.codes for name, grid in grids.items()} == {
        "quantize_x": (-128, 127),
        "quantize_conv": (-128, 127),
        "quantize_relu": (0, 255),
        "quantize_conv_1": (-128, 127),
        "quantize_relu_1": (0, 255),
        "quantize_adaptive_avg_pool2d": (0, 255),
    }


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(nonnegative="int8", weight_bits=4)], ids=str)
def test_a_restored_model_gives_identical_outputs(scheme: Scheme) -> None:
    trained = calibrated(Shuffle, scheme)
    loaded = make_quantized(make_network(Shuffle), scheme)
    loaded.load_state_dict({name: value.clone() for name, value in trained.state_dict().items()})
    restore_grids(loaded)
    assert torch.equal(loaded.eval()(IMAGES), trained(IMAGES))


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        if x.sum() > 0:
            x = -x
        return self.linear(x)


class _Counting(_Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[: len(x)].mean((2, 3)))


@pytest.mark.parametrize(("kind", "line"), [(_Branching, "if x.sum() > 0:"), (_Counting, "len(x)")])
def test_a_model_that_does_not_trace_is_named_by_line_with_the_way_out(kind: type[nn.Module], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_quantized(kind(), Scheme())
    message = str(caught.value)
    source, start = inspect.getsourcelines(kind.forward)
    number = start + next(offset for offset, text in enumerate(source) if line in text)
    assert f"{__file__}:{number}: " in message
    assert 'or deploy with precision = "fp32"' in message


def test_a_model_with_nothing_to_quantize_says_so() -> None:
    with pytest.raises(
        RecipeError, match=r'at least one convolution or linear layer .*; got none. Deploy it .* "fp32"'
    ):
        make_quantized(nn.Sequential(nn.BatchNorm2d(4), nn.Flatten()), Scheme())


def test_calibration_names_the_tensor_that_is_not_finite() -> None:
    network = make_network(SharedTwice)
    network.linear.bias.data[0] = float("nan")
    network.conv.bias.data[0] = float("inf")
    quantized = make_quantized(network, Scheme())
    with pytest.raises(DataError, match=r"calibration: conv: expected finite values; got 0 NaN and \d+ infinite"):
        calibrate(quantized, lambda index: IMAGES[index], 64, Calibration())


def test_a_forward_that_asserts_without_a_word_is_refused_with_its_line() -> None:
    class Asserts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not isinstance(x, Tensor):
                raise AssertionError
            return self.conv(x).mean((2, 3))

    with pytest.raises(
        RecipeError, match=r"expected a forward that can be traced; .*test_quantized_model.py:\d+: Asser"
    ):
        make_quantized(Asserts(), Scheme())
