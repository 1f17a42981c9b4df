"""What is said of fusion and of parity that fails: sentences that name cause, cost and remedy."""

from dataclasses import replace

import pytest

from pipeline.artifacts import Bisection, Divergence, Hop, Parity
from pipeline.report.build import Evidence, Subject, build_report, fusion_figures
from pipeline.report.fusion_words import bisection_lines, fusion_lines
from pipeline.report.page import report_html
from pipeline.report.report import Report

SUBJECT = Subject(recipe="r", version="1", deployment="d", target="null", device="local", precision="int8")
NAMED, WORST = Divergence("conv2/QuantizeLinear", 3.25, 0.4, 1.0), Divergence("logits", 41.0, 2.0, 1.0)
BISECTION = Bisection("torch to ONNX", NAMED, WORST, 15, 32, "compared behind 14 of the 14 calls")


def rebuild(evidence: Evidence) -> Report:
    return build_report(SUBJECT, evidence, (), stages=(), created_at="2026-01-01T00:00:00+00:00")


def test_islands_of_one_cause_are_one_line_with_their_cost_and_remedy(evidence):
    assert fusion_lines(fusion_figures(evidence.fusion), most_islands=2) == [
        "fusion: 11 of 13 executed operators in int8, 70 % of the time (25 % in float, 5 % in Q/DQ); "
        "1 stray Q/DQ: conv3/QuantizeLinear (between conv3 and add1)",
        "HardSwish runs in float on null (no integer kernel): 34 % of the time in 2 islands; use ReLU6 in the student",
    ]


def test_what_is_not_printed_is_counted(evidence):
    other = replace(evidence.fusion.islands[0], subject="PReLU")
    proof = replace(evidence.fusion, islands=(*evidence.fusion.islands, other))
    assert fusion_lines(fusion_figures(proof), most_islands=1)[-1] == "1 more float island: see the report"


def test_a_float_model_is_one_line(evidence):
    proof = replace(evidence.fusion, int8_operators=0, conversions=0, islands=(), strays=())
    assert fusion_lines(fusion_figures(proof), 2) == ["fusion: nothing is int8; all 13 operators compute in float"]


@pytest.mark.parametrize(
    ("bisection", "words"),
    [
        (BISECTION, "parts first at conv2/QuantizeLinear (3.25 LSB; budget 1), the first of 15 compared on 32 images"),
        (BISECTION, "; the largest is logits (41 LSB; budget 1)"),
        (replace(BISECTION, first=None, largest=NAMED), "parts, but no single tensor of 15"),
        (replace(BISECTION, first=replace(NAMED, lsb=float("inf"))), "conv2/QuantizeLinear (not finite)"),
    ],
)
def test_the_tensor_where_parity_fails_is_named(evidence, bisection, words):
    hop = Hop(2.0, 0.5, 360)
    report = rebuild(replace(evidence, parity=Parity(hop, hop, (bisection,))))
    (line,) = bisection_lines(report.parity)
    assert line.startswith("torch to ONNX ")
    assert words in line
    assert words in report_html(report, None)


def test_the_page_lists_causes_and_strays_as_words(evidence):
    page = report_html(rebuild(evidence), None)
    for words in ("What runs in int8", "use ReLU6 in the student", "conv3 and add1", "blocks.0/HardSwish &lt;1&gt;"):
        assert words in page
