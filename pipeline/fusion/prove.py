"""From executed layers and the ONNX file to the fusion proof. Rule: reads what was inspected; runs nothing."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from pipeline.artifacts import Conversion, FloatIsland, FusionProof
from pipeline.fusion.causes import explain_end, explain_inside
from pipeline.fusion.file_graph import FileGraph, read_graph
from pipeline.fusion.slow_spots import find_slow_spots
from targets.target import Layer, Target

FLOATS = ("fp64", "fp32", "bf16", "fp16")
MOVES = (
    "Transpose",
    "Reshape",
    "Reorder",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "StridedSlice",
    "Split",
    "Cast",
    "Shuffle",
    "Reformat",
)
"""Executed operators that compute nothing: codes that only pass through them make no int8 operator's neighbourhood."""
INPUT, WEIGHT, OUTPUT = "the input", "a weight", "the output"


def prove_fusion(
    layers: Sequence[Layer], model: Path, target: Target, *, plan: Collection[str] = frozenset()
) -> FusionProof:
    """Tell what of a compiled model runs in int8, which Q/DQ are left over, and why float islands are float.

    Args:
        layers: what the target's `inspect` listed, in the order of execution.
        model: the ONNX file that was compiled; its weights are not read.
        target: whose layers they are; declares the causes.
        plan: names that a plan of mixed precision keeps off the static grid.
    """
    executed = _Executed(
        {layer.name: layer for layer in layers}, read_graph(onnx.load(model, load_external_data=False))
    )
    is_quantized = any(map(executed.is_int8, executed.layers)) or bool(executed.conversions)
    islands = [_explain(executed, island, target, plan) for island in executed.islands if is_quantized]
    known = [island for island in islands if island.is_inside or island.nodes]
    ashore = {name for island in executed.islands for name in executed.shores(island)}
    strays = list(filter(None, (_conversion(executed, name) for name in executed.conversions if name not in ashore)))
    operators = {name: list(map(executed.file.operator, nodes)) for name, nodes in executed.nodes.items()}
    int8 = [layer.name for layer in layers if executed.is_int8(layer.name)]
    floats = [layer.name for layer in layers if executed.is_float(layer.name)]
    return FusionProof(
        runtime=target.kind,
        num_operators=len(layers),
        int8_operators=len(int8),
        float_operators=len(floats),
        conversions=len(executed.conversions),
        int8_time_share=executed.time_share(int8),
        float_time_share=executed.time_share(floats),
        conversion_time_share=executed.time_share(executed.conversions),
        strays=tuple(sorted(strays, key=lambda stray: -(stray.time_share or 0.0))),
        islands=tuple(sorted(known, key=lambda island: (not island.is_inside, -(island.time_share or 0.0)))),
        has_edges=any(layer.reads for layer in layers),
        slow_spots=find_slow_spots(layers, operators, islands, strays) if is_quantized else (),
    )


@dataclass(frozen=True)
class _Executed:
    """The executed graph beside the file that it came from."""

    layers: Mapping[str, Layer]
    file: FileGraph

    @cached_property
    def readers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self.layers}
        for layer in self.layers.values():
            for name in layer.reads:
                found[name].append(layer.name)
        return found

    @cached_property
    def nodes(self) -> dict[str, tuple[str, ...]]:
        """The file's nodes that each layer says it computes."""
        sources = {name: map(self.file.find, layer.sources) for name, layer in self.layers.items()}
        return {name: tuple(node for node in found if node is not None) for name, found in sources.items()}

    @cached_property
    def conversions(self) -> list[str]:
        """Layers that only quantize or dequantize, in order."""
        return [name for name, layer in self.layers.items() if layer.is_conversion or self._is_grids_alone(name)]

    @cached_property
    def islands(self) -> list[list[str]]:
        """Connected sets of float layers, each in order."""
        left, found = [name for name in self.layers if self.is_float(name)], []
        while left:
            island, waiting = set[str](), [left[0]]
            while waiting:
                name = waiting.pop()
                if name not in island:
                    island.add(name)
                    waiting += [near for near in self.neighbours(name) if self.is_float(near)]
            found.append([name for name in left if name in island])
            left = [name for name in left if name not in island]
        return found

    @cached_property
    def behind_int8(self) -> set[str]:
        """Layers that read, directly or not, what an int8 operator computed."""
        return self._reached(self.readers)

    @cached_property
    def before_int8(self) -> set[str]:
        """Layers whose results an int8 operator reads, directly or not."""
        return self._reached({name: list(layer.reads) for name, layer in self.layers.items()})

    def _is_grids_alone(self, name: str) -> bool:
        nodes, sources = self.nodes[name], self.layers[name].sources
        is_grids = bool(sources) and len(nodes) == len(sources) and all(map(self.file.is_grid, nodes))
        return is_grids and all(map(self.file.is_grid, self.between([name])))

    def between(self, names: Sequence[str]) -> set[str]:
        """Return the file's nodes that lie between the layers around `names` and that no layer elsewhere names."""
        inside = {node for name in names for node in self.nodes[name]}
        edges = [near for name in names for near in self.layers[name].reads if near not in names]
        before = {node for near in edges for node in self.nodes[near]}
        ends = [near for name in names for near in self.readers[name] if near not in names]
        behind = {node for near in ends for node in self.nodes[near]}
        elsewhere = {node for name, nodes in self.nodes.items() if name not in names for node in nodes}
        found = self.file.between(before - inside, behind - inside) - elsewhere
        return {node for node in found if self.file.dynamic_product(node) not in elsewhere}

    def is_int8(self, name: str) -> bool:
        return self.layers[name].precision == "int8" and name not in self.conversions

    def is_float(self, name: str) -> bool:
        return self.layers[name].precision in FLOATS and name not in self.conversions

    def neighbours(self, name: str) -> list[str]:
        return [*self.layers[name].reads, *self.readers[name]]

    def shores(self, island: Sequence[str]) -> list[str]:
        """Return the conversions that an island reads, or that read it."""
        near = {near for name in island for near in self.neighbours(name)}
        return [name for name in self.conversions if name in near]

    def time_share(self, names: Iterable[str]) -> float | None:
        """Return the part of the counted time that layers take, or None where none is counted."""
        total = math.fsum(layer.time_ms or 0.0 for layer in self.layers.values())
        return math.fsum(self.layers[name].time_ms or 0.0 for name in names) / total if total else None

    def _reached(self, edges: Mapping[str, Sequence[str]]) -> set[str]:
        starts = [name for name in self.layers if self.is_int8(name) and self.layers[name].op_type not in MOVES]
        found: set[str] = set()
        waiting = [near for name in starts for near in edges[name]]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += edges[name]
        return found


def _explain(executed: _Executed, island: Sequence[str], target: Target, plan: Collection[str]) -> FloatIsland:
    is_behind = any(name in executed.behind_int8 for name in island)
    is_before = any(name in executed.before_int8 for name in island)
    nodes, shores = _nodes_of(executed, island), executed.shores(island)
    operators = tuple(map(executed.file.operator, nodes)) or tuple(executed.layers[name].op_type for name in island)
    if is_behind == is_before:  # inside, or in a file with Q/DQ of which nothing runs in int8
        words = explain_inside(executed.file, nodes, operators, causes=target.float_causes, plan=plan)
    else:
        words = explain_end(operators, is_first=is_before)
    return FloatIsland(
        subject=words.subject,
        reason=words.reason,
        remedy=words.remedy,
        is_inside=is_behind and is_before,
        operators=operators,
        nodes=nodes,
        layers=tuple(island),
        num_conversions=len(shores),
        time_share=executed.time_share([*island, *shores]),
    )


def _nodes_of(executed: _Executed, island: Sequence[str]) -> tuple[str, ...]:
    """Return the file's nodes in an island, in its order.

    A layer that names none, as those that a runtime makes of one operator's definition, stands for what lies between
    the layers around the island.
    """
    file = executed.file
    found = {node for name in island for node in executed.nodes[name] if not file.is_grid(node)}
    if any(len(executed.nodes[name]) < max(1, len(executed.layers[name].sources)) for name in island) or not found:
        found |= executed.between(island)
    return tuple(name for name in file.nodes if name in found and not file.is_grid(name))


def _conversion(executed: _Executed, name: str) -> Conversion | None:
    """Describe a conversion that no island explains; None at the graph's ends, where each model needs one."""
    layer = executed.layers[name]
    inputs = [executed.file.nodes[node].input[0] for node in executed.nodes[name]]
    is_of_weight = not layer.reads and any(map(executed.file.is_constant, inputs))
    is_end = name not in executed.behind_int8 or name not in executed.before_int8
    if is_end and not is_of_weight:
        return None
    readers = executed.readers[name]
    return Conversion(
        name=name,
        op_type=layer.op_type,
        before=WEIGHT if is_of_weight else (layer.reads[0] if layer.reads else INPUT),
        after=readers[0] if readers else OUTPUT,
        time_share=executed.time_share([name]),
    )
