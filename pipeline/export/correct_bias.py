"""What rounding a convolution's weights and input adds to the mean of its output, to be taken off its bias.

Rule: each convolution is corrected for its own rounding alone, by the means of its float input, so that corrections do
not add up along the model (Nagel et al. 2019, arXiv 1906.04721, section 4.2: E[y'] - E[y] = e E[x], with e the error of
the weights; here E[x] is observed, not derived, and the rounding of x counts too).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.affine import dequantize, quantize, scale_of_channels
from pipeline.export.operators import constant


@dataclass(frozen=True)
class Grid:
    """The trained grid of a tensor."""

    scale: float
    zero_point: int
    dtype: str

    def round(self, values: np.ndarray) -> np.ndarray:
        """Return values on the grid."""
        scale = np.array(self.scale, np.float32)
        return dequantize(quantize(values, scale, self.zero_point, self.dtype), scale, self.zero_point)


def find_grids(placed: ir.Graph) -> dict[str, Grid]:
    """Return the grid of each activation in a graph from `quantize_graph`, by the name of the tensor."""
    found = {}
    for node in placed:
        if node.op_type != "QuantizeLinear" or constant(node.inputs[0]) is not None:
            continue
        scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
        assert node.inputs[0] is not None
        assert scale is not None
        assert zero_point is not None
        found[str(node.inputs[0].name)] = Grid(float(scale), int(zero_point), zero_point.dtype.name)
    return found


def correctable(graph: ir.Graph, grids: Mapping[str, Grid]) -> dict[str, str]:
    """Return the name of the input of each convolution, by its own name, that has a bias and reads a grid."""
    return {
        str(node.name): str(node.inputs[0].name)
        for node in graph
        if node.op_type == "Conv" and len(node.inputs) > 2 and constant(node.inputs[1]) is not None
        if _bias_alone(node) is not None and node.inputs[0] is not None and node.inputs[0].name in grids
    }


def mean_shift(node: ir.Node, mean: np.ndarray, rounded_mean: np.ndarray, weight_bits: int) -> np.ndarray:
    """Return float64[output channels]: what rounding adds to the mean of a convolution's output.

    Args:
        node: the convolution, in float.
        mean: of each channel of its input, over samples and places; edges are taken as the rest.
        rounded_mean: the same of the input on its grid.
        weight_bits: of the weights' grid.
    """
    weights = constant(node.inputs[1])
    assert weights is not None
    scale = scale_of_channels(weights, 0, weight_bits).reshape(-1, *[1] * (weights.ndim - 1))
    rounded = dequantize(quantize(weights, scale, 0, "int8"), scale, 0)
    shift: np.ndarray = _mean_output(node, rounded, rounded_mean) - _mean_output(node, weights, mean)
    return shift


def shift_biases(graph: ir.Graph, shifts: Mapping[str, np.ndarray]) -> None:
    """Take shifts off the biases of convolutions, by name, in place; others keep theirs."""
    for node in graph:
        if node.name is not None and node.name in shifts:
            value = _bias_alone(node)
            assert value is not None
            bias = constant(value)
            assert bias is not None
            value.const_value = ir.tensor((bias - shifts[node.name]).astype(np.float32), name=value.name)


def _bias_alone(node: ir.Node) -> ir.Value | None:
    """Return the constant bias that no other node reads."""
    value = node.inputs[2]
    return value if value is not None and constant(value) is not None and len(value.uses()) == 1 else None


def _mean_output(node: ir.Node, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    sums_OI = weights.astype(np.float64).reshape(*weights.shape[:2], -1).sum(axis=2)
    groups = node.attributes.get_int("group", 1)
    means = np.repeat(mean.reshape(groups, -1), len(weights) // groups, axis=0)
    result: np.ndarray = (sums_OI * means).sum(axis=1)
    return result
