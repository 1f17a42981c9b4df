"""Where int8 loses its time: what runs beside int8 arithmetic, by cost, with what to move. Rule: runs nothing.

Four kinds: float islands, stray Q/DQ, reformats (an executed operator that only lays a tensor out anew), and operators
that runtimes usually fuse into the one before, but that were executed alone.
"""

import math
from collections.abc import Mapping, Sequence

from pipeline.artifacts import Conversion, FloatIsland, SlowSpot
from targets.target import Layer

REFORMATS = ("Reorder", "ReorderInput", "ReorderOutput", "Reformat", "Transpose")
"""Executed operators that change a tensor's layout or type, and no value, in the words of all runtimes."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "ConvInteger")
FUSABLE = {
    "BatchNormalization": "fold it into the layer before: train and export it in evaluation mode",
    "Relu": "let nothing else read what the layer before it writes",
    "Clip": "let nothing else read what the layer before it writes",
    "LeakyRelu": "take ReLU, which every runtime fuses",
    "PRelu": "take ReLU, which every runtime fuses",
    "HardSwish": "take ReLU, which every runtime fuses",
    "Sigmoid": "take a hard sigmoid, or ReLU, which every runtime fuses",
    "Gelu": "take ReLU, which every runtime fuses",
}
"""ONNX operators that belong into the layer before, and what to change where they are executed alone."""
SAME_LAYOUT = "keep the operators around it in one precision and one layout; a transpose of the model's own can move"
ONE_GRID = "give the operators around it one precision: both on the grid, or both in float_layers"


def find_slow_spots(
    layers: Sequence[Layer],
    operators: Mapping[str, Sequence[str]],
    islands: Sequence[FloatIsland],
    strays: Sequence[Conversion],
) -> tuple[SlowSpot, ...]:
    """Return what runs beside int8 arithmetic, the most expensive first.

    Args:
        layers: what is executed.
        operators: ONNX operators that each layer computes, by the layer's name, as far as they are known.
        islands: connected float operators, with their causes.
        strays: Q/DQ that no island explains.
    """
    total_ms = math.fsum(layer.time_ms or 0.0 for layer in layers)
    explained = {name for island in islands for name in island.layers} | {stray.name for stray in strays}
    left = [layer for layer in layers if layer.name not in explained and not layer.is_conversion]
    spots = [
        *_of_islands(islands, total_ms),
        *_of_strays(strays, total_ms),
        *_of_reformats(left, total_ms),
        *_of_unfused(left, {layer.name: layer for layer in layers}, operators, total_ms),
    ]
    return tuple(sorted(spots, key=lambda spot: -(spot.time_ms or 0.0)))


def _of_islands(islands: Sequence[FloatIsland], total_ms: float) -> list[SlowSpot]:
    """Return one spot for all islands of one cause."""
    inside = [island for island in islands if island.is_inside]
    causes = dict.fromkeys((island.subject, island.reason, island.remedy) for island in inside)
    spots = []
    for cause in causes:
        same = [island for island in inside if (island.subject, island.reason, island.remedy) == cause]
        shares = [island.time_share for island in same if island.time_share is not None]
        share = math.fsum(shares) if shares else None
        spots.append(
            SlowSpot(
                kind="float island",
                subject=f"{same[0].subject} ({same[0].reason})",
                remedy=same[0].remedy,
                count=len(same),
                time_ms=None if share is None else share * total_ms,
                time_share=share,
            )
        )
    return spots


def _of_strays(strays: Sequence[Conversion], total_ms: float) -> list[SlowSpot]:
    if not strays:
        return []
    shares = [stray.time_share for stray in strays if stray.time_share is not None]
    share = math.fsum(shares) if shares else None
    return [
        SlowSpot(
            kind="Q/DQ",
            subject=_listed([f"{stray.name} (between {stray.before} and {stray.after})" for stray in strays]),
            remedy=ONE_GRID,
            count=len(strays),
            time_ms=None if share is None else share * total_ms,
            time_share=share,
        )
    ]


def _of_reformats(layers: Sequence[Layer], total_ms: float) -> list[SlowSpot]:
    kinds = dict.fromkeys(layer.op_type for layer in layers if layer.op_type in REFORMATS)
    groups = [[layer for layer in layers if layer.op_type == kind] for kind in kinds]
    return [_group("reformat", same, SAME_LAYOUT, total_ms) for same in groups]


def _of_unfused(
    layers: Sequence[Layer], all_layers: Mapping[str, Layer], operators: Mapping[str, Sequence[str]], total_ms: float
) -> list[SlowSpot]:
    alone: dict[str, list[Layer]] = {}
    for layer in layers:
        computed = list(operators.get(layer.name, ()))
        before = [all_layers[name] for name in layer.reads if name in all_layers]
        is_behind_weights = any(
            kind in WEIGHTED for each in before for kind in (*operators.get(each.name, ()), each.op_type)
        )
        if len(computed) == 1 and computed[0] in FUSABLE and is_behind_weights:
            alone.setdefault(computed[0], []).append(layer)
    return [_group("not fused", same, FUSABLE[operator], total_ms) for operator, same in alone.items()]


def _group(kind: str, same: Sequence[Layer], remedy: str, total_ms: float) -> SlowSpot:
    times_ms = [layer.time_ms for layer in same if layer.time_ms is not None]
    time_ms = math.fsum(times_ms) if times_ms else None
    return SlowSpot(
        kind=kind,
        subject=f"{same[0].op_type}: {_listed([layer.name for layer in same])}",
        remedy=remedy,
        count=len(same),
        time_ms=time_ms,
        time_share=None if time_ms is None or not total_ms else time_ms / total_ms,
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 3 else ", ".join(names)
