"""What `make bench-quantization` prints and keeps: a table a row, the bar that `auto` must hold, and JSON of both."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from benchmarks.quantization_row import Timing
from benchmarks.side_by_side import RESULTS, Row

FP32, INT8, AUTO = "fp32", "ours, int8", "ours, auto"
SLOWER, LOST = 0.02, 0.005
"""The bar: `auto` takes at most so much more time than the best of all, and loses at most this accuracy to fp32."""
RESULT = RESULTS / "quantization.json"


@dataclass(frozen=True)
class Cell:
    """One file on one runtime with its floats pinned to one type; without a timing, `note` says why."""

    column: str
    precision: str
    timing: Timing | None
    accuracy: float | None
    note: str = ""

    @property
    def label(self) -> str:
        """The column, and the float type where it is not fp32."""
        return self.column if self.precision == FP32 else f"{self.column}, {self.precision}"


@dataclass(frozen=True)
class MeasuredRow:
    """All cells of one network on one runtime, timed in one run."""

    cells: tuple[Cell, ...]
    context: str
    """Device, versions, rounds, time and command."""


@dataclass(frozen=True)
class Verdict:
    """`auto` beside the fastest of all others, and beside the fastest that is as accurate as `auto` must be."""

    auto: Cell
    best: Cell
    row: Row
    """Ratio: the best's time over auto's, round by round."""
    accurate_best: Cell
    accurate_ratio: float
    points_lost: float
    """Of auto against fp32, in accuracy points."""

    @property
    def words(self) -> str:
        """Whether the bar holds."""
        if self.points_lost > 100 * LOST:
            return f"fails: {self.points_lost:.2f} points lost"
        if self.row.ratio >= 1 - SLOWER:
            return "holds"
        return "holds among the accurate" if self.accurate_ratio >= 1 - SLOWER else "fails: slower"


def judge(name: str, cells: Sequence[Cell]) -> Verdict | None:
    """Return how `auto` does in a row; None where it, or fp32, has no figures."""
    measured = [cell for cell in cells if cell.timing is not None and cell.accuracy is not None]
    auto = next((cell for cell in measured if cell.column == AUTO), None)
    fp32 = next((cell for cell in measured if cell.label == FP32), None)
    if auto is None or fp32 is None:
        return None
    rivals = [cell for cell in measured if cell.column != AUTO]
    accurate = [cell for cell in rivals if _accuracy(fp32) - _accuracy(cell) <= LOST]
    best, accurate_best = min(rivals, key=_p50_ms), min(accurate, key=_p50_ms)
    ratios = _ratios(best, auto)
    row = Row(
        name=name,
        ours=_p50_ms(auto),
        peer=_p50_ms(best),
        ratio=statistics.median(ratios),
        n=len(ratios),
        spread=(min(ratios), max(ratios)),
    )
    accurate_ratio = statistics.median(_ratios(accurate_best, auto))
    return Verdict(auto, best, row, accurate_best, accurate_ratio, 100 * (_accuracy(fp32) - _accuracy(auto)))


def show(console: Console, rows: Mapping[str, MeasuredRow], notes: Sequence[str]) -> None:
    """Print a table a row, what `auto` held, and the notes."""
    for name, measured in rows.items():
        console.print(_row_table(name, measured.cells))
        console.print(measured.context, style="dim")
    summary = Table(title="\nauto beside the best of all others, ms p50", box=None, title_justify="left")
    summary.add_column("row")
    for column in ("auto", "best", "best / auto", "spread", "accurate best / auto", "points lost"):
        summary.add_column(column, justify="right")
    for column in ("the best", "auto ships", "the bar"):
        summary.add_column(column)
    for verdict in verdicts(rows):
        row = verdict.row
        summary.add_row(
            row.name,
            f"{row.ours:.4f}",
            f"{row.peer:.4f}",
            f"{row.ratio:.3f}",
            f"{row.spread[0]:.3f} .. {row.spread[1]:.3f}",
            f"{verdict.accurate_ratio:.3f}",
            f"{verdict.points_lost:+.2f}",
            verdict.best.label,
            verdict.auto.note,
            verdict.words,
        )
    console.print(summary)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def verdicts(rows: Mapping[str, MeasuredRow]) -> Iterator[Verdict]:
    """Judge every row that has figures."""
    for name, measured in rows.items():
        if verdict := judge(name, measured.cells):
            yield verdict


def keep(rows: Mapping[str, MeasuredRow], notes: Sequence[str], path: Path = RESULT) -> None:
    """Write rows, cells and notes."""
    content = {
        "name": path.stem,
        "unit": "ms, p50; ratio: the best of all others over auto",
        "rows": [asdict(verdict.row) | {"bar": verdict.words} for verdict in verdicts(rows)],
        "measured": {name: asdict(measured) for name, measured in rows.items()},
        "notes": list(notes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def kept(path: Path = RESULT) -> dict[str, MeasuredRow]:
    """Read the rows that `keep` wrote; none where there is nothing."""
    if not path.is_file():
        return {}
    return TypeAdapter(dict[str, MeasuredRow]).validate_python(json.loads(path.read_text())["measured"])


def _row_table(name: str, cells: Sequence[Cell]) -> Table:
    fp32 = next((cell for cell in cells if cell.label == FP32), None)
    table = Table(title=f"\n{name}", box=None, title_justify="left")
    table.add_column("file")
    for column in ("ms p50", "min", "rounds", "fp32 / it", "accuracy", "points lost"):
        table.add_column(column, justify="right")
    table.add_column("note", overflow="fold")
    for cell in cells:
        timing, accuracy = cell.timing, cell.accuracy
        if timing is None or accuracy is None or fp32 is None:
            table.add_row(cell.label, "", "", "", "", "", "", cell.note)
            continue
        table.add_row(
            cell.label,
            f"{timing.p50_ms:.4f}",
            f"{timing.min_ms:.4f}",
            f"{min(timing.rounds_ms):.4f} .. {max(timing.rounds_ms):.4f}",
            f"{statistics.median(_ratios(fp32, cell)):.2f}",
            f"{accuracy:.2%}",
            f"{100 * (_accuracy(fp32) - accuracy):+.2f}",
            cell.note,
        )
    return table


def _ratios(cell: Cell, other: Cell) -> list[float]:
    assert cell.timing is not None
    assert other.timing is not None
    return [mine / theirs for mine, theirs in zip(cell.timing.rounds_ms, other.timing.rounds_ms, strict=True)]


def _p50_ms(cell: Cell) -> float:
    assert cell.timing is not None
    return cell.timing.p50_ms


def _accuracy(cell: Cell) -> float:
    assert cell.accuracy is not None
    return cell.accuracy
