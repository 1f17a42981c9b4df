"""`precision = "auto"` becomes a precision and the layers that stay float, by measuring on the device.

Rule: chosen on the validation cut; the test set is the gate's alone.
"""

from dataclasses import dataclass
from typing import cast

from pipeline.artifacts import PrecisionChoice, Sensitivity
from pipeline.export.capture import INPUT
from pipeline.export.prepare import LOWEST_OPSET
from pipeline.export.source import Source
from pipeline.export.tapped import find_evaluator
from pipeline.measuring.ratio import Speedup
from pipeline.models.trained import TrainedModel
from pipeline.precision.workbench import Exam
from pipeline.recipe import Deployment, Recipe
from pipeline.report.report import PrecisionFigures
from pipeline.report.search_figures import search_figures
from pipeline.run import Missing, Stages
from pipeline.site import Site
from pipeline.stages.choose_precision import choose_precision
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.stages.measure_sensitivity import measure_sensitivity
from pipeline.stages.observe_ranges import observe_ranges
from pipeline.stages.prepare_onnx import prepare_onnx
from pipeline.tasks.validation_feeds import ValidationFeeds

DEFAULT_MAX_DROP = 0.005
"""Top-1 accuracy that int8 may cost where the budget does not say, as a fraction."""
ANYTHING = 1.0


@dataclass(frozen=True)
class Settled:
    """A deployment whose precision is known, and the search that found it, where there was one."""

    deployment: Deployment
    choice: PrecisionChoice | None = None
    sensitivity: Sensitivity | None = None
    """Of each layer of the float student; where a search mixed precisions."""
    earned: Speedup | None = None
    """Of the trained int8 model over the float one on the device, where int8 had to earn its place."""

    def figures(self) -> PrecisionFigures | None:
        """Return what a report says of the search."""
        return search_figures(self.choice, self.sensitivity, self.earned) if self.choice else None


def settle(
    recipe: Recipe,
    deployment: Deployment,
    student: TrainedModel,
    site: Site,
    stages: Stages,
    *,
    is_trained: bool = True,
) -> Settled:
    """Return the deployment with the precision that ships, and the layers that stay float.

    An untrained student shows latencies alone: then no accuracy is asked of it, and no mixtures are tried.

    Raises:
        DeviceError: a job failed.
        DataError: the student gives values that are not finite.
    """
    if deployment.precision != "auto":
        return Settled(deployment)
    choice, sensitivity = choose(recipe, deployment, student, site, stages, is_trained=is_trained)
    if isinstance(choice, Missing):  # in a plan: what follows waits for it
        return Settled(deployment.model_copy(update={"precision": "int8", "float_layers": choice}))
    found = {"precision": choice.precision, "float_layers": choice.float_layers, "rest": choice.rest}
    return Settled(deployment.model_copy(update=found), choice, sensitivity)


def choose(
    recipe: Recipe, deployment: Deployment, student: TrainedModel, site: Site, stages: Stages, *, is_trained: bool
) -> tuple[PrecisionChoice, Sensitivity | None]:
    """Export the float student as the target reads it, observe its ranges, and search."""
    target, task = deployment.target, recipe.task.for_student()
    export = Export(opset=recipe.export.opset)
    model = stages.stage(export_onnx, student, export, encoding=None, highest_opset=target.highest_opset)
    source = cast(Source, model) if isinstance(model, Missing) else Source(model.path)
    prepared = stages.stage(prepare_onnx, source, opset=LOWEST_OPSET)
    assert recipe.quantization is not None
    calibration = recipe.quantization.calibration
    feeds = ValidationFeeds(task, INPUT, calibration.samples, calibration.choice, calibration.seed)
    ranges = stages.stage(observe_ranges, prepared, feeds, calibration.method, target.scheme, find_evaluator())
    exam = _exam(feeds, deployment) if is_trained else Exam(feeds, ANYTHING)
    choice = stages.stage(
        choose_precision,
        prepared,
        ranges,
        target,
        site,
        exam,
        threads=deployment.threads,
        with_mixtures=is_trained,
    )
    if not is_trained:
        return choice, None
    sensitivity = stages.stage(measure_sensitivity, prepared, ranges, target, site, exam, threads=deployment.threads)
    return choice, sensitivity


def must_earn(settled: Settled) -> bool:
    """Tell whether a search chose int8 where the float student would hold too: then int8 must be the faster one."""
    if settled.choice is None or settled.deployment.precision != "int8":
        return False
    return all(tried.holds is not False for tried in settled.choice.finalists if tried.precision == "fp32")


def _exam(feeds: ValidationFeeds, deployment: Deployment) -> Exam:
    """Judge on the whole cut: images that ranges come from are among them, but no range is fitted to a label."""
    accuracy = deployment.budget.accuracy
    max_drop = accuracy.max_drop_student if accuracy else None
    num_images = len(feeds.task.load().validation)
    everything = ValidationFeeds(feeds.task, feeds.input, num_images, "first", seed=0)
    labels = tuple(everything.labels.tolist())
    size = deployment.budget.size
    return Exam(
        everything,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        labels=labels,
        max_bytes=size.max_bytes if size else None,
    )
