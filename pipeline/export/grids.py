"""What two forms of one model can be compared on: its grids, and how far tensors part in steps of them.

Legend: N samples, C channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.artifacts import Bisection, Divergence

BUDGET_LSB = 1.0
"""Two roundings of one value differ by 0.41 LSB in the mean square if they are independent: sqrt(1/12 + 1/12)."""
STEPS = 127
"""Of the largest size of a tensor that has no grid of its own, for which so many steps stand."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Tap:
    """A tensor that forms of a model are compared on: codes of a grid, or values where there is none."""

    node: str
    """Name of the node that writes it: a QuantizeLinear where it is codes."""
    tensor: str
    step: float | None = None
    """The scale of its codes; None for values, whose step is their largest size / 127."""
    zero_point: int = 0

    def values(self, array: np.ndarray) -> np.ndarray:
        """Return real values, float64, of what a runtime gave for the tensor."""
        codes: np.ndarray = array.astype(np.float64)
        return codes if self.step is None else (codes - self.zero_point) * self.step


def find_taps(model: onnx.ModelProto) -> tuple[Tap, ...]:
    """Return the codes of every per-tensor activation grid, as their readers understand them, in order of execution.

    A model without any gives the outputs of its weighted operators.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.input[0]: node for node in reversed(graph.node) if node.op_type == "DequantizeLinear"}
    taps = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        grid = [constants.get(name) for name in readers.get(node.output[0], node).input[1:3]]
        if not grid or any(tensor is None or math.prod(tensor.dims) != 1 for tensor in grid):
            continue  # dynamic, or a scale for each channel
        scale, *zero_point = (numpy_helper.to_array(tensor).item() for tensor in grid if tensor is not None)
        taps.append(Tap(node.name, node.output[0], float(scale), int(next(iter(zero_point), 0))))
    floats = [Tap(node.name, node.output[0]) for node in graph.node if node.op_type in WEIGHTED]
    return tuple(taps or floats)


def diverge(tensor: str, expected: np.ndarray, found: np.ndarray, step: float | None = None) -> Divergence:
    """Compare real values [N, C, ...] in steps of their grid; the worst channel counts.

    Args:
        tensor: what the result is about.
        expected: values in the form that is the truth.
        found: the same tensor in the other form.
        step: the scale of the grid; None for the largest size of `expected` / 127.
    """
    difference = found.astype(np.float64) - expected
    largest = float(np.abs(difference).max(initial=0.0))
    unit = step or float(np.abs(expected).max(initial=0.0)) / STEPS or 1.0
    others = tuple(axis for axis in range(difference.ndim) if axis != 1)
    lsb = float(np.sqrt(np.square(difference / unit).mean(axis=others)).max(initial=0.0))
    is_finite = math.isfinite(lsb)
    return Divergence(tensor, lsb if is_finite else math.inf, largest if is_finite else math.inf, BUDGET_LSB)


def bisect(hop: str, found: Sequence[Divergence], *, num_samples: int, note: str) -> Bisection | None:
    """Return the first tensor beyond its budget and the largest; None where nothing could be compared."""
    if not found:
        return None
    return Bisection(
        hop=hop,
        first=next((each for each in found if each.lsb > each.budget_lsb), None),
        largest=max(found, key=lambda each: each.lsb / each.budget_lsb),
        num_tensors=len(found),
        num_samples=num_samples,
        note=note,
    )


def compare_taps(
    taps: Sequence[Tap], expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> list[Divergence]:
    """Compare what two runtimes gave for the same tensors."""
    return [
        diverge(tap.node or tap.tensor, tap.values(expected[tap.tensor]), tap.values(found[tap.tensor]), tap.step)
        for tap in taps
    ]
