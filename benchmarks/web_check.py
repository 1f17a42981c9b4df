"""What a web package does where it is meant to run: npm installs it, Node, Chromium and a bundled page prove it.

Run: PYTHONPATH=. .venv/bin/python benchmarks/web_check.py [RELEASE.zip] [--onnxruntime VERSION] [--name NPM-NAME]
Needs npm with its registry, Node and Chromium. The table goes to build/bench/web_check.json too, a picture of the
package's example page to build/bench/web_check.png. Exits with 1 where an answer differs or a changed model is taken.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.headless_chromium import PageError, chromium, find_chromium, serve
from benchmarks.web_lab import RUNTIMES, TYPESCRIPT, Installed, LabError, add_package, missing_tools, new_app
from pipeline.release.golden import Golden
from pipeline.release.payload import read_payload
from pipeline.release.platforms.web import Web
from pipeline.release.self_test import SelfTest
from targets.errors import EdgeproofError

OUT = Path("build/bench/web_check.json")
PICTURE = OUT.with_suffix(".png")
RELEASE = Path("build/digits/cpu/release/digits-0.1.0-cpu.zip")
WIDTH, HEIGHT = 1000, 900


@dataclass(frozen=True)
class Row:
    """One thing that was tried."""

    tried: str
    found: str
    is_good: bool
    seconds: float


def tried(what: str, do: Callable[[], tuple[str, bool]]) -> Row:
    """Return what was found, and how long it took."""
    start = time.monotonic()
    try:
        found, is_good = do()
    except (LabError, PageError) as error:
        found, is_good = str(error).strip(), False
    return Row(what, found, is_good, time.monotonic() - start)


def refused(do: Callable[[], object]) -> tuple[str, bool]:
    """Return how a changed model was refused."""
    try:
        do()
    except (LabError, PageError) as error:
        message = next((line for line in str(error).splitlines() if "sha256" in line), str(error))
        return message, "model.onnx: expected sha256" in message
    return "taken", False


def judged(report: SelfTest, golden: Golden) -> tuple[str, bool]:
    """Return golden answers and latencies in words, and whether the answers hold."""
    difference, milliseconds = report.golden.largest_difference, np.concatenate(report.blocks_ns) / 1e6
    median, largest = np.quantile(milliseconds, (0.5, 0.99), method="inverted_cdf")
    holds = report.golden.labels_equal and difference is not None and difference <= golden.tolerance
    return (
        f"{report.golden.samples} golden answers, largest difference {difference} (step {golden.step:.3g}, "
        f"tolerance {golden.tolerance:.3g}); {report.runtime_version}: median {median:.3f} ms, p99 {largest:.3f} ms, "
        f"n = {milliseconds.size}"
    ), holds


def in_chromium(folder: Path, page: str, picture: Path | None = None) -> SelfTest:
    """Open a page of a folder in a fresh browser and return its self-test; raises PageError where it refuses."""
    program = find_chromium()
    assert program is not None
    with serve(folder) as address, chromium(program) as browser:
        browser.open(address + page, width=WIDTH, height=HEIGHT)
        report = SelfTest.model_validate_json(json.dumps(browser.evaluate("finished")))
        if picture is not None:
            picture.write_bytes(browser.screenshot())
    return report


def check(installed: Installed, golden: Golden) -> Iterator[Row]:
    """Try everything; the last thing breaks the model."""

    def types() -> tuple[str, bool]:
        installed.check_types()
        return f"typescript {installed.app.version_of('typescript')} takes an app, the sources, and no wrong call", True

    page, folder = installed.page, installed.app.folder
    yield tried("declarations", types)
    yield tried("Node", lambda: judged(installed.self_test(), golden))
    yield tried("Chromium, the package's own page", lambda: judged(in_chromium(folder, page, PICTURE), golden))
    yield tried("Chromium, a page built by Vite", lambda: judged(in_chromium(folder, installed.bundle()), golden))
    installed.tamper()
    yield tried("Node, one bit of the model changed", lambda: refused(installed.self_test))
    yield tried("Chromium, one bit of the model changed", lambda: refused(lambda: in_chromium(folder, page)))


def main() -> int:
    """Package, try everything, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, nargs="?", default=RELEASE, help="its archive (default: %(default)s)")
    parser.add_argument("--onnxruntime", default="latest", help="version of its npm packages (default: %(default)s)")
    parser.add_argument("--name", help="npm name of the package, as a recipe may set it")
    given = parser.parse_args()
    if missing := missing_tools():
        sys.exit(f"skipped: needs {', '.join(missing)}")
    try:
        payload = read_payload(given.release)
    except EdgeproofError as error:
        sys.exit(str(error))
    package = Web(name=given.name).package(payload, None)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="web-check-") as name:
        runtimes = [f"{runtime}@{given.onnxruntime}" for runtime in RUNTIMES]
        app = new_app(Path(name), [*runtimes, *TYPESCRIPT, "vite"])
        installed = add_package(app, package)
        rows = [*check(installed, payload.golden)]
    print(f"{package.archive}: {len(package.files[package.archive])} bytes, model {len(payload.model)} bytes")
    for row in rows:
        print(f"{'ok ' if row.is_good else 'BAD'} {row.tried} ({row.seconds:.1f} s)\n    {row.found}")
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"{OUT}, {PICTURE}")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
