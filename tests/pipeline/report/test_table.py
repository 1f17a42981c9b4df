import io

import pytest
from rich.console import Console

from pipeline.measuring.verdict import Check, Limit, Verdict, check, judged, undecided
from pipeline.report.table import show_checks
from pipeline.report.wording import figure, interval_words, margin_words, second_words

LATENCY = check(Limit("latency", 0.4, "ms"), 1.25, Verdict.FAIL, "p99 of 512 samples", interval=(1.2, 1.3))


def shown(checks: list[Check], *, terminal: bool, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(file=stream, force_terminal=terminal, width=120, color_system=None)
    show_checks(console, checks, Verdict.FAIL)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_a_log_gets_one_line_a_budget():
    assert shown([LATENCY], terminal=False).splitlines() == [
        "latency: 1.25 ms (95 %: 1.20 to 1.30), limit ≤ 0.400 ms, 3.12x over: ✗ FAIL; p99 of 512 samples",
        "verdict: ✗ FAIL",
    ]


def test_a_log_in_ascii_is_still_readable():
    assert "limit <= 0.400 ms, 3.12x over: FAIL" in shown([LATENCY], terminal=False, encoding="ascii")


def test_a_terminal_gets_a_table_with_the_reason_of_what_does_not_hold():
    lines = shown([LATENCY, judged(Limit("size", 10_000, "bytes"), 5000, "of the file")], terminal=True)
    assert "95 % interval" in lines
    assert "p99 of 512 samples" in lines
    assert "of the file" not in lines


@pytest.mark.parametrize(
    ("limit", "measured", "margin"),
    [
        (Limit("latency", 1.0, "ms"), 3.1, "3.10x over"),
        (Limit("latency", 1.0, "ms"), 1.12, "12.0 % over"),
        (Limit("latency", 1.0, "ms"), 0.38, "62 % spare"),
        (Limit("accuracy", 0.97, "fraction", "min"), 0.962, "0.80 pp below"),
        (Limit("accuracy", 0.97, "fraction", "min"), 0.98, "1.00 pp spare"),
        (Limit("accuracy_drop_student", 0.01, "fraction_lost"), 0.015, "0.50 pp over"),
        (Limit("parity_max_abs_diff", 0.0, "logit"), 0.5, "0.5 over"),
        (Limit("parity_max_abs_diff", 0.0, "logit"), 0.0, "none spare"),
    ],
)
def test_margin_says_by_how_much(limit, measured, margin):
    assert margin_words(judged(limit, measured, "")) == margin


def test_what_was_not_measured_has_no_margin():
    assert margin_words(undecided(Limit("latency", 1.0, "ms"), "")) == "-"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.00012345, "ms", "0.000123 ms"),
        (1234.5, "ms", "1,230 ms"),
        (9.996, "ms", "10.0 ms"),
        (307_200, "bytes", "307.2 kB"),
        (9_999, "bytes", "9,999 B"),
        (0.97222, "fraction", "97.22 %"),
        (-0.0028, "fraction_lost", "-0.28 pp"),
    ],
)
def test_figures_carry_their_unit(value, unit, words):
    assert figure(value, unit) == words


def test_an_interval_across_two_units_names_both():
    size = check(Limit("memory", 1, "bytes"), 1, Verdict.PASS, "", interval=(9_000, 2_000_000))
    assert interval_words(size) == "9,000 B to 2.0 MB"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.314, "0.31 s"), (2.44, "2.4 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations_read_as_people_say_them(seconds, words):
    assert second_words(seconds) == words
