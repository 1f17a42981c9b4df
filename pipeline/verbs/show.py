"""`edgeproof show` and `edgeproof verify`: what an earlier run left, looked at again."""

from pathlib import Path

from pydantic import ValidationError
from rich.text import Text

from pipeline.errors import DataError, UsageError
from pipeline.release.verify import verify_release
from pipeline.report.report import Report, read_report
from pipeline.verbs.output import console_for_people, show_outcome, write_json

REPORT_FILE = "report.json"


def run_show(path: Path, *, as_json: bool) -> int:
    """Print a saved report; 0 whatever its verdict, since showing it worked."""
    file = path / REPORT_FILE if path.is_dir() else path
    report = _read(file)
    if as_json:
        write_json(report.model_dump(mode="json"))
    else:
        show_outcome(console_for_people(as_json=False), report, file.parent)
    return 0


def run_verify(path: Path, *, as_json: bool) -> int:
    """Print what differs in a release; 1 where anything does."""
    verification = verify_release(path)
    manifest = verification.manifest
    if as_json:
        differences = [str(difference) for difference in verification.differences]
        write_json({"release": str(path), "ok": verification.ok, "differences": [*differences]})
        return 0 if verification.ok else 1
    console = console_for_people(as_json=False)
    for difference in verification.differences:
        console.print(Text(f"✗ {difference}"), soft_wrap=True)
    if not verification.ok or manifest is None:
        console.print(
            Text(f"{path}: NOT as it was packed: {len(verification.differences)} difference(s)"), soft_wrap=True
        )
        return 1
    accepted = ", undecided budgets accepted" if manifest.accepted_undecided else ""
    console.print(
        Text(
            f"✓ {path}: {manifest.name} {manifest.version} for {manifest.deployment}: all {len(manifest.files)} files "
            f"as packed at {manifest.created_at}; verdict {manifest.verdict.value}{accepted}"
        ),
        soft_wrap=True,
    )
    return 0


def _read(file: Path) -> Report:
    if not file.is_file():
        found = sorted(str(known.parent) for known in Path("build").glob(f"*/*/{REPORT_FILE}"))
        raise UsageError(
            f"{file}: expected a report that a deploy wrote; got nothing there"
            + (f"; there are {', '.join(found)}" if found else "; run `edgeproof deploy` first")
        )
    try:
        return read_report(file.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[-1].strip() if isinstance(error, UnicodeDecodeError) else _first(error)
        raise DataError(
            f"{file}: expected a report of this version; got another file: {reason}; deploy again"
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
