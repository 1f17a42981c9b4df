"""Two values of a figure side by side, for people and machines: what `compare` and `diff` show alike."""

from collections.abc import Iterable
from dataclasses import asdict

from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from pipeline.report.comparison import Compared
from pipeline.report.wording import byte_words

STYLES = {"worse": "red", "better": "green", "same": "dim", "unknown": "yellow"}
NUMBERS = ("number", "p50", "p99", "accuracy", "size", "before", "after", "change")


def plain_table(*columns: str) -> Table:
    """Return an empty table without a frame; columns of numbers stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left")
    return table


def compared_table(found: Iterable[Compared], interval: str = "95 %") -> Table:
    """Return the table of compared figures; `interval` heads the column of intervals."""
    table = plain_table("figure", "before", "after", "change", interval, "verdict")
    for each in found:
        ends = "" if each.interval is None else " to ".join(_change_words(each, end) for end in each.interval)
        table.add_row(
            each.name,
            _value_words(each, each.before),
            _value_words(each, each.after),
            _change_words(each, _change(each)),
            ends,
            Text(each.change, style=STYLES[each.change]),
        )
    return table


def figure_json(each: Compared) -> dict[str, JsonValue]:
    """Return a compared figure as JSON."""
    interval: list[JsonValue] | None = None if each.interval is None else list(each.interval)
    return {**asdict(each), "interval": interval}


def _change(each: Compared) -> float:
    if each.unit == "share":
        return each.after - each.before
    return each.after / each.before if each.before else float("nan")


def _value_words(each: Compared, value: float) -> str:
    if each.unit == "bytes":
        return byte_words(round(value))
    return f"{value:.2%}" if each.unit == "share" else f"{value:.3g} {each.unit}"


def _change_words(each: Compared, change: float) -> str:
    return f"{100 * change:+.2f} pp" if each.unit == "share" else f"x{change:.3f}"
