"""The figures of `low_bits_table.py`: one a training, what the teacher buys from pairs of them, a table, and JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from pipeline.seeds import Spread, spread_of

Method = Literal["calibration", "labels", "teacher"]
"""Post-training calibration; quantized training on labels alone; the same on the teacher's word alone."""


@dataclass(frozen=True)
class Cell:
    """One student on one grid from one seed. Accuracies are fractions."""

    network: str
    weight_bits: int
    method: Method
    rate: float | None
    """Peak learning rate; None where nothing is trained."""
    seed: int
    """Of the order of images, and of the choice of those that calibrate."""
    test: float
    """Of the last epoch, in torch: fake-quantized, computed in float32."""
    validation: float
    onnx_sha256: str | None = None
    """The int8 file; of the first seed alone."""
    on_runtime: float | None = None
    """Test accuracy of that file on the runtime."""

    @property
    def key(self) -> tuple[str, int, Method, float | None, int]:
        """What tells it from others."""
        return self.network, self.weight_bits, self.method, self.rate, self.seed


@dataclass(frozen=True)
class Figures:
    """All that is finished."""

    floats: Mapping[str, float]
    """Test accuracy of each float student, by network."""
    cells: tuple[Cell, ...] = ()

    def with_float(self, network: str, test: float) -> "Figures":
        """Return these and the accuracy of a float student."""
        return Figures({**self.floats, network: test}, self.cells)

    def with_cell(self, cell: Cell) -> "Figures":
        """Return these with a cell, in the place of the one with its key, if there is one."""
        cells = {each.key: each for each in self.cells}
        return Figures(self.floats, tuple({**cells, cell.key: cell}.values()))

    def find(self, network: str, weight_bits: int, method: Method, rate: float | None) -> tuple[Cell, ...]:
        """Return the seeds of one kind of cell, in their order."""
        wanted = (network, weight_bits, method, rate)
        return tuple(sorted((cell for cell in self.cells if cell.key[:4] == wanted), key=lambda cell: cell.seed))


def bought(labels: Iterable[Cell], teacher: Iterable[Cell]) -> Spread | None:
    """Return the accuracy that the teacher's word adds to labels, seed by seed; None where no seed has both."""
    on_labels = {cell.seed: cell.test for cell in labels}
    gains = [cell.test - on_labels[cell.seed] for cell in teacher if cell.seed in on_labels]
    return spread_of(gains) if gains else None


def keep(figures: Figures, notes: Sequence[str], path: Path) -> None:
    """Write all figures, and the notes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**asdict(figures), "notes": list(notes)}, indent=2) + "\n")


def kept(path: Path) -> Figures:
    """Read what `keep` wrote; nothing where there is no file."""
    if not path.is_file():
        return Figures({})
    content = json.loads(path.read_text())
    return TypeAdapter(Figures).validate_python({name: content[name] for name in ("floats", "cells")})


def show(console: Console, figures: Figures, notes: Sequence[str]) -> None:
    """Print a row for each network, grid and rate, and the notes."""
    table = Table(title="test accuracy, %", title_justify="left", box=None)
    for column in ("network", "grid"):
        table.add_column(column)
    for column in ("rate", "float", "calibration", "QAT, labels", "QAT, teacher", "teacher buys", "seeds"):
        table.add_column(column, justify="right")
    table.add_column("of the int8 file, in the same order", justify="right")
    for network, weight_bits, rate in _rows(figures.cells):
        found = [
            figures.find(network, weight_bits, "calibration", None),
            figures.find(network, weight_bits, "labels", rate),
            figures.find(network, weight_bits, "teacher", rate),
        ]
        gain = bought(found[1], found[2])
        table.add_row(
            network,
            f"W{weight_bits}A8",
            "" if rate is None else f"{rate:g}",
            f"{100 * figures.floats[network]:.2f}" if network in figures.floats else "",
            *(_words(spread_of([cell.test for cell in cells]) if cells else None) for cells in found),
            _words(gain, sign="+"),
            "" if gain is None else str(gain.n),
            "  ".join(_first_on_runtime(cells) for cells in found),
        )
    console.print(table)
    for note in notes:
        console.print(note, style="dim")


def _rows(cells: Iterable[Cell]) -> list[tuple[str, int, float | None]]:
    """Return networks, grids and rates in the order in which they were met; without a rate where nothing is trained."""
    rates: dict[tuple[str, int], set[float]] = {}
    for cell in cells:
        rates.setdefault((cell.network, cell.weight_bits), set()).update(() if cell.rate is None else (cell.rate,))
    return [(*pair, rate) for pair, found in rates.items() for rate in (sorted(found) or (None,))]


def _words(spread: Spread | None, sign: Literal["", "+"] = "") -> str:
    if spread is None:
        return "-"
    deviation = "" if spread.std is None else f" ±{100 * spread.std:.2f}"
    return f"{100 * spread.mean:{sign}.2f}{deviation}"


def _first_on_runtime(cells: Sequence[Cell]) -> str:
    found = [cell.on_runtime for cell in cells if cell.on_runtime is not None]
    return f"{100 * found[0]:.2f}" if found else "-"
