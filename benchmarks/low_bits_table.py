"""W8A8 and W4A8 by calibration alone, by training on labels, and by training on the teacher's word: what it buys.

    python benchmarks/low_bits_table.py [--only resnet8] [--rates 0.001] [--seeds 2]
    python benchmarks/low_bits_table.py --show    # what is finished so far; trains nothing

The float students are those of `distillation_table.py full --only KD` and `quantization_students.py --only mobilenet_v2
--epochs 4`: trained here where they are not yet. 4-bit weights ship as int8 codes. Every run is a stage of the store:
interrupted, it goes on from its last epoch; finished, it is never run again. EDGEPROOF_DATA names the data folder.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import distillation_table, quantization_students
from benchmarks.distillation_methods import FULL
from benchmarks.distillation_table import recipe_with_data, varied
from benchmarks.low_bits_cells import Cell, Figures, Method, keep, kept, show
from benchmarks.quantization_row import Contender, accuracy_of
from benchmarks.quantization_students import bench_recipe, chosen_students, student_recipe
from benchmarks.side_by_side import RESULTS
from pipeline.artifacts import OnnxModel
from pipeline.chain import distill, teach
from pipeline.distillation import AnyLoss
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from pipeline.seeds import accuracy_on_test
from pipeline.stages.calibrate_student import calibrate_student
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.stages.train_quantized import train_quantized
from pipeline.tasks import AnyTask
from pipeline.training.calibrate import Calibration
from pipeline.training.outputs_folder import TEACHER_OUTPUTS, OutputsFolder
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching
from targets.onnxruntime import OnnxRuntime

BUILD = RESULTS / "low_bits"
RESULT = RESULTS / "low_bits.json"
OUTPUTS = OutputsFolder((distillation_table.BUILD / TEACHER_OUTPUTS).absolute())
"""Shared with the table of methods: the teacher's word on the same views is paid once for both."""
RUNTIME = OnnxRuntime()
WEIGHT_BITS = (8, 4)
RATES = (0.001, 0.003)
"""At 0.01 training on the teacher's word alone collapsed (quantized_temperature.py)."""
LOSSES: dict[Method, tuple[AnyLoss, ...]] = {
    "labels": (CrossEntropy(weight=1.0),),
    "teacher": (KnowledgeDistillation(weight=1.0, temperature=1.0),),
}


@dataclass(frozen=True)
class Study:
    """A float student, and how long it is trained on a grid."""

    network: str
    recipe: Callable[[Recipe], Recipe]
    """From the base recipe to the one that the float student is of."""
    build: Path
    """Whose store has that student."""
    images: int | None
    """Of the training images; all where None."""
    epochs: int


def distilled_resnet8(base: Recipe) -> Recipe:
    """Return the recipe of the ResNet-8 that learned from the teacher for 20 epochs."""
    kd = next(method for method in FULL if method.name == "KD")
    return varied(base, kd, depth=8, images=None, epochs=20, seed=0)


def labelled_mobilenet_v2(base: Recipe) -> Recipe:
    """Return the recipe of the MobileNetV2 that learned from labels for 4 epochs."""
    (student,) = chosen_students("mobilenet_v2")
    return student_recipe(bench_recipe(base), student, epochs=4)


STUDIES = (
    Study("resnet8", distilled_resnet8, distillation_table.BUILD, images=None, epochs=1),
    Study("mobilenet_v2", labelled_mobilenet_v2, quantization_students.BUILD, images=10_000, epochs=2),
)


def main() -> int:
    """Fill the cells asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"networks, parted by commas: {', '.join(study.network for study in STUDIES)}")
    parser.add_argument("--rates", help=f"learning rates, parted by commas; else {RATES[0]:g} and {RATES[1]:g}")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print what is finished; train nothing")
    options = parser.parse_args()
    report = Console(highlight=False, width=160, record=True)
    if options.show:
        show(report, kept(RESULT), notes())
        return 0
    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    studies, rates = chosen_studies(options.only), read_rates(options.rates)
    if (base := recipe_with_data(console)) is None:
        return 0
    figures = kept(RESULT)
    for rate in rates:  # the whole table at one rate, then at the next: an unfinished one is still a table
        for study in studies:
            figures = fill(figures, study, base, rate, options.seeds, console)
    show(report, figures, notes())
    report.save_text(str(RESULT.with_suffix(".txt")))
    return 0


def fill(figures: Figures, study: Study, base: Recipe, rate: float, num_seeds: int, console: Console) -> Figures:
    """Return the figures with all cells of a network at one rate, the first seed first; keep each as it comes."""
    bench = open_bench(study, study.recipe(base), console)
    figures = figures.with_float(study.network, accuracy_on_test(bench.task, bench.student, bench.run))
    for seed in range(num_seeds):
        for cell in bench.cells(rate, seed):
            figures = figures.with_cell(cell)
            keep(figures, notes(), RESULT)
    return figures


@dataclass(frozen=True)
class Bench:
    """What all cells of a network share."""

    study: Study
    task: AnyTask
    """Of the float student, with as many training images as the study uses."""
    student: TrainedModel
    teachers: tuple[TrainedModel, ...]
    run: Run

    def cells(self, rate: float, seed: int) -> Iterator[Cell]:
        """Give the cells of one rate and seed: by calibration, then trained in every way."""
        for weight_bits in WEIGHT_BITS:
            yield self.calibrated(weight_bits, seed)
            for method in LOSSES:
                yield self.trained(weight_bits, method, rate, seed)

    def calibrated(self, weight_bits: int, seed: int) -> Cell:
        """Put the student on a grid by calibration alone."""
        scheme = replace(RUNTIME.scheme, weight_bits=weight_bits)
        checkpoint = self.run.stage(calibrate_student, self.task, self.student, Calibration(seed=seed), scheme)
        return self._judged(replace(self.student, checkpoint=checkpoint, scheme=scheme), "calibration", None, seed)

    def trained(self, weight_bits: int, method: Method, rate: float, seed: int) -> Cell:
        """Put it there, and train it on."""
        scheme = replace(RUNTIME.scheme, weight_bits=weight_bits)
        schedule = TrainingSchedule(
            epochs=self.study.epochs,
            learning_rate=rate,
            warmup_epochs=0.2,
            weight_decay=0.0,
            precision="32-true",
            seed=seed,
        )
        checkpoint = self.run.stage(
            train_quantized,
            self.task,
            self.student,
            schedule,
            Teaching(self.teachers, LOSSES[method], OUTPUTS),
            calibration=Calibration(seed=seed),
            scheme=scheme,
        )
        return self._judged(replace(self.student, checkpoint=checkpoint, scheme=scheme), method, rate, seed)

    def _judged(self, trained: TrainedModel, method: Method, rate: float | None, seed: int) -> Cell:
        assert trained.scheme is not None
        cell = Cell(
            self.study.network,
            trained.scheme.weight_bits,
            method,
            rate,
            seed,
            test=accuracy_on_test(self.task, trained, self.run),
            validation=trained.checkpoint.validation_accuracy,
        )
        if seed:
            return cell
        model = self.run.stage(
            export_onnx, trained, Export(), encoding=RUNTIME.encoding, highest_opset=RUNTIME.highest_opset
        )
        return replace(cell, onnx_sha256=model.sha256, on_runtime=self._on_runtime(model))

    def _on_runtime(self, model: OnnxModel) -> float:
        """Return the accuracy of an int8 file, as before where it is the same."""
        known = {cell.onnx_sha256: cell.on_runtime for cell in kept(RESULT).cells}
        if (before := known.get(model.sha256)) is not None:
            return before
        test, processing = self.task.load().test, self.task.normalization.processing()
        return accuracy_of(RUNTIME, Contender(model.path, model.sha256, "fp32"), test.images, test.labels, processing)


def open_bench(study: Study, recipe: Recipe, console: Console) -> Bench:
    """Return the float student of a study, from its own store, and what its cells are made with."""
    of_student = open_run(console, study.build)
    teachers = teach(recipe, of_student)
    student = distill(recipe, teachers, None, of_student)
    data = recipe.task.data.model_copy(update={"train_images": study.images})
    return Bench(study, recipe.task.model_copy(update={"data": data}), student, teachers, open_run(console, BUILD))


def chosen_studies(only: str | None) -> tuple[Study, ...]:
    """Return the studies of the networks named, or all; ends the program where a name is unknown."""
    if only is None:
        return STUDIES
    by_name = {study.network: study for study in STUDIES}
    names = [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in by_name]:
        sys.exit(f"--only: expected names among {', '.join(by_name)}; got {unknown[0]}")
    return tuple(by_name[name] for name in names)


def read_rates(typed: str | None) -> tuple[float, ...]:
    """Return the learning rates typed, or all; ends the program where one is not a number above 0."""
    if typed is None:
        return RATES
    try:
        rates = tuple(float(part) for part in typed.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        sys.exit(f"--rates: expected numbers above 0, parted by commas; got {typed}")
    return rates


def notes() -> tuple[str, ...]:
    """Return what the figures hold for."""
    lengths = "; ".join(
        f"{study.network}: {study.epochs} epoch{'s' * (study.epochs > 1)} of "
        f"{'all' if study.images is None else f'{study.images:,}'} training images"
        for study in STUDIES
    )
    return (
        "One float student a network, the same for all seeds: resnet8, distilled for 20 epochs; mobilenet_v2, 4 epochs "
        "from labels, so what is trained on gains by that alone, and only columns beside each other compare.",
        f"QAT, short: {lengths}; batch 128, SGD, one cosine from the rate to zero, float32. labels: cross-entropy; "
        "teacher: KL to a ResNet-56 (88.99 %) at temperature 1 alone. calibration: min-max ranges of 512 images.",
        "Accuracy: last epoch, 10,000 test images, fake-quantized in float32; mean and standard deviation over seeds, "
        "which differ in the order of images and in those that calibrate. The teacher's gain: seed by seed.",
        f"The int8 file: seed 0, 4-bit weights as int8 codes, ONNX Runtime {version('onnxruntime')}, image by image; "
        f"calibration, labels, teacher. torch {torch.__version__}.",
    )


if __name__ == "__main__":
    sys.exit(main())
