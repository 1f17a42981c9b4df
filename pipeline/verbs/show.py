"""`edgeproof show`: what an earlier run left, looked at again."""

from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import DataError, UsageError
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
