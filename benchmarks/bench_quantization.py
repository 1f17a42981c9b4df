"""Our int8, and `auto`, beside Olive, NNCF, aimet-torch and ONNX Runtime's own quantizers: five students on CIFAR-10.

Run: make bench-quantization ARGS="--rounds 9"
     make bench-quantization ARGS="--only resnet8,vit"    # those rows anew; the others stay as they are
     make bench-quantization ARGS="--show"                # what is measured so far; runs nothing
Students, the peers' files, what auto chose and accuracies are kept under build/bench/quantization/, by content.
Latencies are measured anew. EDGEPROOF_DATA names the data folder. The peers get an environment in build/.
"""

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.bench_distillation import cpu_name
from benchmarks.distillation_table import recipe_with_data
from benchmarks.ours_quantization import calibrate_ours, quantize_int8, ship_auto
from benchmarks.peers.environment import peer_python
from benchmarks.quantization_peers import PEERS, REQUIREMENTS, Workshop, file_digest
from benchmarks.quantization_row import RUNS, TURNS, Contender, accuracy_of, time_contenders
from benchmarks.quantization_students import (
    BUILD,
    CALIBRATION_IMAGES,
    Halves,
    Prepared,
    bench_recipe,
    chosen_students,
    prepare_student,
    write_halves,
)
from benchmarks.quantization_table import AUTO, FP32, INT8, RESULT, Cell, MeasuredRow, keep, kept, show
from benchmarks.side_by_side import RESULTS
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from targets.errors import EdgeproofError
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino
from targets.target import FloatType, Target

RUNTIMES: tuple[Target, ...] = (OnnxRuntime(), OpenVino())
ACCURACIES = BUILD / "accuracies.json"
NOTES = (
    "students: trained for a few epochs from labels alone (benchmarks/quantization_students.py), so accuracies are not "
    "the networks' best. accuracy: of the 10,000 test images, one by one, by the file and session that are timed.",
    f"every quantizer gets the same float ONNX file (aimet-torch: the same weights in torch) and the same "
    f"{CALIBRATION_IMAGES} images of the validation cut. fp32: floats pinned to fp32; bf16: as OpenVINO has them by "
    "default where the processor can.",
    "batch 1, one thread, through the targets' sessions. A round opens every file anew and takes turns in shuffled "
    "order; p50: median of the rounds' medians; rounds: least and largest of them. Ratios: median over the rounds.",
    "the bar: auto at most 2 % slower than the best of all others, at most 0.5 points of accuracy lost to fp32. "
    "'accurate best': among those that lose no more than that either.",
)


@dataclass(frozen=True)
class Entry:
    """A file of one column, as one line of the table: how it runs, or why there is none."""

    column: str
    precision: str
    file: Path | None
    note: str = ""

    @property
    def contender(self) -> Contender | None:
        """The file as it is timed."""
        return Contender(self.file, file_digest(self.file), self.precision) if self.file else None


def main() -> int:
    """Fill the rows asked for, print all rows, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of students, parted by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, help="of every student, to try things out; its own number if left out")
    parser.add_argument("--threads", type=int, default=2, help="of training; latency is always of one")
    parser.add_argument("--fresh", action="store_true", help="search for what auto ships again")
    parser.add_argument("--show", action="store_true", help="print what is measured so far")
    options = parser.parse_args()
    console, report = Console(highlight=False), Console(highlight=False, width=160, record=True)
    rows = kept()
    if options.show:
        show(report, rows, NOTES)
        return 0
    torch.set_num_threads(options.threads)
    students = chosen_students(options.only)
    if (found := recipe_with_data(console)) is None:
        return 0
    recipe = bench_recipe(found)
    python = peer_python(RESULTS / "quantization-venv", REQUIREMENTS)
    run = open_run(console, BUILD)
    halves = write_halves(recipe)
    bench = Bench(recipe, run, halves, Workshop(python.absolute(), halves.calibration), options.rounds, options.fresh)
    for student in students:
        prepared = prepare_student(recipe, student, run, options.epochs)
        for runtime in RUNTIMES:
            rows[f"{student.name}-{runtime.kind}"] = bench.fill_row(prepared, runtime)
            keep(rows, NOTES)
    show(report, rows, NOTES)
    report.save_text(str(RESULT.with_suffix(".txt")))
    return 0


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    recipe: Recipe
    run: Run
    halves: Halves
    peers: Workshop
    rounds: int
    is_fresh: bool
    """Search for `auto` again, though nothing changed."""

    def fill_row(self, prepared: Prepared, runtime: Target) -> MeasuredRow:
        """Make every file of a row, measure its accuracy, and time all of them interleaved."""
        name = f"{prepared.student.name}-{runtime.kind}"
        self.run.say(f"{name}: files")
        command = f"make bench-quantization ARGS='{' '.join(sys.argv[1:])}'"
        return self.measure(name, list(self._entries(prepared, runtime)), runtime, command)

    def measure(self, name: str, entries: Sequence[Entry], runtime: Target, command: str) -> MeasuredRow:
        """Measure the accuracy of every file of a row, and time all of them interleaved; `command` made the row."""
        contenders = [entry.contender for entry in entries]
        accuracies: list[float | None] = []
        notes = [entry.note for entry in entries]
        for place, contender in enumerate(contenders):
            try:
                accuracies.append(self.accuracy(runtime, contender) if contender else None)
            except EdgeproofError as error:  # a file that the runtime refuses is a finding, not an end
                accuracies.append(None)
                contenders[place], notes[place] = None, str(error)
        self.run.say(f"{name}: {self.rounds} rounds")
        with np.load(self.halves.calibration) as arrays:
            feeds = {name: np.ascontiguousarray(arrays[name][:1]) for name in arrays.files}
        runnable = [contender for contender in contenders if contender]
        timings = time_contenders(runtime, runnable, feeds, rounds=self.rounds)
        cells = tuple(
            Cell(entry.column, entry.precision, timings[contender.key] if contender else None, accuracy, note)
            for entry, contender, accuracy, note in zip(entries, contenders, accuracies, notes, strict=True)
        )
        return MeasuredRow(cells, describe_run(self.rounds, command))

    def _entries(self, prepared: Prepared, runtime: Target) -> Iterator[Entry]:
        """List what is measured: every file with floats in fp32 and, where that differs, as the runtime's default."""
        folder = BUILD / "ours" / f"{prepared.student.name}-{runtime.kind}-{prepared.onnx.sha256}"
        folder.mkdir(parents=True, exist_ok=True)
        calibrated = calibrate_ours(prepared.onnx.path, self.halves.calibration, runtime, self.run)
        float_types = tuple(dict.fromkeys((FP32, default_float_type(runtime))))
        int8 = quantize_int8(calibrated, runtime, self.run)
        auto = ship_auto(calibrated, self.halves, runtime, folder, run=self.run, is_fresh=self.is_fresh)
        yield Entry(AUTO, auto.precision, auto.file, auto.words)
        for precision in float_types:
            yield Entry(FP32, precision, prepared.onnx.path)
            yield Entry(INT8, precision, int8)
        for peer in PEERS:
            if runtime.kind in peer.runtimes:
                made = self.peers.make(peer, prepared)
                for precision in float_types if made.path else (FP32,):
                    yield Entry(peer.column, precision, made.path, made.reason or "")

    def accuracy(self, runtime: Target, contender: Contender) -> float:
        """Return the accuracy on the whole test set; from before where file, floats, runtime and data are the same."""
        known: dict[str, float] = json.loads(ACCURACIES.read_text()) if ACCURACIES.is_file() else {}
        test = self.recipe.task.load().test
        data = hashlib.sha256(test.images.tobytes()).hexdigest()
        key = f"{contender.digest} {contender.precision} {runtime.kind} {runtime.runtime_version()} {data}"
        if key not in known:
            processing = self.recipe.task.normalization.processing()
            known[key] = accuracy_of(runtime, contender, test.images, test.labels, processing)
            ACCURACIES.write_text(json.dumps(known, indent=1) + "\n")
        return known[key]


def default_float_type(runtime: Target) -> FloatType:
    """Return the float type that a runtime takes where nobody says: OpenVINO's is bf16 where the processor has it."""
    has_bf16 = runtime.kind == "openvino" and "bf16" in runtime.find_float_types()
    return "bf16" if has_bf16 else "fp32"


def describe_run(rounds: int, command: str) -> str:
    """Return what a row's figures hold for."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "torch", "onnx", "edgeproof")
    )
    return (
        f"{rounds} rounds of {TURNS * RUNS} inferences; {versions}; {platform.machine()} {cpu_name()}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {command}"
    )


if __name__ == "__main__":
    sys.exit(main())
