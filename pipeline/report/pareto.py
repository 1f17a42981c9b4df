"""The picture of a search for a precision: error against latency saved, every plan a point. Rule: as plots.py."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt

from pipeline.report.plots import COLOURS, Picture, Row, render
from pipeline.report.report import PrecisionFigures, TriedFigures
from pipeline.report.search_words import NO_ERROR_DB, error_words, short_words

WIDTH, HEIGHT = 640, 300
MARGIN = 24
"""Between the points and the frame, in pixels."""
LEAST_SAVED = -100
"""In percent: what takes more than twice the time of fp32 is drawn there, or it would press all others together."""
LABEL_HEIGHT, LABEL_WIDTH = 15, 270
"""What a label takes of the picture at most: those that would lie on each other move up."""


@dataclass(frozen=True)
class _Frame:
    """The stretch of an axis that is shown."""

    low: float
    high: float
    pixels: int

    @classmethod
    def around(cls, values: Sequence[float], pixels: int) -> "_Frame":
        """Return the frame of values with a margin on both sides."""
        low, high = min(values, default=0.0), max(values, default=0.0)
        margin = MARGIN * ((high - low) or 1.0) / (pixels - 2 * MARGIN)
        return cls(low - margin, high + margin, pixels)

    @property
    def unit(self) -> float:
        """Of the axis, for one pixel."""
        return (self.high - self.low) / self.pixels

    @property
    def scale(self) -> alt.Scale:
        """As altair wants it."""
        return alt.Scale(domain=[self.low, self.high], nice=False, zero=False)


def pareto_svg(search: PrecisionFigures) -> str:
    """Draw error over latency saved; the chosen plan is ringed, what does not hold is in the colour of limits."""
    floor = _floor(search)
    points = [_point(tried, floor) for tried in search.tried if tried.error_db is not None]
    across, up = (
        _Frame.around([float(point[name]) for point in points], pixels)
        for name, pixels in (("saved", WIDTH), ("error", HEIGHT))
    )
    slowest = f"datum.value <= {LEAST_SAVED} ? '{LEAST_SAVED} or less' : format(datum.value, 'd')"
    x = alt.X(
        "saved:Q",
        title="latency saved, % of fp32",
        scale=across.scale,
        axis=alt.Axis(tickCount=8, labelExpr=slowest),
    )
    axis = alt.Axis(labelExpr=f"datum.value <= {floor} ? 'none' : format(datum.value, 'd')", tickCount=7)
    y = alt.Y("error:Q", title="error of the outputs, dB", axis=axis, scale=up.scale)
    others = [point for point in points if not point["is_finalist"]]
    finalists = [point for point in points if point["is_finalist"]]
    chosen = [point for point in points if point["is_chosen"]]
    layers: list[alt.Chart | Picture] = [
        _chart(_frontier(points)).mark_line(interpolate="step-before", color=COLOURS["soft"]).encode(x=x, y=y),
        _chart(others).mark_point(size=36, opacity=0.6, strokeWidth=1.3).encode(x=x, y=y, color=_colour()),
        _chart(finalists).mark_point(size=90, filled=True, opacity=1).encode(x=x, y=y, color=_colour()),
        _chart(chosen).mark_point(size=320, strokeWidth=2.2, color=COLOURS["ink"]).encode(x=x, y=y),
        *_labels(finalists, across, up),
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
    label = short_words(tried)
    return {
        "saved": max(100 * (1 - tried.of_fp32), LEAST_SAVED),
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


def _labels(points: list[Row], across: _Frame, up: _Frame) -> Iterator[alt.Chart]:
    """Write the plans beside their points: on the left of those in the right half, so that no label is cut off."""
    middle = (across.low + across.high) / 2
    for is_left in (False, True):
        side = [point for point in points if (float(point["saved"]) > middle) == is_left]
        chart = _chart(_apart(side, across, up)).mark_text(
            align="right" if is_left else "left", dx=-14 if is_left else 14, dy=-9, color=COLOURS["ink"]
        )
        yield chart.encode(x=alt.X("saved:Q"), y=alt.Y("label_at:Q"), text="plan:N")


def _apart(points: list[Row], across: _Frame, up: _Frame) -> list[Row]:
    """Return points with the heights of their labels, moved up where one would lie on another."""
    placed: list[Row] = []
    for point in sorted(points, key=lambda point: float(point["error"])):
        near = [
            float(other["label_at"])
            for other in placed
            if abs(float(other["saved"]) - float(point["saved"])) < LABEL_WIDTH * across.unit
        ]
        lowest = max(near, default=-math.inf) + LABEL_HEIGHT * up.unit
        placed.append({**point, "label_at": max(float(point["error"]), lowest)})
    return placed


def _colour() -> alt.Color:
    return alt.Color("colour:N", scale=None)


def _chart(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(rows))
