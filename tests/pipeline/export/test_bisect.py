"""Where a quantized model parts from its float one, and running models with taps."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import SIZE, two_convolutions

from pipeline.errors import DataError
from pipeline.export.bisect import compare_tensors, find_divergence
from pipeline.export.input_check import check_input
from pipeline.export.tapped import Evaluator, run_tapped
from targets import Null
from targets.target import Arrays

EVALUATOR = Evaluator(Null(), "any")


@dataclass(frozen=True)
class Noise:
    """Seeded images of a mean and a standard deviation."""

    mean: float = 0.0
    std: float = 1.0

    def __len__(self) -> int:
        return 3

    def sample(self, index: int) -> Arrays:
        random = np.random.default_rng(index)
        return {"image": random.normal(self.mean, self.std, (1, 3, SIZE, SIZE)).astype(np.float32)}


def damaged(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy in which one tensor of weights is four times as large."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(tensor), name))
    return copy


def test_the_first_tensor_that_parts_is_behind_the_layer_that_is_damaged():
    model = two_convolutions()
    found = find_divergence(model, damaged(model, "second.weight"), run_tapped(EVALUATOR, Noise()))
    assert [tensor.node for tensor in found] == ["second", "second_relu", "pool", "flatten"]
    assert found[0].op_type == "Conv"


def test_equal_models_do_not_part():
    model = two_convolutions()
    assert find_divergence(model, model, run_tapped(EVALUATOR, Noise())) == ()
    assert {tensor.snr_db for tensor in compare_tensors(model, model, run_tapped(EVALUATOR, Noise()))} == {np.inf}


def test_a_quantized_tensor_is_compared_as_its_readers_see_it():
    model = two_convolutions()
    coarse = onnx.ModelProto()
    coarse.CopyFrom(model)
    grid = [numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    coarse.graph.initializer.extend(grid)
    position = [node.name for node in coarse.graph.node].index("second")
    coarse.graph.node[position].input[0] = "b.dequantized"
    for number, (kind, source, result) in enumerate(
        [("QuantizeLinear", "b", "b.codes"), ("DequantizeLinear", "b.codes", "b.dequantized")]
    ):
        coarse.graph.node.insert(position + number, onnx.helper.make_node(kind, [source, "scale", "zero"], [result]))
    tensors = {t.tensor: t for t in compare_tensors(model, coarse, run_tapped(EVALUATOR, Noise()))}
    assert tensors["a"].snr_db == np.inf
    assert 0.2 < tensors["b"].max_abs_diff <= 0.25  # half of the grid's step


def test_a_batch_that_is_fixed_gets_its_sample_repeated():
    run = run_tapped(EVALUATOR, Noise())
    shapes = [
        {name: array.shape for name, array in tensors.items()}
        for tensors in run(two_convolutions(batch=2), ["image", "e"])
    ]
    assert shapes == [{"image": (2, 3, SIZE, SIZE), "e": (2, 3, 1, 1)}] * 3
    with pytest.raises(DataError, match="expected the name of a tensor of the model"):
        next(run(two_convolutions(), ["nowhere"]))


def test_samples_unlike_the_training_data_are_told_by_the_first_batch_normalization():
    model = two_convolutions(normalized=True)
    assert check_input(model, run_tapped(EVALUATOR, Noise(std=0.5))) is None
    warning = check_input(model, run_tapped(EVALUATOR, Noise(std=100)))
    assert warning is not None
    assert "do not look as the training data did" in warning
    assert "'norm'" in warning
    assert check_input(two_convolutions(), run_tapped(EVALUATOR, Noise(std=100))) is None  # nothing in it tells
