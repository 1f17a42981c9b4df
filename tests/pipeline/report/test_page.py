import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.report import plots
from pipeline.report.page import flat, report_html, summary_words
from pipeline.report.plots import stages_svg
from pipeline.report.report import StageFigures


class Tags(HTMLParser):
    """The page's tags with their attributes, and which ones were left open."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.still_open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.still_open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.still_open.pop() == tag


@pytest.fixture(scope="module")
def page(report, profile) -> str:
    return report_html(report, profile.samples_ns)


def test_page_needs_no_network_and_no_script(page):
    assert "http" not in page
    assert "//" not in page
    assert not {tag for tag, _ in Tags(page).found} & {"script", "link", "img", "iframe", "object"}


def test_page_is_well_formed(page):
    assert Tags(page).still_open == []


def test_every_picture_says_in_words_what_it_shows(page):
    labels = [attributes["aria-label"] for tag, attributes in Tags(page).found if tag == "svg"]
    assert [label.partition(":")[0] for label in labels] == [
        "Latency distribution",
        "Accuracy along the chain on 360 samples",
        "Time in int8, in float and in Q/DQ",
        "Executed operators",
        "Seconds of each stage",
    ]


def test_colours_of_the_pictures_follow_the_readers_scheme(page):
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', page))
    assert used <= set(plots.COLOURS.values())
    assert all(f"--{name}:" in page for name in plots.COLOURS)


def test_words_of_a_recipe_are_never_markup(page):
    assert "digits <1>" not in page
    assert "digits &lt;1&gt;" in page
    assert "no thermal zone &lt;here&gt;" in page


def test_page_is_the_same_for_the_same_report(report, profile, page):
    assert report_html(report, profile.samples_ns) == page


def test_verdicts_are_words_not_only_colours(page):
    for words in ("✓ PASS", "✗ FAIL", "? UNDECIDED"):
        assert words in page


def test_cached_stages_say_so(page):
    assert "1 min 01 s (cached)" in page


def test_a_report_without_measurements_is_still_a_page(report):
    bare = report.model_copy(update={"latency": None, "accuracy": None, "parity": None, "memory": None, "load": None})
    assert Tags(report_html(bare, None)).still_open == []


@pytest.mark.parametrize("samples", [[5000] * 9, [1000], [1, 10**9, 10**9]])
def test_odd_samples_can_be_drawn(report, samples):
    svg = plots.latency_svg(report.latency, np.array(samples))
    assert svg.startswith('<svg role="img"')


@pytest.mark.parametrize(("budget_ms", "words"), [(0.0001, "← limit of p99  0.000100 ms"), (900.0, "900 ms →")])
def test_a_limit_far_from_all_samples_points_off_the_picture(report, profile, budget_ms, words):
    latency = report.latency.model_copy(update={"budget_ms": budget_ms})
    assert words in plots.latency_svg(latency, profile.samples_ns)


def test_summary_counts_what_does_not_hold(report):
    assert summary_words(report) == "1 of 8 budgets missed, 1 of 8 undecided."


def test_nested_context_becomes_dotted_rows():
    assert flat({"cpu": "x", "before": {"load": [0.1, 0.2]}}) == [("cpu", "x"), ("before.load", "0.1, 0.2")]


def test_a_stage_that_runs_twice_has_two_rows() -> None:
    stages = [StageFigures(name="export_onnx", seconds=seconds, cached=False, key="k") for seconds in (1.0, 2.0)]
    svg = stages_svg(stages)
    assert "1. export_onnx" in svg
    assert "2. export_onnx" in svg
