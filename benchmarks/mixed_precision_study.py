"""Which layers stay in float, and what that buys: `precision = "auto"` on the hardswish network and on the ViT.

    python benchmarks/mixed_precision_study.py --prepare    # students, ranges and sensitivities: needs no quiet machine
    python benchmarks/mixed_precision_study.py [--only vit] [--seconds 50]    # searches anew, and times what ships

A row is a student on a runtime. The search leaves its page (error against latency saved, every plan a point, the choice
in words, the sensitivity of the layers) in build/bench/mixed_precision/; what ships is then timed in turns with float
and with ONNX Runtime's quantize_dynamic. Students are those of quantization_students.py. EDGEPROOF_DATA names the data.
"""

import argparse
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.bench_quantization import NOTES, RUNTIMES, Bench, Entry, default_float_type
from benchmarks.distillation_table import recipe_with_data
from benchmarks.ours_quantization import MAX_DROP, archived, calibrate_ours, quantize_int8
from benchmarks.quantization_peers import PEERS, Workshop
from benchmarks.quantization_students import BUILD as STUDENTS_BUILD
from benchmarks.quantization_students import (
    Halves,
    Prepared,
    bench_recipe,
    chosen_students,
    prepare_student,
    write_halves,
)
from benchmarks.quantization_table import AUTO, FP32, INT8, MeasuredRow, keep, kept, show
from benchmarks.side_by_side import RESULTS
from pipeline.artifacts import PrecisionChoice, Sensitivity
from pipeline.post_training import Calibrated, write_plan
from pipeline.precision.build import options_of_plan
from pipeline.precision.workbench import Exam
from pipeline.report.page import search_html
from pipeline.report.search_figures import search_figures
from pipeline.report.search_words import search_lines
from pipeline.run import Run, open_run
from pipeline.site import Site
from pipeline.stages.choose_precision import choose_precision, plan_of
from pipeline.stages.measure_sensitivity import measure_sensitivity
from targets.devices.device import open_device
from targets.errors import EdgeproofError
from targets.target import Target

STUDENTS = "mobilenet_v3,vit"
PAGES = RESULTS / "mixed_precision"
RESULT = RESULTS / "mixed_precision.json"
RIVAL = "quantize_dynamic"


def main() -> int:
    """Search and time the rows asked for, print all rows, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=STUDENTS, help=f"names of students, parted by commas; else {STUDENTS}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=50.0, help="of each search, before its last comparison")
    parser.add_argument("--epochs", type=int, help="of every student, to try things out; its own number if left out")
    parser.add_argument("--prepare", action="store_true", help="do all that needs no quiet machine, and stop")
    parser.add_argument("--show", action="store_true", help="print what is measured so far")
    options = parser.parse_args()
    console, report = Console(highlight=False), Console(highlight=False, width=160, record=True)
    rows = kept(RESULT)
    if options.show:
        show(report, rows, NOTES)
        return 0
    torch.set_num_threads(1)
    students = chosen_students(options.only)
    if (found := recipe_with_data(console)) is None:
        return 0
    recipe = bench_recipe(found)
    run = open_run(console, STUDENTS_BUILD)
    halves = write_halves(recipe)
    peers = Workshop(Path(sys.executable), halves.calibration)  # the rival needs nothing beside ONNX Runtime
    bench = Bench(recipe, run, halves, peers, options.rounds, is_fresh=True)
    for student in students:
        prepared = prepare_student(recipe, student, run, options.epochs)
        for runtime in RUNTIMES:
            study = prepare_study(prepared, runtime, halves, run)
            if options.prepare:
                know_accuracies(study, bench)
                continue
            rows[study.name] = study.measure(bench, options.seconds)
            keep(rows, NOTES, RESULT)
    if not options.prepare:
        show(report, rows, NOTES)
        report.save_text(str(RESULT.with_suffix(".txt")))
    return 0


@dataclass(frozen=True)
class Study:
    """One student on one runtime, with everything that does not depend on how busy the machine is."""

    prepared: Prepared
    runtime: Target
    site: Site
    exam: Exam
    calibrated: Calibrated
    sensitivity: Sensitivity

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.prepared.student.name}-{self.runtime.kind}"

    def measure(self, bench: Bench, seconds: float) -> MeasuredRow:
        """Search, write the page, and time what ships in turns with float, plain int8 and the rival."""
        choice = self._search(bench.run, seconds)
        figures = search_figures(choice, self.sensitivity)
        for line in search_lines(figures):
            bench.run.say(f"{self.name}: {line}")
        page = PAGES / f"{self.name}.html"
        page.write_text(search_html(figures, f"{self.prepared.student.name} on {self.runtime.kind}"), encoding="utf-8")
        page.with_suffix(".json").write_text(figures.model_dump_json(indent=2) + "\n")
        bench.run.say(f"{self.name}: {page}")
        command = f"python benchmarks/mixed_precision_study.py {' '.join(sys.argv[1:])}".rstrip()
        return bench.measure(self.name, self._entries(choice, bench), self.runtime, command)

    def _search(self, run: Run, seconds: float) -> PrecisionChoice:
        prepared, ranges = self.calibrated.prepared, self.calibrated.ranges
        scheme = self.runtime.post_training_scheme
        return run.measure(
            f"choose_precision ({self.name})",
            lambda _: choose_precision(
                PAGES,
                prepared,
                ranges,
                self.runtime,
                self.site,
                self.exam,
                threads=1,
                scheme=scheme,
                seconds=seconds,
            ),
        )

    def _entries(self, choice: PrecisionChoice, bench: Bench) -> list[Entry]:
        plan = plan_of(choice)
        shipped = write_plan(self.calibrated, self.runtime, plan, bench.run).path
        return [Entry(AUTO, options_of_plan(plan, 1).precision, shipped, plan.words), *self.rivals(bench)]

    def rivals(self, bench: Bench) -> list[Entry]:
        """Return what `auto` is timed with: float, plain int8, and what quantize_dynamic makes of the float file."""
        files: list[tuple[str, Path | None, str]] = [
            (FP32, self.prepared.onnx.path, ""),
            (INT8, quantize_int8(self.calibrated, self.runtime, bench.run), ""),
        ]
        for peer in PEERS:
            if peer.column.startswith(RIVAL):
                made = bench.peers.make(peer, self.prepared)
                files.append((peer.column, made.path, made.reason or ""))
        precisions = dict.fromkeys((FP32, default_float_type(self.runtime)))
        return [Entry(column, precision, path, note) for precision in precisions for column, path, note in files]


def prepare_study(prepared: Prepared, runtime: Target, halves: Halves, run: Run) -> Study:
    """Return a study after its ranges and sensitivities were found, or read from the store."""
    PAGES.mkdir(parents=True, exist_ok=True)
    device = open_device("local", run.work)
    site = Site(device, device.probe(runtime))
    exam = Exam(samples=archived(halves.exam), max_drop=MAX_DROP, labels=halves.exam_labels)
    calibrated = calibrate_ours(prepared.onnx.path, halves.calibration, runtime, run)
    sensitivity = run.stage(
        measure_sensitivity,
        calibrated.prepared,
        calibrated.ranges,
        runtime,
        site,
        exam,
        threads=1,
        scheme=runtime.post_training_scheme,
    )
    return Study(prepared, runtime, site, exam, calibrated, sensitivity)


def know_accuracies(study: Study, bench: Bench) -> None:
    """Find the accuracies of everything that does not depend on the search, so that measuring need not."""
    for contender in (entry.contender for entry in study.rivals(bench)):
        if contender is not None:
            with contextlib.suppress(EdgeproofError):  # a file that is refused is a finding of the row
                bench.accuracy(study.runtime, contender)


if __name__ == "__main__":
    sys.exit(main())
