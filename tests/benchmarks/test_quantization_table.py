import io
from pathlib import Path

from rich.console import Console

from benchmarks.quantization_row import Timing
from benchmarks.quantization_table import Cell, MeasuredRow, Verdict, judge, keep, kept, show


def cell(column: str, *rounds_ms: float, accuracy: float = 0.8, precision: str = "fp32") -> Cell:
    return Cell(column, precision, Timing(sorted(rounds_ms)[len(rounds_ms) // 2], min(rounds_ms), rounds_ms), accuracy)


def judged(*cells: Cell) -> Verdict:
    verdict = judge("net-runtime", cells)
    assert verdict is not None
    return verdict


FP32 = cell("fp32", 2.0, 2.2, 2.4)
PEER = cell("Olive", 1.0, 1.1, 1.2)


def test_the_ratio_is_the_best_of_all_others_over_auto_round_by_round() -> None:
    verdict = judged(FP32, PEER, cell("ours, auto", 0.5, 1.0, 1.2))
    assert verdict.best == PEER
    assert verdict.row.ratio == 1.1  # median of 1 / 0.5, 1.1 / 1, 1.2 / 1.2
    assert verdict.row.spread == (1.0, 2.0)
    assert verdict.words == "holds"


def test_two_percent_slower_still_holds_and_three_do_not() -> None:
    assert judged(FP32, PEER, cell("ours, auto", 1.02, 1.122, 1.224)).words == "holds"
    assert judged(FP32, PEER, cell("ours, auto", 1.03, 1.133, 1.236)).words == "fails: slower"


def test_floats_in_bf16_are_a_rival_too() -> None:
    bf16 = cell("fp32", 0.4, 0.5, 0.6, precision="bf16")
    verdict = judged(FP32, bf16, PEER, cell("ours, auto", 1.0, 1.1, 1.2))
    assert verdict.best.label == "fp32, bf16"
    assert verdict.words == "fails: slower"


def test_a_faster_rival_that_lost_its_accuracy_is_told_apart() -> None:
    broken = cell("NNCF", 0.5, 0.5, 0.5, accuracy=0.7)
    verdict = judged(FP32, broken, PEER, cell("ours, auto", 1.0, 1.1, 1.2))
    assert verdict.best == broken
    assert verdict.accurate_best == PEER
    assert verdict.words == "holds among the accurate"


def test_auto_fails_where_it_loses_more_than_half_a_point() -> None:
    assert judged(FP32, PEER, cell("ours, auto", 0.1, 0.1, 0.1, accuracy=0.796)).words == "holds"
    assert judged(FP32, PEER, cell("ours, auto", 0.1, 0.1, 0.1, accuracy=0.794)).words == "fails: 0.60 points lost"


def test_a_row_without_figures_of_auto_is_not_judged() -> None:
    assert judge("net-runtime", [FP32, PEER, Cell("ours, auto", "fp32", None, None, "refused")]) is None


def test_what_is_kept_is_read_back_and_shown(tmp_path: Path) -> None:
    failed = Cell("aimet-torch", "fp32", None, None, "KeyError: 'conv1'")
    rows = {"net-runtime": MeasuredRow((FP32, PEER, failed, cell("ours, auto", 1.0, 1.1, 1.2)), "on a board, at noon")}
    keep(rows, ["a note"], tmp_path / "kept.json")
    assert kept(tmp_path / "kept.json") == rows
    console = Console(file=io.StringIO(), width=200)
    show(console, rows, ["a note"])
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "KeyError: 'conv1'" in shown
    assert "holds" in shown
    assert "on a board, at noon" in shown
