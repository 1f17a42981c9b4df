"""report.html: one file that works offline, without a script. Rule: every word comes escaped from the report."""

from collections.abc import Mapping

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from pipeline.measuring.verdict import Verdict
from pipeline.report import fusion_words, pareto, plots, search_words, sensor_words, wording
from pipeline.report.report import PrecisionFigures, Report


def report_html(report: Report, samples_ns: np.ndarray | None) -> str:
    """Return the page of a report; without samples the latency has no picture."""
    page = _environment().get_template("report.html.jinja")
    return page.render(
        report=report,
        summary=summary_words(report),
        pictures={name: Markup(svg) for name, svg in _pictures(report, samples_ns).items()},
        colours=plots.COLOURS,
        context=flat(report.context),
        words=wording,
        fusion_words=fusion_words,
        sensor_words=sensor_words,
        search_words=search_words,
    )


def search_html(search: PrecisionFigures, title: str) -> str:
    """Return a page of nothing but a search for a precision."""
    return (
        _environment()
        .get_template("search_page.html.jinja")
        .render(
            title=title,
            search=search,
            pictures=_search_picture(search),
            colours=plots.COLOURS,
            words=wording,
            search_words=search_words,
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def summary_words(report: Report) -> str:
    """Return the outcome in one sentence."""
    counts = {verdict: sum(check.verdict is verdict for check in report.checks) for verdict in Verdict}
    if not report.checks:
        return "No budget was set: figures only."
    total = len(report.checks)
    if report.verdict is Verdict.PASS:
        return f"All {total} budgets hold." if total > 1 else "The budget holds."
    missed = f"{counts[Verdict.FAIL]} of {total} budgets missed" if counts[Verdict.FAIL] else ""
    open_ = f"{counts[Verdict.UNDECIDED]} of {total} undecided" if counts[Verdict.UNDECIDED] else ""
    sentence = ", ".join(part for part in (missed, open_) if part) + "."
    return f"{sentence} Accepted as undecided." if report.accepted_undecided else sentence


def flat(values: Mapping[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as rows of dotted name and text."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            rows += flat(value, f"{path}.")
        else:
            rows.append((path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _search_picture(search: PrecisionFigures) -> dict[str, Markup]:
    """Return the picture, where anything was judged."""
    if all(tried.error_db is None for tried in search.tried):
        return {}
    return {"search": Markup(pareto.pareto_svg(search))}


def _pictures(report: Report, samples_ns: np.ndarray | None) -> dict[str, str]:
    least = next((check.limit for check in report.checks if check.name == "accuracy"), None)
    pictures: dict[str, str] = {}
    if report.latency and samples_ns is not None:
        pictures["latency"] = plots.latency_svg(report.latency, samples_ns)
    if report.accuracy:
        pictures["accuracy"] = plots.accuracy_svg(report.accuracy, least)
    if report.stages:
        pictures["stages"] = plots.stages_svg(report.stages)
    if report.fusion and report.fusion.int8_time_share is not None:
        pictures["fusion"] = plots.fusion_svg(report.fusion)
    if report.search:
        pictures |= _search_picture(report.search)
    if report.executed.operators:
        pictures["executed"] = plots.executed_svg(report.executed)
    return pictures
