"""The fusion proof and the bisection in words, for the terminal and the page alike. Rule: figures in, sentences out."""

from collections.abc import Sequence

from pipeline.report.report import (
    BisectionFigures,
    DivergenceFigures,
    FusionFigures,
    IslandFigures,
    ParityFigures,
    SlowSpotFigures,
)
from pipeline.report.wording import figure

MOST_NAMES = 3
LEAST_SHARE = 0.02
"""Of the time, below which a terminal does not tell of what a runtime lays out anew; the report does."""


def fusion_lines(fusion: FusionFigures, most_islands: int) -> list[str]:
    """Return what runs in int8, and the largest causes of what does not."""
    if not fusion.int8_operators and not fusion.conversions:
        return [f"fusion: nothing is int8; all {fusion.num_operators} operators compute in float"]
    inside = [island for island in fusion.islands if island.is_inside or not fusion.int8_operators]
    lines = [f"fusion: {summary_words(fusion)}", *(island_words(each, fusion) for each in inside[:most_islands])]
    rest = sum(each.count for each in inside[most_islands:])
    lines += [f"{rest} more float island{'s' if rest > 1 else ''}: see the report"] if rest else []
    others = [spot for spot in fusion.slow_spots if spot.kind in ("reformat", "not fused") and _is_worth_it(spot)]
    return [*lines, *map(slow_spot_words, others[:MOST_NAMES])]


def summary_words(fusion: FusionFigures) -> str:
    """Return the shares and the number of stray Q/DQ as one sentence."""
    words = f"{fusion.int8_operators} of {fusion.num_operators} executed operators in int8"
    if fusion.int8_time_share is not None and fusion.float_time_share is not None:
        words += f", {_share(fusion.int8_time_share)} of the time ({_share(fusion.float_time_share)} in float"
        words += f", {_share(fusion.conversion_time_share or 0.0)} in Q/DQ)"
    return f"{words}; {stray_words(fusion)}"


def stray_words(fusion: FusionFigures) -> str:
    """Return how many Q/DQ stray, and the first of them by name."""
    if not fusion.has_edges:
        return "the runtime does not tell what reads what, so stray Q/DQ are not known"
    if not fusion.strays:
        return "no stray Q/DQ"
    names = ", ".join(f"{each.name} (between {each.before} and {each.after})" for each in fusion.strays[:MOST_NAMES])
    more = f" and {len(fusion.strays) - MOST_NAMES} more" if len(fusion.strays) > MOST_NAMES else ""
    return f"{len(fusion.strays)} stray Q/DQ: {names}{more}"


def island_words(island: IslandFigures, fusion: FusionFigures) -> str:
    """Return what runs in float, why, what it costs and what to do, as one sentence."""
    verb = "run" if ", " in island.subject else "runs"
    where = f"{island.count} island{'s' if island.count > 1 else ''}"
    cost = f"{_share(island.time_share)} of the time in {where}" if island.time_share is not None else where
    return f"{island.subject} {verb} in float on {fusion.runtime} ({island.reason}): {cost}; {island.remedy}"


def bisection_lines(parity: ParityFigures | None) -> list[str]:
    """Return, for each hop that parts, the tensor where it does."""
    return [bisection_words(each) for each in parity.bisections] if parity else []


def bisection_words(found: BisectionFigures) -> str:
    """Return where a hop parts as one sentence."""
    compared = f"of {found.num_tensors} compared on {found.num_samples} images"
    if found.first is None:
        return (
            f"{found.hop} parts, but no single tensor {compared} is beyond its budget: small differences add up; "
            f"the largest is {_divergence(found.largest)}"
        )
    words = f"{found.hop} parts first at {_divergence(found.first)}, the first {compared}"
    is_same = found.first.tensor == found.largest.tensor
    return words if is_same else f"{words}; the largest is {_divergence(found.largest)}"


def slow_spot_words(spot: SlowSpotFigures) -> str:
    """Return what costs time beside int8 arithmetic, how much, and what to move, as one sentence."""
    cost = "" if spot.time_ms is None else f", {figure(spot.time_ms, 'ms')}"
    share = "" if spot.time_share is None else f" ({_share(spot.time_share)} of the time)"
    return f"{spot.kind}: {spot.subject}{cost}{share}; {spot.remedy}"


def name_words(names: Sequence[str]) -> str:
    """Return names in a table's cell, the first few."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "-"


def _divergence(found: DivergenceFigures) -> str:
    if found.lsb is None:
        return f"{found.tensor} (not finite)"
    return f"{found.tensor} ({found.lsb:.3g} LSB; budget {found.budget_lsb:.3g})"


def _is_worth_it(spot: SlowSpotFigures) -> bool:
    return spot.time_share is not None and spot.time_share >= LEAST_SHARE


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"
