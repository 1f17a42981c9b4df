"""Our side of `make bench-quantization`: plain int8, and what `precision = "auto"` ships, from the peers' own file."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.quantization_students import Halves
from pipeline.export.source import read_source
from pipeline.post_training import Calibrated, calibrate_file, quantize_model
from pipeline.precision.workbench import Exam, OnnxWorkbench
from pipeline.run import Run
from pipeline.site import Site
from pipeline.stages.choose_precision import choose_precision, plan_of
from targets.devices.device import open_device
from targets.target import Arrays, Target

MAX_DROP = 0.005
"""Accuracy that `auto` may lose, judged on what the validation cut has beside the images of calibration; fraction."""


@dataclass(frozen=True)
class ArchivedFeeds:
    """Samples of a model's only input in an .npz file, as peers get them; counts by its content."""

    path: Path
    sha256: str
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Arrays:
        """Return one sample."""
        return {name: values[self.indices[index]][None] for name, values in _read(self.path).items()}

    def take(self, indices: Sequence[int]) -> "ArchivedFeeds":
        """Return some of the samples."""
        chosen = tuple(self.indices[index] for index in indices)
        digest = hashlib.sha256(f"{self.sha256} {chosen}".encode()).hexdigest()
        return ArchivedFeeds(self.path, digest, chosen)


def archived(path: Path) -> ArchivedFeeds:
    """Return all samples of an .npz file."""
    num = len(next(iter(_read(path).values())))
    return ArchivedFeeds(path, hashlib.sha256(path.read_bytes()).hexdigest(), tuple(range(num)))


@dataclass(frozen=True)
class Shipped:
    """What `auto` chose: a file, the float type that is pinned, and the choice in words."""

    file: Path
    precision: str
    words: str


def calibrate_ours(model: Path, images: Path, target: Target, run: Run) -> Calibrated:
    """Prepare the float file and calibrate it on the peers' images, as `edgeproof quantize` does."""
    return calibrate_file(read_source(model), archived(images), None, target, run)


def quantize_int8(calibrated: Calibrated, target: Target, run: Run) -> Path:
    """Return the file with everything in int8 that can be."""
    return quantize_model(calibrated, target, run).path


def ship_auto(
    calibrated: Calibrated, halves: Halves, target: Target, folder: Path, *, run: Run, is_fresh: bool
) -> Shipped:
    """Choose as `precision = "auto"` does, on this machine, and return what it ships; `is_fresh`: search again."""
    device = open_device("local", run.work)
    site = Site(device, device.probe(target))
    exam = Exam(samples=archived(halves.exam), max_drop=MAX_DROP, labels=halves.exam_labels)
    prepared, ranges, scheme = calibrated.prepared, calibrated.ranges, target.post_training_scheme
    if is_fresh:
        choice = choose_precision(folder, prepared, ranges, target, site, exam, threads=1, scheme=scheme)
    else:
        choice = run.stage(choose_precision, prepared, ranges, target, site, exam, threads=1, scheme=scheme)
    run.say(choice.reason)
    plan = plan_of(choice)
    workbench = OnnxWorkbench(prepared, ranges, target, device, 1, exam, folder, scheme=scheme)
    shipped = folder / "auto.onnx"
    shutil.copyfile(workbench.build(plan), shipped)
    return Shipped(shipped, workbench.options(plan).precision, plan.words)


@lru_cache(maxsize=2)
def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}
