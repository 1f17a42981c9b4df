"""A search for a precision in words, for the terminal and the page alike. Rule: figures in, sentences out."""

from collections import Counter

from pipeline.measuring.verdict import Verdict
from pipeline.report.report import PrecisionFigures, TriedFigures
from pipeline.report.wording import RESTS, figure

NO_ERROR_DB = -150.0
"""Below it outputs are equal but for what float32 resolves."""
MOST_LAYERS = 12
"""Rows of the sensitivity table that people see; report.json has all."""


def search_lines(search: PrecisionFigures) -> list[str]:
    """Return what ships and why, and what came after it."""
    others = [tried for tried in search.tried if tried.is_finalist and not tried.is_chosen and tried.plan != "fp32"]
    beside = ", ".join(f"{tried.plan} {ratio_words(tried)}" for tried in others[:3])
    count = f"{len(search.tried)} plans tried"
    lines = [f"precision: {search.chosen}: {search.reason} ({count}{'; ' + beside if beside else ''})"]
    if search.earned is not None and search.earned.verdict is not Verdict.FAIL:
        lines.append(f"as it ships: {earned_words(search)}")
    return lines


def table_rows(search: PrecisionFigures) -> list[TriedFigures]:
    """Return what a table shows: finalists and whole precisions, the fastest first."""
    shown = [tried for tried in search.tried if tried.is_finalist or not tried.float_layers]
    return sorted(shown, key=lambda tried: tried.of_fp32)


def short_words(tried: TriedFigures) -> str:
    """Return a plan as a picture has room for it: layers counted, not named."""
    count = len(tried.float_layers)
    if count == 0:
        return tried.plan
    beside = {"int8_dynamic": "dynamic", "int8_dynamic_per_tensor": "dynamic, weights per tensor"}
    return f"{tried.precision}, {count} layer{'s' * (count > 1)} {beside.get(tried.rest or '', tried.rest or 'float')}"


def off_grid_words(search: PrecisionFigures) -> str:
    """Name the layers of the chosen plan that are not on the int8 grid, whole kinds of operators by their kind."""
    chosen = next((tried for tried in search.tried if tried.is_chosen), None)
    if chosen is None or not chosen.float_layers:
        return ""
    kinds = {layer.name: layer.op_type for layer in search.sensitivity}
    totals = Counter(kinds.values())
    by_kind: dict[str, list[str]] = {}
    for layer in chosen.float_layers:
        by_kind.setdefault(kinds.get(layer, ""), []).append(layer)
    listed = (
        f"all {len(names)} {kind}" if len(names) == totals[kind] > 1 else ", ".join(names)
        for kind, names in by_kind.items()
    )
    where = "Ranges found at run time" if chosen.rest in RESTS else f"In {chosen.rest or 'fp32'}"
    return f"{where}: {', '.join(listed)}."


def undrawn_words(search: PrecisionFigures) -> str:
    """Say how many plans the picture lacks."""
    count = sum(tried.error_db is None for tried in search.tried)
    return f" {count} of the {len(search.tried)} are not drawn: there was no time for their errors." if count else ""


def earned_words(search: PrecisionFigures) -> str:
    """Return how the trained int8 model compares with the float student."""
    earned = search.earned
    assert earned is not None
    interval = f" (95 %: {earned.interval[0]:.3g} to {earned.interval[1]:.3g})" if earned.interval else ""
    said = "" if earned.verdict is Verdict.PASS else "; not told apart by this comparison"
    return f"{earned.ratio:.3g} times as fast as float on the device{interval}{said}"


def ratio_words(tried: TriedFigures) -> str:
    """Return the latency over that of fp32, with its interval."""
    interval = f" [{tried.of_fp32_ci[0]:.3f}, {tried.of_fp32_ci[1]:.3f}]" if tried.of_fp32_ci else ""
    return f"{tried.of_fp32:.3f}{interval}"


def error_words(error_db: float | None) -> str:
    """Return an error in dB; "none" where nothing differs."""
    if error_db is None:
        return "-"
    return "none" if error_db <= NO_ERROR_DB else f"{error_db:.1f} dB"


def drop_words(drop: float | None) -> str:
    """Return what was lost, in points."""
    return "-" if drop is None else figure(drop, "fraction_lost")


def time_words(time_ms: float | None) -> str:
    """Return a time, or a dash."""
    return "-" if time_ms is None else figure(time_ms, "ms")


def holds_words(holds: bool | None) -> str:
    """Return whether a plan holds."""
    return "-" if holds is None else ("yes" if holds else "no")
