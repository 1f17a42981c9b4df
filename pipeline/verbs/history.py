"""`edgeproof history` and `edgeproof compare`: what was measured before, and what became of it."""

from pathlib import Path

from pydantic import JsonValue, ValidationError
from rich.console import Console
from rich.text import Text

from pipeline.errors import UsageError
from pipeline.history import Entry, History
from pipeline.measuring.verdict import Verdict
from pipeline.report.comparison import Compared, compare, differences
from pipeline.report.report import SAMPLES_FILE, Report, read_report, read_samples
from pipeline.report.wording import byte_words
from pipeline.verbs.compared import STYLES, compared_table, figure_json, plain_table
from pipeline.verbs.output import EXIT_CODES, console_for_people, write_json


def run_history(build: Path, recipe: str | None, deployment: str | None, *, last: int, as_json: bool) -> int:
    """List the profiles that were taken, the newest last, each beside the one before it under the same conditions."""
    entries = History(build).entries(recipe, deployment, last=last)
    rows = [(entry, find_earlier(entry, entries[:index])) for index, entry in enumerate(entries)]
    if as_json:
        write_json([_row_json(entry, earlier) for entry, earlier in rows])
        return 0
    console = console_for_people(as_json=False)
    if not rows:
        console.print(Text("no profile yet; `edgeproof deploy` takes one"))
        return 0
    table = plain_table(
        "number", "when", "release", "on", "precision", "p50", "p99", "accuracy", "size", "verdict", "since"
    )
    for entry, earlier in rows:
        table.add_row(str(entry.number), *_cells(entry.report), _since(entry, earlier))
    console.print(table)
    return 0


def run_compare(one: str, other: str, *, build: Path, anyway: bool, as_json: bool) -> int:
    """Print what changed from one profile to another; 3 where something became worse, else 0.

    Raises:
        UsageError: they were not taken under the same conditions, and nobody said to compare them anyway.
    """
    before, after = find_profile(one, build), find_profile(other, build)
    differing = differences(before.report, after.report)
    if differing and not anyway:
        raise UsageError(
            f"{one}, {other}: expected profiles of one device, power mode, precision and protocol; got "
            f"{'; '.join(differing)}; compare them nevertheless with --anyway"
        )
    found = _compare(before, after)
    if as_json:
        write_json({"differences": list[JsonValue](differing), "figures": [figure_json(each) for each in found]})
    else:
        _show(console_for_people(as_json=False), found, differing, before.report, after.report)
    return EXIT_CODES[Verdict.FAIL] if any(each.change == "worse" for each in found) else 0


def find_profile(name: str, build: Path) -> Entry:
    """Return a profile by its number in the history, by its report.json, or by the folder that holds it.

    Raises:
        UsageError: there is none, or it is none.
    """
    if name.isdigit():
        return History(build).entry(int(name))
    path = Path(name) / "report.json" if Path(name).is_dir() else Path(name)
    try:
        report = read_report(path.read_text(encoding="utf-8"))
        return Entry(0, report, read_samples(path.with_name(SAMPLES_FILE)))
    except (OSError, ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{name}: expected the number of a profile (`edgeproof history` lists them), a report.json with its "
            f"samples beside it, or its folder; got: {reason}"
        ) from error


def find_earlier(entry: Entry, earlier: list[Entry]) -> Entry | None:
    """Return the last profile of the same deployment and device that was taken under the same conditions."""
    report = entry.report
    for each in reversed(earlier):
        if _subject(each.report) == _subject(report) and not differences(each.report, report):
            return each
    return None


def _subject(report: Report) -> tuple[str, str, str]:
    return report.recipe, report.deployment, report.device


def _compare(before: Entry, after: Entry) -> list[Compared]:
    return list(compare(before.report, after.report, before.samples_ns, after.samples_ns))


def _show(console: Console, found: list[Compared], differing: list[str], before: Report, after: Report) -> None:
    for line in (f"before: {_name(before)}", f"after:  {_name(after)}", *(f"differs: {each}" for each in differing)):
        console.print(Text(line), soft_wrap=True)
    console.print(compared_table(found))
    note = (
        "latency: intervals hold what one run of each can show; two runs of the same model differ by more than that "
        "where caches, clocks or memory layout differ: repeat what matters"
    )
    console.print(Text(note, style="dim"), soft_wrap=True)


def _name(report: Report) -> str:
    where = f"{report.deployment} ({report.target}, {report.precision})"
    return f"{report.recipe} {report.version} on {where}, {report.created_at}"


def _cells(report: Report) -> tuple[str, ...]:
    latency, accuracy = report.latency, report.accuracy
    return (
        report.created_at[:16].replace("T", " "),
        f"{report.recipe} {report.version}",
        f"{report.deployment} ({report.device})",
        report.precision,
        f"{latency.p50_ms:.3g} ms" if latency else "",
        f"{latency.p99_ms:.3g} ms" if latency else "",
        f"{accuracy.on_device:.2%}" if accuracy else "",
        byte_words(report.artifact.size_bytes),
        report.verdict.value,
    )


def _since(entry: Entry, earlier: Entry | None) -> Text:
    """Return what changed since the profile before, in words."""
    if earlier is None:
        return Text("")
    changed = [each for each in _compare(earlier, entry) if each.change in ("worse", "better")]
    words = [(f"{each.name} {each.change}", STYLES[each.change]) for each in changed]
    if not words:
        return Text(f"as {earlier.number}", style="dim")
    return Text(", ").join(Text(text, style=style) for text, style in words)


def _row_json(entry: Entry, earlier: Entry | None) -> dict[str, JsonValue]:
    changes: list[JsonValue] = [figure_json(each) for each in _compare(earlier, entry)] if earlier else []
    since = earlier.number if earlier else None
    return {"number": entry.number, "report": entry.report.model_dump(mode="json"), "since": since, "changes": changes}
