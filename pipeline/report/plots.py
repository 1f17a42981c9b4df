"""The report's pictures, each an inline SVG. Rule: no script, no address, and a text alternative in every picture.

Colours are the page's: each is written as one of `COLOURS`, and the page's style sheet maps it to the
reader's light or dark scheme.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import altair as alt
import numpy as np

from pipeline.measuring.proportions import wilson_interval
from pipeline.report.report import (
    AccuracyFigures,
    ExecutedFigures,
    FusionFigures,
    LatencyFigures,
    OperatorFigures,
    StageFigures,
)
from pipeline.report.wording import figure, second_words

COLOURS = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#d8dee4",
    "accent": "#2563eb",
    "soft": "#b6c8ee",
    "limit": "#c2255c",
    "float": "#b45309",
}
"""Name in the style sheet, and how the pictures write it."""

_WIDTH = 640
_HEIGHT = 190
_MOST_OPERATORS = 14
_FAR = 3.0
"""A limit is drawn where it is up to this factor beyond the samples."""

Row = dict[str, str | float]
Picture = alt.LayerChart | alt.FacetChart


def latency_svg(latency: LatencyFigures, samples_ns: np.ndarray) -> str:
    """Draw the distribution of the samples with p50, p90, p99 and the budget's limit."""
    samples_ms = samples_ns / 1e6
    low, high = float(samples_ms.min()), float(samples_ms.max())
    marks = [_Mark(word, value) for word, value in _percentiles(latency).items()]
    if latency.budget_ms is not None:
        shown_at = min(max(latency.budget_ms, low / _FAR), high * _FAR)
        marks.append(_Mark(f"limit of p{latency.budget_percentile:g}", latency.budget_ms, shown_at, is_limit=True))
    span = _Span.around(min(low, *(mark.at for mark in marks)), max(high, *(mark.at for mark in marks)))
    axis = alt.Axis(title=f"latency, ms{' (logarithmic)' if span.is_log else ''}", tickCount=8, format="~g", grid=False)
    bars = (
        alt.Chart(alt.InlineData(_histogram(samples_ms, span.is_log)))
        .mark_bar(color=COLOURS["soft"], stroke=COLOURS["accent"], strokeWidth=0.5)
        .encode(
            x=alt.X("start:Q", scale=span.scale(), axis=axis),
            x2="end:Q",
            y=alt.Y("count:Q", scale=alt.Scale(type="sqrt"), title="samples (square-root scale)"),
            y2=alt.Y2Datum(0),
        )
    )
    lines = [_marker(mark, row, span) for row, mark in enumerate(_label_rows(marks, span))]
    words = ", ".join(f"{mark.word} {figure(mark.value, 'ms')}" for mark in marks)
    return render(alt.layer(bars, *lines).properties(width=_WIDTH, height=_HEIGHT), f"Latency distribution: {words}.")


def accuracy_svg(accuracy: AccuracyFigures, least: float | None) -> str:
    """Draw the accuracy of teacher, student, quantized model and device with Wilson 95 % intervals."""
    chain = {
        "teacher": accuracy.teacher,
        "student": accuracy.student,
        "quantized": accuracy.quantized,
        "on device": accuracy.on_device,
    }
    rows: list[Row] = []
    for name, share in chain.items():
        low, high = wilson_interval(share * accuracy.num_samples, accuracy.num_samples)
        words = f"{figure(share, 'fraction')}  [{100 * low:.2f}, {100 * high:.2f}]"
        rows.append({"name": name, "share": 100 * share, "low": 100 * low, "high": 100 * high, "words": words})
    y = alt.Y("name:N", sort=list(chain), title=None, axis=alt.Axis(labelFontSize=13))
    x = alt.X("low:Q", title=f"{accuracy.metric}, %, with Wilson 95 % interval", scale=alt.Scale(zero=False, nice=True))
    base = alt.Chart(alt.InlineData(rows))
    layers: list[alt.Chart | Picture] = [
        base.mark_rule(color=COLOURS["accent"], strokeWidth=2).encode(x=x, x2="high:Q", y=y),
        base.mark_point(color=COLOURS["accent"], filled=True, size=90, opacity=1).encode(x="share:Q", y=y),
        base.mark_text(align="left", color=COLOURS["ink"]).encode(x=alt.value(_WIDTH - 150), y=y, text="words:N"),
    ]
    if least is not None:
        layers.append(_least_line(least))
    words = ", ".join(f"{name} {figure(share, 'fraction')}" for name, share in chain.items())
    chart = alt.layer(*layers).properties(width=_WIDTH - 170, height=150)
    return render(chart, f"Accuracy along the chain on {accuracy.num_samples} samples: {words}.")


def stages_svg(stages: Sequence[StageFigures]) -> str:
    """Draw the time of each stage; those that came from the store are pale and say so."""
    rows: list[Row] = [
        {
            "name": f"{number}. {stage.name}",  # a stage of the first answer can run again after training
            "seconds": stage.seconds,
            "words": second_words(stage.seconds) + (" (cached)" if stage.cached else ""),
            "colour": COLOURS["soft" if stage.cached else "accent"],
        }
        for number, stage in enumerate(stages, start=1)
    ]
    label = "Seconds of each stage: " + ", ".join(f"{row['name']} {row['words']}" for row in rows) + "."
    return render(_bars(rows, "seconds", "seconds"), label)


def executed_svg(executed: ExecutedFigures) -> str:
    """Draw what ran by type and precision: its time where the runtime counts it, else how many there are."""
    is_timed = any(operator.time_ms is not None for operator in executed.operators)
    rows: list[Row] = []
    for operator in _largest(executed.operators, is_timed):
        times = f"{operator.count}x"
        words = f"{times}  {figure(operator.time_ms or 0.0, 'ms')}" if is_timed else times
        value = (operator.time_ms or 0.0) if is_timed else float(operator.count)
        name = f"{operator.op_type} · {operator.precision}"
        colour = COLOURS["accent" if operator.precision == "int8" else "float"]
        rows.append({"name": name, "value": value, "words": words, "colour": colour})
    title = "time of one inference, ms" if is_timed else "executed operators"
    label = "Executed operators: " + ", ".join(f"{row['name']} {row['words']}" for row in rows) + "."
    return render(_bars(rows, "value", title), label)


def fusion_svg(fusion: FusionFigures) -> str:
    """Draw the shares of the time in int8, in float and in Q/DQ."""
    shares = {
        "int8": (fusion.int8_time_share, fusion.int8_operators, COLOURS["accent"]),
        "float": (fusion.float_time_share, fusion.float_operators, COLOURS["float"]),
        "Q/DQ": (fusion.conversion_time_share, fusion.conversions, COLOURS["limit"]),
    }
    rows: list[Row] = [
        {
            "name": name,
            "share": 100 * (share or 0.0),
            "words": f"{100 * (share or 0.0):.0f} %  ({count} of {fusion.num_operators} operators)",
            "colour": colour,
        }
        for name, (share, count, colour) in shares.items()
    ]
    label = "Time in int8, in float and in Q/DQ: " + ", ".join(f"{row['name']} {row['words']}" for row in rows) + "."
    return render(_bars(rows, "share", "share of the counted time, %"), label)


def _percentiles(latency: LatencyFigures) -> dict[str, float]:
    return {"p50": latency.p50_ms, "p90": latency.p90_ms, "p99": latency.p99_ms}


@dataclass(frozen=True)
class _Mark:
    """A line in the distribution; a limit far from all samples is drawn at the edge, with an arrow."""

    word: str
    value: float
    shown_at: float | None = None
    is_limit: bool = False

    @property
    def at(self) -> float:
        return self.value if self.shown_at is None else self.shown_at

    @property
    def label(self) -> str:
        before, after = ("← " if self.at > self.value else ""), (" →" if self.at < self.value else "")
        return f"{before}{self.word}  {figure(self.value, 'ms')}{after}"


def _label_rows(marks: Sequence[_Mark], span: "_Span") -> list[_Mark]:
    """Return the marks from the lowest label up, so that no line runs through a label."""
    after = sorted((mark for mark in marks if span.has_room_after(mark.at)), key=lambda mark: -mark.at)
    before = sorted((mark for mark in marks if not span.has_room_after(mark.at)), key=lambda mark: mark.at)
    return after + before


def _marker(mark: _Mark, row: int, span: "_Span") -> Picture:
    """Draw a mark, its label in a row of its own above the plot, on the side where there is room."""
    colour, top = COLOURS["limit" if mark.is_limit else "ink"], -16 * (row + 1)
    width, dash = (2.0, [6, 3]) if mark.is_limit else (1.2, [1, 0])
    has_room = span.has_room_after(mark.at)
    data = alt.Chart(alt.InlineData([{"at": mark.at, "words": mark.label}])).encode(x=alt.X("at:Q", scale=span.scale()))
    line = data.mark_rule(color=colour, strokeWidth=width, strokeDash=dash).encode(
        y=alt.value(top), y2=alt.value(_HEIGHT)
    )
    text = data.mark_text(
        align="left" if has_room else "right",
        dx=5 if has_room else -5,
        color=colour,
        fontWeight=700 if mark.is_limit else 400,
    ).encode(y=alt.value(top + 4), text="words:N")
    return alt.layer(line, text)


def _least_line(least: float) -> Picture:
    data = alt.Chart(alt.InlineData([{"at": 100 * least, "words": f"least {figure(least, 'fraction')}"}])).encode(
        x="at:Q"
    )
    line = data.mark_rule(color=COLOURS["limit"], strokeWidth=2, strokeDash=[6, 3])
    text = data.mark_text(color=COLOURS["limit"], fontWeight="bold").encode(y=alt.value(-8), text="words:N")
    return alt.layer(line, text)


def _bars(rows: list[Row], field: str, title: str) -> Picture:
    """Draw one bar a row, its words at the end of it."""
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickCount=6)),
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelFontSize=12, labelLimit=240)),
    )
    bars = base.mark_bar(height={"band": 0.62}, minBandSize=1).encode(color=alt.Color("colour:N", scale=None))
    words = base.mark_text(align="left", dx=6, color=COLOURS["ink"]).encode(text="words:N")
    return alt.layer(bars, words).properties(width=_WIDTH - 200, height=24 * len(rows))


def _histogram(samples_ms: np.ndarray, is_log: bool) -> list[Row]:
    low, high = float(samples_ms.min()), float(samples_ms.max())
    if low == high:
        low, high = low * 0.99, high * 1.01 or 1.0
    num_bins = min(60, max(10, math.ceil(math.sqrt(samples_ms.size))))
    edges = np.geomspace(low, high, num_bins + 1) if is_log else np.linspace(low, high, num_bins + 1)
    edges[0], edges[-1] = low, high  # geomspace's ends can miss the extremes by a rounding
    counts, _ = np.histogram(samples_ms, edges)
    return [
        {"start": float(start), "end": float(end), "count": int(count)}
        for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]


@dataclass(frozen=True)
class _Span:
    """The stretch of latencies that a picture shows; logarithmic where it is long."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def around(cls, low: float, high: float) -> "_Span":
        """Return a span with a small margin on both sides."""
        if low > 0 and high / low > 8:
            margin = (high / low) ** 0.03
            return cls(low / margin, high * margin, is_log=True)
        margin = 0.03 * (high - low) or 0.05 * high or 1.0
        return cls(low - margin, high + margin, is_log=False)

    def scale(self) -> alt.Scale:
        """Return the scale of the horizontal axis."""
        return alt.Scale(type="log" if self.is_log else "linear", domain=[self.low, self.high], nice=False)

    def has_room_after(self, value: float) -> bool:
        """Tell whether a label fits to the right of a value."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low) < 0.7
        return (value - self.low) / (self.high - self.low) < 0.7


def _largest(operators: Sequence[OperatorFigures], is_timed: bool) -> list[OperatorFigures]:
    """Return the largest first; those that do not fit the picture are summed up by precision."""
    ordered = sorted(operators, key=lambda operator: -((operator.time_ms or 0.0) if is_timed else operator.count))
    shown, rest = ordered[:_MOST_OPERATORS], ordered[_MOST_OPERATORS:]
    for precision in sorted({operator.precision for operator in rest}):
        same = [operator for operator in rest if operator.precision == precision]
        time_ms = math.fsum(operator.time_ms or 0.0 for operator in same) if is_timed else None
        count = sum(operator.count for operator in same)
        shown.append(OperatorFigures(op_type="others", precision=precision, count=count, time_ms=time_ms))
    return shown


def render(chart: Picture, label: str) -> str:
    """Return a chart without its fixed size and namespaces, and with `label` for those who cannot see it."""
    import vl_convert

    styled = (
        chart.configure(
            background="transparent",
            font="sans-serif",
            aria=False,
            padding={"left": 24, "right": 60, "top": 4, "bottom": 4},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=COLOURS["muted"],
            titleColor=COLOURS["muted"],
            titleFontWeight="normal",
            domainColor=COLOURS["grid"],
            tickColor=COLOURS["grid"],
            gridColor=COLOURS["grid"],
            labelFontSize=12,
            titleFontSize=12,
        )
        .configure_text(fontSize=12.5)
    )
    svg: str = vl_convert.vegalite_to_svg(styled.to_json())
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None, "vl-convert always writes a viewBox"
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    return f'<svg role="img" aria-label="{escape(label, quote=True)}" {view.group()}>{body}'
