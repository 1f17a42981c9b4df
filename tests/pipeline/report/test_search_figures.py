"""What a report says of the search for a precision: why one ships, what was tried, and which layers are sensitive."""

import re
from dataclasses import replace

import pytest

from pipeline.artifacts import LayerSensitivity, PrecisionChoice, Sensitivity, TriedPrecision
from pipeline.measuring.ratio import Speedup
from pipeline.report.page import report_html, search_html
from pipeline.report.pareto import LABEL_HEIGHT, pareto_svg
from pipeline.report.search_figures import search_figures
from pipeline.report.search_words import off_grid_words, search_lines, short_words, table_rows

FP32 = TriedPrecision("fp32", (), None, 1.0, 1.0, (1.0, 1.0), 1.0, 0.0, -200.0, 400_000, holds=True)
MIXED = TriedPrecision("int8", ("act/<b>",), None, 0.5, 0.5, (0.48, 0.52), 0.5, 0.001, -32.0, 110_000, holds=True)
INT8 = TriedPrecision("int8", (), None, 0.7, 0.7, (0.68, 0.75), 0.7, 0.02, -18.0, 100_000, holds=False)
ON_THE_WAY = TriedPrecision("int8", ("stem",), None, 0.72, 1.03, (1.01, 1.05), 0.721, None, None, None, holds=None)
CHOICE = PrecisionChoice(
    "int8",
    ("act/<b>",),
    None,
    ("stem", "act/<b>"),
    "the fastest that holds: 0.500 of fp32's time, 0.10 pp lost on held-out samples",
    (FP32, MIXED),
    (INT8, ON_THE_WAY),
    ("fp16: no such <kernel>",),
    has_labels=True,
)
SENSITIVITY = Sensitivity(
    (
        LayerSensitivity("act/<b>", "HardSwish", -20.0, 0.01, 0.2, 0.6, 0.0),
        LayerSensitivity("stem", "Conv", -45.0, 0.0, 0.3, None, 1.0),
    ),
    64,
    has_labels=True,
)
FASTER, SLOWER = Speedup(1.9, (1.8, 2.0), 21), Speedup(0.8, (0.75, 0.85), 21)


def test_the_terminal_hears_what_ships_and_why_in_two_lines() -> None:
    first, second = search_lines(search_figures(CHOICE, SENSITIVITY, FASTER))
    assert first.startswith("precision: int8, float: act/<b>: the fastest that holds: 0.500 of fp32's time")
    assert first.endswith("(4 plans tried)")
    assert second == "as it ships: 1.9 times as fast as float on the device (95 %: 1.8 to 2)"


def test_int8_that_did_not_earn_its_place_does_not_ship_and_says_so() -> None:
    figures = search_figures(CHOICE, None, SLOWER)
    assert figures.chosen == "fp32"
    assert "was chosen" in figures.reason
    assert "it is 0.8 times as fast as float, which is slower beyond noise: fp32 ships" in figures.reason
    assert [tried.plan for tried in figures.tried if tried.is_chosen] == ["fp32"]


def test_the_table_has_finalists_and_whole_precisions_the_fastest_first() -> None:
    rows = table_rows(search_figures(CHOICE))
    assert [row.plan for row in rows] == ["int8, float: act/<b>", "int8", "fp32"]


def test_intervals_are_of_comparisons_with_fp32_alone() -> None:
    intervals = {tried.plan: tried.of_fp32_ci for tried in search_figures(CHOICE).tried}
    assert intervals == {
        "fp32": (1.0, 1.0),
        "int8, float: act/<b>": (0.48, 0.52),
        "int8": (0.68, 0.75),
        "int8, float: stem": None,
    }


@pytest.mark.parametrize(
    "words",
    [
        "Which precision, and why",
        "the fastest that holds: 0.500 of fp32",
        "0.500 [0.480, 0.520]",
        "Not run: fp16: no such &lt;kernel&gt;",
        "Sensitivity of the layers",
        "act/&lt;b&gt;<span",
        "-20.0 dB",
        "Error against latency saved of 3 plans",
    ],
)
def test_the_page_shows_table_picture_and_sensitivity(report, words: str) -> None:
    page = report_html(report.model_copy(update={"search": search_figures(CHOICE, SENSITIVITY, FASTER)}), None)
    assert words in page


def test_a_search_has_a_page_of_its_own() -> None:
    page = search_html(search_figures(CHOICE, SENSITIVITY), "net <1>.onnx")
    assert "net &lt;1&gt;.onnx" in page
    assert "ringed: chosen" in page
    assert "http" not in page


def test_without_labels_the_page_says_what_lost_means() -> None:
    page = search_html(search_figures(replace(CHOICE, has_labels=False)), "net")
    assert "largest output is another than the float model" in page


def test_layers_off_the_grid_are_named_and_whole_kinds_counted() -> None:
    layers = tuple(replace(SENSITIVITY.layers[1], name=f"mlp.{place}", op_type="MatMul") for place in range(3))
    sensitivity = replace(SENSITIVITY, layers=(*SENSITIVITY.layers, *layers))
    mixed = replace(MIXED, float_layers=("mlp.0", "mlp.1", "mlp.2", "stem"), rest="int8_dynamic")
    choice = replace(CHOICE, float_layers=mixed.float_layers, rest=mixed.rest, finalists=(FP32, mixed))
    assert off_grid_words(search_figures(choice, sensitivity)) == "Ranges found at run time: all 3 MatMul, stem."
    assert off_grid_words(search_figures(CHOICE, sensitivity)) == "In fp32: act/<b>."
    assert off_grid_words(search_figures(CHOICE, None, SLOWER)) == ""  # fp32 ships


def test_a_label_counts_the_layers_that_a_table_names() -> None:
    labels = {short_words(tried) for tried in search_figures(CHOICE).tried}
    assert labels == {"fp32", "int8, 1 layer float", "int8"}


def test_plans_without_an_error_are_said_not_to_be_drawn() -> None:
    assert "1 of the 4 are not drawn" in search_html(search_figures(CHOICE), "net")
    assert "not drawn" not in search_html(search_figures(replace(CHOICE, explored=(INT8,))), "net")


def test_labels_of_plans_that_lie_on_each_other_do_not() -> None:
    twin = replace(MIXED, float_layers=("stem",), ratio=0.501, of_fp32=0.501, error_db=-32.1)
    svg = pareto_svg(search_figures(replace(CHOICE, finalists=(FP32, MIXED, twin))))
    texts = re.findall(r"translate\(([\d.]+),([\d.]+)\)[^>]*>(int8, 1 layer float[^<]*)<", svg)
    (_, one, _), (_, other, _) = texts
    assert abs(float(one) - float(other)) >= LABEL_HEIGHT - 0.1


def test_a_plan_that_is_many_times_slower_does_not_press_the_others_together() -> None:
    crawling = replace(INT8, of_fp32=40.0)
    svg = pareto_svg(search_figures(replace(CHOICE, explored=(crawling,))))
    assert "-100 or less" in svg
    assert "3,000" not in svg
