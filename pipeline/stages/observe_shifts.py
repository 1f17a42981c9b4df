"""Stage: completes ranges by what rounding to them adds to the mean of each convolution's output."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import BiasShift, OnnxFile, Ranges
from pipeline.export.correct_bias import correctable, find_grids, mean_shift
from pipeline.export.observed import limits_of
from pipeline.export.place_onnx import quantize_graph
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

STAGE_VERSION = 1
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")

MOST_SAMPLES = 16
"""Means settle sooner than extremes."""


def observe_shifts(
    out_dir: Path,
    prepared: OnnxFile,
    feeds: Feeds,
    ranges: Ranges,
    scheme: Scheme,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> Ranges:
    """Compare the mean input of every convolution with the mean of the same on its grid.

    Args:
        out_dir: stays empty.
        prepared: the float model that ranges are of.
        feeds: samples; the first few are enough.
        ranges: from `observe_ranges`.
        scheme: the grid.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a sample is broken.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    proto = onnx.load(str(prepared.path))
    placed = ir.from_proto(proto)
    quantize_graph(placed.graph, limits_of(ranges), scheme)
    grids, model = find_grids(placed.graph), ir.from_proto(onnx.load(str(prepared.path)))
    inputs = correctable(model.graph, grids)
    names = tuple(dict.fromkeys(inputs.values()))
    few = feeds.take(range(min(MOST_SAMPLES, len(feeds))))
    means = dict.fromkeys(names, np.zeros(()))
    rounded = dict.fromkeys(names, np.zeros(()))
    for done, tensors in enumerate(run_tapped(evaluator, few)(proto, names), start=1):
        for name in names:
            means[name] = means[name] + _mean(tensors[name]) / len(few)
            rounded[name] = rounded[name] + _mean(grids[name].round(tensors[name])) / len(few)
        on_progress(done, len(few))
    nodes = {str(node.name): node for node in model.graph}
    shifts = (
        BiasShift(layer, tuple(mean_shift(nodes[layer], means[name], rounded[name], scheme.weight_bits).tolist()))
        for layer, name in inputs.items()
    )
    return replace(ranges, bias_shifts=tuple(shifts))


def _mean(values: np.ndarray) -> np.ndarray:
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    result: np.ndarray = values.mean(axis=others, dtype=np.float64)
    return result
