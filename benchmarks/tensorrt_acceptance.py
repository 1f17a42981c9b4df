"""Which ONNX files NVIDIA's parser and builder take: here, and on an emulated arm64 device.

Run: OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/tensorrt_acceptance.py PATH... [--arm64 ROOT --site DIR]

Each PATH is a file, or a folder that is searched. For --arm64: ROOT is the root file system of an arm64 Linux with
Python 3.11 and NumPy in ROOT/armsite, --qemu the user-mode emulator, and DIR holds NVIDIA's wheels for it:

    pip install --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \\
        --platform manylinux_2_35_aarch64 --target DIR tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings
    cp -r .venv/lib/python3*/site-packages/tensorrt_rtx DIR

It shows that models are taken and engines built, and nothing of their speed: no engine is executed.
"""

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from targets.errors import EdgeproofError
from targets.tensorrt import TensorRt

OUT = Path("build/bench/tensorrt_acceptance.json")
SOURCES = Path(__file__).absolute().parents[1]
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Row:
    """What was said of one file."""

    model: str
    verdict: str
    engine_bytes: int | None
    arm64_engine_bytes: int | None
    """Built under emulation; None where nothing was, or nobody asked."""
    reason: str


@dataclass(frozen=True)
class Emulated:
    """An arm64 Linux, run by a user-mode emulator."""

    qemu: Path
    root: Path
    site: Path

    def build(self, model: Path) -> int | None:
        """Return the size of the engine that NVIDIA's builder for arm64 makes."""
        python = ("-L", str(self.root), str(self.root / "usr/bin/python3.11"))
        paths = (self.site, SOURCES, self.root / "armsite")
        with tempfile.TemporaryDirectory() as folder:
            request, answer = Path(folder) / "request.json", Path(folder) / "answer.jsonl"
            request.write_text(json.dumps({"model": str(model.absolute()), "shapes": {}}))
            program = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
            worker = str(SOURCES / "targets" / "tensorrt_parse.py")
            subprocess.run(
                [str(self.qemu), *python, "-c", program, worker, str(request), str(answer)],
                env={
                    "QEMU_CPU": "cortex-a76",
                    "PYTHONHOME": str(self.root / "usr"),
                    "PYTHONPATH": ":".join(map(str, paths)),
                },
                timeout=TIMEOUT_S,
                check=False,
                capture_output=True,
            )
            lines = answer.read_text().splitlines() if answer.exists() else []
        last = json.loads(lines[-1]) if lines else {}
        size = last.get("engine_bytes")
        return size if isinstance(size, int) else None


def check(model: Path, name: str, device: Emulated | None) -> Row:
    """Ask about one file."""
    try:
        found = TensorRt().check_model(model, {}, timeout_s=TIMEOUT_S)
    except EdgeproofError as error:
        return Row(name, "not asked", None, None, str(error))
    reason = found.objections[0].describe() if found.objections else ""
    on_arm64 = device.build(model) if device else None
    return Row(name, found.verdict, found.size_bytes, on_arm64, reason)


def find_models(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each file with the name that the table gives it."""
    for path in paths:
        if path.is_dir():
            yield from ((file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*.onnx")))
        else:
            yield path, path.name


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--arm64", type=Path, metavar="ROOT")
    parser.add_argument("--site", type=Path, metavar="DIR")
    parser.add_argument("--qemu", type=Path, default=Path("qemu-aarch64-static"))
    given = parser.parse_args()
    device = Emulated(given.qemu, given.arm64.absolute(), given.site.absolute()) if given.arm64 else None
    rows = []
    for model, name in find_models(given.paths):
        row = check(model, name, device)
        rows.append(row)
        arm64 = f"{row.arm64_engine_bytes or '-':>10}" if device else ""
        print(f"{row.model:48} {row.verdict:10} {row.engine_bytes or '-':>10} {arm64} {row.reason[:90]}", flush=True)
    print(f"{TensorRt().find_checker()}: {dict(Counter(row.verdict for row in rows))} of {len(rows)}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
