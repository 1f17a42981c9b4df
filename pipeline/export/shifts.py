"""Completes ranges by what rounding to them adds to the mean of each convolution's output, seen on samples.

Rule: runs the float model alone; what a shift is, and how it is taken off, is `correct_bias`'s.
"""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import BiasShift, Ranges
from pipeline.export.correct_bias import correctable, find_grids, mean_shift
from pipeline.export.observed import limits_of
from pipeline.export.place_onnx import quantize_graph
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

MOST_SAMPLES = 16
"""Means settle sooner than extremes."""


def add_shifts(
    prepared: onnx.ModelProto,
    feeds: Feeds,
    ranges: Ranges,
    scheme: Scheme,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> Ranges:
    """Return `ranges` with the difference of each convolution's mean output on its grids from that in float.

    Args:
        prepared: the float model that ranges are of.
        feeds: samples; the first few are enough.
        ranges: of its tensors.
        scheme: the grid.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a sample is broken.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    placed = ir.from_proto(prepared)
    quantize_graph(placed.graph, limits_of(ranges), scheme)
    grids, graph = find_grids(placed.graph), ir.from_proto(prepared).graph
    inputs = correctable(graph, grids)
    names = tuple(dict.fromkeys(inputs.values()))
    few = feeds.take(range(min(MOST_SAMPLES, len(feeds))))
    means = dict.fromkeys(names, np.zeros(()))
    rounded = dict.fromkeys(names, np.zeros(()))
    for done, tensors in enumerate(run_tapped(evaluator, few)(prepared, names), start=1):
        for name in names:
            means[name] = means[name] + _mean(tensors[name]) / len(few)
            rounded[name] = rounded[name] + _mean(grids[name].round(tensors[name])) / len(few)
        on_progress(done, len(few))
    nodes = {str(node.name): node for node in graph}
    shifts = (
        BiasShift(layer, tuple(mean_shift(nodes[layer], means[name], rounded[name], scheme.weight_bits).tolist()))
        for layer, name in inputs.items()
    )
    return replace(ranges, bias_shifts=tuple(shifts))


def _mean(values: np.ndarray) -> np.ndarray:
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    result: np.ndarray = values.mean(axis=others, dtype=np.float64)
    return result
