"""Quantizes a float graph by what was observed of it. Rule: the one way from the artifact of ranges to a graph."""

import numpy as np
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import Ranges
from pipeline.export.correct_bias import shift_biases
from pipeline.export.place_onnx import Range, quantizable_layers, quantize_graph


def quantize_observed(
    graph: ir.Graph, ranges: Ranges, scheme: Scheme, *, float_layers: frozenset[str] = frozenset()
) -> None:
    """Put the trained grid into a prepared graph, in place, and correct the biases of what computes on it.

    Args:
        graph: float, from `prepare`.
        ranges: of its tensors.
        scheme: the grid.
        float_layers: names of nodes that stay in float, or prefixes of them that end before "." or "/".

    Raises:
        RecipeError: nothing can be quantized, or a range or weight is not finite.
    """
    layers = set(quantizable_layers(graph, float_layers))
    shifts = {shift.layer: np.array(shift.values) for shift in ranges.bias_shifts if shift.layer in layers}
    shift_biases(graph, shifts)
    quantize_graph(graph, limits_of(ranges), scheme, float_layers=float_layers)


def limits_of(ranges: Ranges) -> dict[str, Range]:
    """Return the range of each tensor by its name."""
    return {tensor.name: Range(tensor.low, tensor.high) for tensor in ranges.tensors}
