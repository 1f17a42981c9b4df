import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.low_bits_cells import Cell, Figures, Method, bought, keep, kept, show


def cell(method: Method, test: float, *, seed: int = 0, bits: int = 4, rate: float | None = 0.001) -> Cell:
    return Cell("resnet8", bits, method, None if method == "calibration" else rate, seed, test, validation=0.8)


def figures(*cells: Cell) -> Figures:
    return Figures({"resnet8": 0.8241}, cells)


def printed(found: Figures) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(console, found, ("a note",))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_the_teacher_buys_is_the_gain_seed_by_seed() -> None:
    spread = bought(
        [cell("labels", 0.70), cell("labels", 0.72, seed=1)], [cell("teacher", 0.74, seed=1), cell("teacher", 0.71)]
    )
    assert spread is not None
    assert spread.mean == pytest.approx(0.015)  # of 0.01 and 0.02
    assert spread.std == pytest.approx(0.01 / 2**0.5)
    assert spread.n == 2


def test_a_seed_without_its_pair_buys_nothing() -> None:
    assert bought([cell("labels", 0.70)], [cell("teacher", 0.74, seed=1)]) is None
    spread = bought([cell("labels", 0.70), cell("labels", 0.72, seed=1)], [cell("teacher", 0.71)])
    assert spread is not None
    assert (spread.n, spread.std) == (1, None)


def test_a_row_has_the_calibration_that_all_rates_share() -> None:
    rows = printed(
        figures(cell("calibration", 0.5), cell("labels", 0.70, rate=0.003), cell("labels", 0.60), cell("teacher", 0.62))
    ).splitlines()
    slow, fast = (line.split() for line in rows if "W4A8" in line)
    assert slow[2:8] == ["0.001", "82.41", "50.00", "60.00", "62.00", "+2.00"]
    assert fast[2:8] == ["0.003", "82.41", "50.00", "70.00", "-", "-"]


def test_calibration_alone_is_a_row_too() -> None:
    assert "W8A8" in printed(figures(cell("calibration", 0.82, bits=8)))


def test_a_cell_that_comes_again_takes_its_own_place() -> None:
    first, second = cell("labels", 0.70), cell("teacher", 0.71)
    again = replace(first, test=0.72)
    assert figures(first, second).with_cell(again).cells == (again, second)


def test_figures_are_read_as_they_were_kept(tmp_path: Path) -> None:
    found = figures(cell("calibration", 0.5), replace(cell("labels", 0.7), onnx_sha256="ab", on_runtime=0.69))
    keep(found, ("a note",), tmp_path / "low_bits.json")
    assert kept(tmp_path / "low_bits.json") == found


def test_without_a_file_nothing_is_finished(tmp_path: Path) -> None:
    assert kept(tmp_path / "low_bits.json") == Figures({})
