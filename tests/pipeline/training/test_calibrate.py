"""Calibration in torch: NumPy's observers see what passes each quantizer, for the images that were chosen."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_networks import MaxPoolFlatten, make_images, make_network
from torch import Tensor, nn

from calibration.observations import Observations
from calibration.ranges import AnyRange, Entropy, MeanSquaredError, MinMax, MovingAverage, Percentile
from calibration.scheme import Scheme
from pipeline.errors import DataError
from pipeline.training.calibrate import Calibration, calibrate, observe_activations
from pipeline.training.fake_quantize import activation_quantizers
from pipeline.training.quantized_model import make_quantized

IMAGES = make_images(200)
METHODS = [MinMax(), MovingAverage(), Percentile(percentile=99), Entropy(), MeanSquaredError()]


class OneConvolution(nn.Module):
    """Quantized at its input and behind its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).relu().mean((2, 3)))


def batch(index: Tensor) -> Tensor:
    return IMAGES[index]


def calibrated(calibration: Calibration, labels: np.ndarray | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = make_quantized(OneConvolution(), Scheme())
    calibrate(network, batch, len(IMAGES), calibration, labels)
    return network


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_a_grid_is_what_the_method_says_of_the_input(method: AnyRange) -> None:
    network = calibrated(Calibration(method=method, samples=130, choice="first"))
    observer = method.start(255)
    for part in torch.split(IMAGES[:130], 64):
        observer.observe(part.numpy())
    quantizer = activation_quantizers(network)["quantize_x"]
    assert (quantizer.low.item(), quantizer.high.item()) == pytest.approx(observer.range(), rel=1e-6)
    assert quantizer.scale.item() == pytest.approx(max(np.abs(observer.range())) / 127, rel=1e-6)
    assert quantizer.quantizing


def test_what_was_never_negative_has_the_codes_of_its_scheme() -> None:
    quantizers = activation_quantizers(calibrated(Calibration(method=MeanSquaredError())))
    assert [quantizer.codes for quantizer in quantizers.values()][:2] == [(-128, 127), (0, 255)]


def test_a_tensor_that_is_only_moved_counts_once() -> None:
    """The quantizer behind the ReLU is called again behind max pooling and flattening, which keep its grid."""
    network = make_quantized(make_network(MaxPoolFlatten), Scheme())
    shapes: dict[str, list[tuple[int, ...]]] = defaultdict(list)

    class Recorded(Observations):
        def observe(self, name: str, values: np.ndarray, channel_axis: int = 1) -> None:
            shapes[name].append(values.shape)

    observe_activations(network, batch, torch.arange(8), Recorded(MinMax(), 255))
    assert {f"quantize_{name}" for name in shapes} == set(activation_quantizers(network))
    assert all(len(seen) == 1 for seen in shapes.values())
    assert not any(quantizer._forward_pre_hooks for quantizer in activation_quantizers(network).values())


def test_samples_are_balanced_by_the_labels_and_diverse_by_the_students_logits() -> None:
    labels = np.array([0] * 199 + [1])
    IMAGES[199] += 50  # the only one of its class, and the farthest from all others
    try:
        for calibration in (Calibration(samples=2, choice="balanced"), Calibration(samples=2, choice="diverse")):
            quantizer = activation_quantizers(calibrated(calibration, labels))["quantize_x"]
            assert quantizer.high > 40
    finally:
        IMAGES[199] -= 50
    with pytest.raises(DataError, match=r"calibration\.choice: balanced: expected labels for 200 images; got none"):
        calibrated(Calibration(choice="balanced"))


def test_the_first_tensor_that_is_not_finite_is_named_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = OneConvolution()
    network.conv.bias.data[0] = float("inf")
    network.linear.bias.data[0] = float("nan")
    with pytest.raises(
        DataError, match=r"calibration: relu: expected finite values; got 0 NaN and \d+ infinite .*norm"
    ):
        calibrate(make_quantized(network, Scheme()), batch, 64, Calibration())
    assert capsys.readouterr() == ("", "")


def test_a_recipe_names_the_method_and_its_settings_are_checked() -> None:
    table = '{"method": {"kind": "percentile", "percentile": 99.9}, "samples": 64, "choice": "diverse", "seed": 3}'
    assert Calibration.model_validate_json(table).method == Percentile(percentile=99.9)
    for wrong, words in (
        ('{"kind": "percentile", "percentile": 5}', "percent above 50, at most 100; got 5"),
        ('{"kind": "entropy", "bins": 1000}', "a power of two from 1024; got 1000"),
        ('{"kind": "moving_average", "momentum": 1.0}', "from 0 to below 1; got 1.0"),
        ('{"kind": "min_max", "bins": 4}', "bins"),
    ):
        with pytest.raises(ValidationError, match=words):
            Calibration.model_validate_json(f'{{"method": {wrong}}}')
