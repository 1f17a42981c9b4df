"""Which layers a search tries together: kinds of operators, what surrounds a float operator, blocks, single layers.

Rule: every unit is a guess that costs one measurement; the search keeps what pays.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from pipeline.export.place_onnx import quantizable_layers

MOST_UNITS = 66
"""Six comparisons of eleven."""
WINDOWS = (4, 8)
"""Into how many stretches the order of execution is cut, where names show no blocks."""
SINGLE_LAYERS = 40
"""Up to how many layers each is tried alone."""

Unit = frozenset[str]


def units_of(graph: ir.Graph) -> tuple[Unit, ...]:
    """Return sets of layers of a prepared graph, larger ideas first; never all of them, never none, none twice."""
    layers = quantizable_layers(graph)
    everything = frozenset(layers)
    ideas = (*_by_kind(graph, everything), *_around_floats(graph, everything), *_by_block(layers), *_singles(layers))
    sensible = (unit for unit in ideas if unit and unit != everything)
    return tuple(dict.fromkeys(sensible))[:MOST_UNITS]


def _by_kind(graph: ir.Graph, layers: Unit) -> Iterator[Unit]:
    kinds: dict[str, set[str]] = defaultdict(set)
    for node in graph:
        if node.name in layers:
            kinds[_kind(node)].add(str(node.name))
    yield from map(frozenset, kinds.values())
    light = (names for kind, names in kinds.items() if kind not in ("Conv", "Conv depthwise", "Gemm", "MatMul"))
    yield frozenset().union(*light)


def _kind(node: ir.Node) -> str:
    group = node.attributes.get("group")
    return f"{node.op_type} depthwise" if group is not None and group.as_int() > 1 else node.op_type


def _around_floats(graph: ir.Graph, layers: Unit) -> Iterator[Unit]:
    """Yield, for each kind of operator that stays float anyway, the layers that it reads from and feeds."""
    around: dict[str, set[str]] = defaultdict(set)
    for node in graph:
        if node.name in layers:
            continue
        before = (value.producer() for value in node.inputs if value is not None)
        after = (reader for value in node.outputs for reader, _ in value.uses())
        names = {str(near.name) for near in (*before, *after) if near is not None} & layers
        around[node.op_type] |= names
    yield from map(frozenset, around.values())


def _by_block(layers: tuple[str, ...]) -> Iterator[Unit]:
    blocks: dict[str, set[str]] = defaultdict(set)
    for layer in layers:
        for cut in re.finditer(r"[./]", layer):
            blocks[layer[: cut.start()]].add(layer)
    found = [frozenset(names) for prefix, names in blocks.items() if prefix and len(names) > 1]
    yield from sorted(found, key=len, reverse=True)
    if len(set(found)) < max(WINDOWS):
        for count in WINDOWS:
            size = -(-len(layers) // count)
            yield from (frozenset(layers[start : start + size]) for start in range(0, len(layers), size))


def _singles(layers: tuple[str, ...]) -> Iterator[Unit]:
    if len(layers) <= SINGLE_LAYERS:
        yield from (frozenset({layer}) for layer in layers)
