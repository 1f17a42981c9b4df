"""Place a trained grid in a float ONNX graph: Q/DQ around what integer runtimes compute on codes.

Rule: who computes on codes is said by the rules in operators.py; what comes out is the trained grid, which `encode`
then re-writes for a target. The tensor `t` on its grid is called `t.dequantized`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.affine import grid_of_range, scale_of_channels, scale_of_range
from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.export.operators import (
    absorbed_input,
    bounds_behind,
    channel_axis,
    constant,
    is_kept,
    operands,
    rule_of,
)

SKEWED = 4
"""So much wider than the other is one side of zero of a range that asks for a grid of its own: half a bit or more."""
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Range:
    """The values that a tensor takes, as far as its grid must hold them."""

    low: float
    high: float


def observed_tensors(graph: ir.Graph, float_layers: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the names of the tensors whose ranges `quantize_graph` needs, in order of execution.

    The tensors of the empty plan are enough for every plan.
    """
    grids = _Placement(graph, float_layers).grids
    return tuple(dict.fromkeys(str(owner.name) for owner in grids.values()))


def quantizable_layers(graph: ir.Graph, float_layers: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the names of the nodes that compute on codes, but for what a plan keeps float, in order of execution."""
    integers = _Placement(graph, float_layers).integers
    return tuple(str(node.name) for node in graph if node in integers)


def quantize_graph(
    graph: ir.Graph, ranges: Mapping[str, Range], scheme: Scheme, *, float_layers: frozenset[str] = frozenset()
) -> None:
    """Put the trained grid into a prepared graph, in place: weights per output channel, activations per tensor.

    An operator that is fused into the one before it (a ReLU, a bias) is one with it: either name keeps both in float.

    Args:
        graph: float, from `prepare`.
        ranges: by the names that `observed_tensors` gives.
        scheme: the grid.
        float_layers: names of nodes that stay in float, or prefixes of them that end before "." or "/".

    Raises:
        RecipeError: nothing can be quantized, or a range or weight is not finite.
    """
    if not quantizable_layers(graph):
        kinds = ", ".join(sorted({node.op_type for node in graph})) or "no operators"
        raise RecipeError(
            "model: expected at least one convolution or matrix product in float32, with constant weights, to "
            f'quantize; got {kinds}. Deploy it with precision = "fp32"'
        )
    placement = _Placement(graph, float_layers)
    writer = _Writer(graph, scheme)
    for value, owner in placement.grids.items():
        writer.round_activation(value, owner, _range_of(owner, ranges))
    for node in list(graph):
        if node in placement.integers:
            writer.round_constants(node)


class _Placement:
    """Who computes on codes in a graph, and which tensors therefore have a grid."""

    def __init__(self, graph: ir.Graph, float_layers: frozenset[str]) -> None:
        self._graph = graph
        self._kept = _find_kept(graph, float_layers)
        self.integers = self._find_integers()
        self._followers = self._find_followers()
        self._read = self._find_read()
        self._ending = self._find_ending()
        self.grids: dict[ir.Value, ir.Value] = {}
        """Of each tensor on a grid, the tensor whose range makes the grid: itself, or what moved to it."""
        for value in _activations(graph):
            owner = self._owner(value)
            if owner is not None:
                self.grids[value] = owner

    def _has_role(self, node: ir.Node, *roles: str) -> bool:
        rule = None if node in self._kept else rule_of(node)
        return rule is not None and rule.role in roles

    def _find_integers(self) -> set[ir.Node]:
        """Return every heavy node, and the light ones between what gives codes and a heavy one that wants them."""
        wanted: set[ir.Value] = set()
        for node in reversed(self._graph):
            is_wanted = any(value in wanted for value in node.outputs)
            if self._has_role(node, "heavy") or (is_wanted and self._has_role(node, "light", "moves", "absorbed")):
                wanted.update(_data(node))
        integers: set[ir.Node] = set()
        codes: set[ir.Value] = set()
        for node in self._graph:
            is_fed = any(value in codes or _is_fed_codes(value, node) for value in _data(node))
            is_wanted = any(value in wanted for value in node.outputs)
            if self._has_role(node, "heavy") or (is_fed and is_wanted and self._has_role(node, "light")):
                integers.add(node)
            if (node in integers and not _gives_floats(node)) or (is_fed and self._has_role(node, "moves", "absorbed")):
                codes.update(node.outputs)
        return integers

    def _find_followers(self) -> set[ir.Node]:
        """Return the nodes that are fused into an integer node before them."""
        followers: set[ir.Node] = set()
        for node in self._graph:
            if self._has_role(node, "absorbed"):
                source = absorbed_input(node)
                if source is not None and source.producer() in self.integers | followers:
                    followers.add(node)
        return followers

    def _find_read(self) -> set[ir.Value]:
        """Return the tensors that an integer node reads, itself or behind nodes that only move them."""
        read: set[ir.Value] = set()
        for node in reversed(self._graph):
            is_moved = self._has_role(node, "moves") and any(value in read for value in node.outputs)
            if is_moved or node in self.integers:
                read.update(_data(node))
        return read

    def _find_ending(self) -> set[ir.Value]:
        """Return the tensors that nobody but the graph's outputs reads, themselves or behind nodes that move them."""
        ending: set[ir.Value] = set()
        for node in reversed(self._graph):
            for value in node.outputs:
                readers = [reader for reader, _ in value.uses()]
                if all(self._has_role(r, "moves") and ending.issuperset(r.outputs) for r in readers):
                    ending.add(value)
        return ending

    def _owner(self, value: ir.Value) -> ir.Value | None:
        producer = value.producer()
        if producer is not None and self._has_role(producer, "moves") and producer.inputs[0] in self.grids:
            return self.grids[producer.inputs[0]] if value in self._read else None
        return value if value in self._read or self._must_give_codes(value) else None

    def _must_give_codes(self, value: ir.Value) -> bool:
        """Return whether an integer node is one only if what it gives, fused operators included, is codes too."""
        producer = value.producer()
        if producer is None or value in self._ending or any(reader in self._followers for reader, _ in value.uses()):
            return False
        while producer in self._followers:
            source = absorbed_input(producer)
            producer = None if source is None else source.producer()
            assert producer is not None
        return producer in self.integers and not _gives_floats(producer)


@dataclass
class _Writer:
    graph: ir.Graph
    scheme: Scheme

    def __post_init__(self) -> None:
        self._grids: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._constants: dict[tuple[ir.Value, int | None], ir.Value] = {}

    def round_activation(self, value: ir.Value, owner: ir.Value, limits: Range) -> None:
        """Put Q and DQ behind a tensor, before all its readers; the graph's outputs stay as they are."""
        if owner not in self._grids:
            self._grids[owner] = self._grid(str(owner.name), limits)
        readers = list(value.uses())
        rounded, pair = self._pair(value, self._grids[owner], axis=None)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], pair)
        else:
            self.graph.insert_after(producer, pair)
        for reader, position in readers:
            reader.replace_input_with(position, rounded)

    def round_constants(self, node: ir.Node) -> None:
        """Put Q and DQ behind the weights, and other constants, that a node computes with."""
        rule = rule_of(node)
        assert rule is not None
        for position, value in operands(node, rule):
            array = constant(value)
            if array is None:
                continue
            axis = channel_axis(node, position)
            if (value, axis) not in self._constants:
                if not np.isfinite(array).all():
                    raise RecipeError(f"model: {value.name}: expected finite weights; got NaN or infinity")
                rounded, pair = self._pair(value, self._grid_of_constant(value, array, axis), axis)
                self.graph.insert_before(self.graph[0], pair)
                self._constants[value, axis] = rounded
            node.replace_input_with(position, self._constants[value, axis])

    def _grid_of_constant(self, value: ir.Value, array: np.ndarray, axis: int | None) -> tuple[ir.Value, ir.Value]:
        if axis is None:
            return self._grid(str(value.name), Range(float(array.min(initial=0)), float(array.max(initial=0))))
        scale = scale_of_channels(array, axis, self.scheme.weight_bits)
        return self._initializers(f"{value.name}.axis_{axis}", scale, np.zeros(scale.shape, np.int8))

    def _grid(self, name: str, limits: Range) -> tuple[ir.Value, ir.Value]:
        low, high = limits.low, limits.high
        if FLOAT_MAX < max(abs(low), abs(high)) < np.inf:
            raise RecipeError(
                f"model: {name}: expected a range that float32 holds; got [{low}, {high}]. Look at the "
                "samples for what is not an image"
            )
        try:
            scale, zero_point = self._choose_grid(low, high)
        except ValueError as error:
            raise RecipeError(f"model: {name}: {error}. Look at the samples for NaN and infinity") from error
        return self._initializers(name, scale, zero_point)

    def _choose_grid(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        has_uint8 = self.scheme.nonnegative == "uint8" and low >= 0
        if not has_uint8 and self._is_asymmetric(low, high):
            exact, center = grid_of_range(low, high)
            return np.array(exact, np.float32), np.array(center, np.uint8)
        steps, largest = (255, high) if has_uint8 else (127, max(abs(low), abs(high)))
        scale = np.float32(scale_of_range(low, high, nonnegative=has_uint8))
        if float(scale) * steps > largest:
            scale = np.nextafter(scale, np.float32(0))  # a Clip is absorbed only by a grid that lies inside it
        return np.array(scale), np.array(0, "uint8" if has_uint8 else "int8")

    def _is_asymmetric(self, low: float, high: float) -> bool:
        if self.scheme.signed == "skewed":
            return min(-low, high) * SKEWED <= max(-low, high)
        return self.scheme.signed == "asymmetric"

    def _initializers(self, name: str, scale: np.ndarray, zero_point: np.ndarray) -> tuple[ir.Value, ir.Value]:
        return self._initializer(f"{name}.scale", scale), self._initializer(f"{name}.zero_point", zero_point)

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        while name in self.graph.initializers:
            name += "_"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value

    def _pair(
        self, value: ir.Value, grid: tuple[ir.Value, ir.Value], axis: int | None
    ) -> tuple[ir.Value, list[ir.Node]]:
        attributes = {} if axis is None else {"axis": axis}
        suffix = "" if axis is None else f".axis_{axis}"
        quantize = ir.node("QuantizeLinear", [value, *grid], attributes, name=f"quantize_{value.name}{suffix}")
        quantize.outputs[0].name = f"{value.name}{suffix}.quantized"
        dequantize = ir.node(
            "DequantizeLinear", [quantize.outputs[0], *grid], attributes, name=f"dequantize_{value.name}{suffix}"
        )
        dequantize.outputs[0].name = f"{value.name}{suffix}.dequantized"
        dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
        return dequantize.outputs[0], [quantize, dequantize]


def _range_of(value: ir.Value, ranges: Mapping[str, Range]) -> Range:
    """Return the range of a tensor, within what the operator fused before it can give."""
    source = value
    while str(source.name) not in ranges:  # what a plan keeps in float moves the values of another tensor
        producer = source.producer()
        rule = None if producer is None else rule_of(producer)
        if producer is None or rule is None or rule.role != "moves" or producer.inputs[0] is None:
            raise ValueError(f"ranges: expected one of {value.name}, as observed_tensors says; got none")
        source = producer.inputs[0]
    limits, producer = ranges[str(source.name)], value.producer()
    low, high = (-np.inf, np.inf) if producer is None else bounds_behind(producer)
    return Range(float(np.clip(limits.low, low, high)), float(np.clip(limits.high, low, high)))


def _find_kept(graph: ir.Graph, float_layers: frozenset[str]) -> set[ir.Node]:
    kept: set[ir.Node] = set()
    for node in reversed(graph):
        if node not in kept and not is_kept(node, float_layers):
            continue
        kept.add(node)
        rule = rule_of(node)
        source = absorbed_input(node) if rule is not None and rule.role == "absorbed" else None
        producer = None if source is None else source.producer()
        if producer is not None:
            kept.add(producer)
    return kept


def _gives_floats(node: ir.Node) -> bool:
    rule = rule_of(node)
    return rule is not None and rule.gives_floats


def _is_fed_codes(value: ir.Value, node: ir.Node) -> bool:
    """Return whether a caller's input can be rounded before a node; arithmetic that normalises it comes first."""
    return value.is_graph_input() and node.op_type not in ("Add", "Mul")


def _data(node: ir.Node) -> list[ir.Value]:
    """Return the tensors that a node computes with, where a rule says so."""
    rule = rule_of(node)
    if rule is None:
        return []
    return [value for _, value in operands(node, rule) if constant(value) is None]


def _activations(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what is computed or fed, in the order of execution."""
    yield from (value for value in graph.inputs if constant(value) is None)
    for node in graph:
        yield from node.outputs
