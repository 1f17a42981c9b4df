"""What every benchmark shares: interleaved runs, medians and ratios, one table, as text and JSON under build/bench/."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.table import Table

RESULTS = Path("build") / "bench"
FIGURES_WIDTH = 60


@dataclass(frozen=True)
class Row:
    """One comparison: medians over n interleaved rounds, their ratio, and the spread of the rounds' ratios."""

    name: str
    ours: float
    peer: float
    ratio: float
    """Median over the rounds of ours / peer."""
    n: int
    spread: tuple[float, float]
    """Smallest and largest ratio of a round."""


def interleave(name: str, ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Row:
    """Run both alternately, the order swapped every round, so that a noisy machine is noisy for both."""
    pairs: list[tuple[float, float]] = []
    for round_ in range(rounds):
        if round_ % 2:
            second = peer()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, peer()))
    return summarize(name, pairs)


def summarize(name: str, pairs: Sequence[tuple[float, float]]) -> Row:
    """Return the row of rounds (ours, peer)."""
    ratios = [mine / theirs for mine, theirs in pairs]
    return Row(
        name=name,
        ours=statistics.median(mine for mine, _ in pairs),
        peer=statistics.median(theirs for _, theirs in pairs),
        ratio=statistics.median(ratios),
        n=len(pairs),
        spread=(min(ratios), max(ratios)),
    )


def publish(
    name: str,
    unit: str,
    rows: Sequence[Row],
    notes: Sequence[str],
    figures: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:
    """Print the table, the figures that belong to it by title, and the notes; write them under `build/bench/`."""
    table = Table(title=f"{name} ({unit})", box=None, title_justify="left")
    table.add_column("row")
    for column in ("ours", "peer", "ours / peer", "n", "spread of the ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        spread = f"{row.spread[0]:.3f} .. {row.spread[1]:.3f}"
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.peer:.4g}", f"{row.ratio:.3f}", str(row.n), spread)
    console = Console(record=True)
    console.print(table)
    for title, values in figures.items():
        console.print(_figures_table(title, values))
    for note in notes:
        console.print(note, style="dim", highlight=False)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "name": name,
        "unit": unit,
        "rows": [asdict(row) for row in rows],
        "figures": {title: dict(values) for title, values in figures.items()},
        "notes": list(notes),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    console.save_text(str(path.with_suffix(".txt")))
    console.print(f"written: {path}, {path.with_suffix('.txt').name}", highlight=False)


def _figures_table(title: str, values: Mapping[str, float]) -> Table:
    table = Table(title=f"\n{title}", box=None, title_justify="left", show_header=False)
    table.add_column(min_width=FIGURES_WIDTH)
    table.add_column(justify="right")
    for label, value in values.items():
        table.add_row(label, f"{value:.4g}")
    return table
