"""The picture of a search for a precision: error against latency saved, every plan a point. Rule: as plots.py."""

import altair as alt

from pipeline.report.plots import COLOURS, Picture, Row, render
from pipeline.report.report import PrecisionFigures, TriedFigures
from pipeline.report.search_words import NO_ERROR_DB, error_words

WIDTH, HEIGHT = 640, 300
LONGEST_LABEL = 44


def pareto_svg(search: PrecisionFigures) -> str:
    """Draw error over latency saved; the chosen plan is ringed, what does not hold is in the colour of limits."""
    floor = _floor(search)
    points = [_point(tried, floor) for tried in search.tried if tried.error_db is not None]
    x = alt.X(
        "saved:Q", title="latency saved, % of fp32", scale=alt.Scale(nice=True, padding=24), axis=alt.Axis(tickCount=8)
    )
    axis = alt.Axis(labelExpr=f"datum.value <= {floor} ? 'none' : format(datum.value, 'd')", tickCount=7)
    y = alt.Y(
        "error:Q", title="error of the outputs, dB", axis=axis, scale=alt.Scale(zero=False, nice=True, padding=16)
    )
    others = [point for point in points if not point["is_finalist"]]
    finalists = [point for point in points if point["is_finalist"]]
    chosen = [point for point in points if point["is_chosen"]]
    layers: list[alt.Chart | Picture] = [
        _chart(_frontier(points)).mark_line(interpolate="step-before", color=COLOURS["soft"]).encode(x=x, y=y),
        _chart(others).mark_point(size=36, opacity=0.9, strokeWidth=1.3).encode(x=x, y=y, color=_colour()),
        _chart(finalists).mark_point(size=90, filled=True, opacity=1).encode(x=x, y=y, color=_colour()),
        _chart(chosen).mark_point(size=320, strokeWidth=2.2, color=COLOURS["ink"]).encode(x=x, y=y),
        *(_labels(finalists, x, y, is_left=is_left) for is_left in (False, True)),
    ]
    words = "; ".join(
        f"{tried.plan} saves {100 * (1 - tried.of_fp32):.0f} %, error {error_words(tried.error_db)}"
        for tried in search.tried
        if tried.is_finalist
    )
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    return render(chart, f"Error against latency saved of {len(points)} plans: {words}. Chosen: {search.chosen}.")


def _floor(search: PrecisionFigures) -> float:
    """Return where plans without any error are drawn: a step below the smallest error."""
    known = [tried.error_db for tried in search.tried if tried.error_db is not None and tried.error_db > NO_ERROR_DB]
    return 5 * (min(known, default=-40.0) // 5) - 10


def _point(tried: TriedFigures, floor: float) -> Row:
    assert tried.error_db is not None
    label = tried.plan if len(tried.plan) <= LONGEST_LABEL else f"{tried.plan[: LONGEST_LABEL - 1]}…"
    return {
        "saved": 100 * (1 - tried.of_fp32),
        "error": max(tried.error_db, floor),
        "plan": f"{label} (chosen)" if tried.is_chosen else label,
        "is_finalist": float(tried.is_finalist),
        "is_chosen": float(tried.is_chosen),
        "colour": COLOURS["limit" if tried.holds is False else "accent"],
    }


def _frontier(points: list[Row]) -> list[Row]:
    """Return the plans that no other one beats in both, from the slowest to the fastest."""
    best: list[Row] = []
    for point in sorted(points, key=lambda point: (-float(point["saved"]), float(point["error"]))):
        if not best or float(point["error"]) < float(best[-1]["error"]):
            best.append(point)
    return best[::-1]


def _labels(points: list[Row], x: alt.X, y: alt.Y, *, is_left: bool) -> alt.Chart:
    """Write the plans beside their points: on the left of those in the right half, so that no label is cut off."""
    if not points:
        return _chart([])
    savings = [float(point["saved"]) for point in points]
    middle = (min(savings) + max(savings)) / 2
    side = [point for point in points if (float(point["saved"]) > middle) == is_left]
    text = _chart(side).mark_text(
        align="right" if is_left else "left", dx=-14 if is_left else 14, dy=-9, color=COLOURS["ink"]
    )
    chart: alt.Chart = text.encode(x=x, y=y, text="plan:N")
    return chart


def _colour() -> alt.Color:
    return alt.Color("colour:N", scale=None)


def _chart(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(rows))
