"""Post-training quantization of any ONNX file: stages in order, once for the ranges, again and again for plans.

Rule: what is computed comes through the store; what is measured is measured anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from calibration.ranges import AnyRange
from pipeline.artifacts import (
    CalibrationChoice,
    FusionProof,
    OnnxFile,
    OutputParity,
    PrecisionChoice,
    Ranges,
    Sensitivity,
)
from pipeline.export.bisect import LEAST_SNR_DB, NoisyTensor, find_divergence
from pipeline.export.prepare import LOWEST_OPSET
from pipeline.export.source import Source
from pipeline.export.tapped import find_evaluator, run_tapped
from pipeline.fusion.prove import prove_fusion
from pipeline.measuring.ratio import Speedup, speedup
from pipeline.measuring.verdict import Verdict
from pipeline.precision.plan import Plan
from pipeline.precision.workbench import Exam
from pipeline.run import Run, Stages
from pipeline.site import Site
from pipeline.stages.apply_plan import apply_plan
from pipeline.stages.choose_calibration import choose_calibration
from pipeline.stages.choose_precision import choose_precision
from pipeline.stages.compare_outputs import Runnable, compare_outputs
from pipeline.stages.compile_model import compile_model
from pipeline.stages.equalize_onnx import equalize_onnx
from pipeline.stages.measure_sensitivity import measure_sensitivity
from pipeline.stages.observe_ranges import observe_ranges
from pipeline.stages.observe_shifts import observe_shifts
from pipeline.stages.prepare_onnx import prepare_onnx
from pipeline.stages.quantize_onnx import quantize_onnx
from pipeline.tasks.feeds import Feeds
from targets.devices.device import Entrant, ProfileRequest, Turns
from targets.errors import ModelRefused
from targets.target import Layer, RunOptions, Target

ROUNDS = 21
"""Turns of each model; the interval of the median ratio then lies between the 6th and the 16th."""
SAMPLES_A_TURN = 64
SAMPLES_TO_BISECT = 8
GOOD_AGREEMENT = 0.99
WORTH_HAVING = 1.05
"""Speed-up that folding alone must give."""


@dataclass(frozen=True)
class Calibrated:
    """A float model that is ready to be quantized, and the ranges of its tensors: what every plan starts from."""

    prepared: OnnxFile
    ranges: Ranges
    choice: CalibrationChoice | None = None
    """How the method of the ranges was chosen, where it was."""


def calibrate_file(source: Source, feeds: Feeds, method: AnyRange | None, target: Target, stages: Stages) -> Calibrated:
    """Prepare any float ONNX file, equalise its channels, and observe its ranges and what rounding to them shifts.

    Without a method, the method that suits the model is found on some of the samples, and so is whether equalising and
    correcting biases help.

    Raises:
        EdgeproofError: the model cannot be read, prepared or quantized, or a tensor is not finite.
    """
    evaluator, scheme = find_evaluator(), target.post_training_scheme
    prepared = stages.stage(prepare_onnx, source, opset=LOWEST_OPSET)
    equalized = stages.stage(equalize_onnx, prepared, feeds, evaluator)
    if method is None:
        choice = stages.stage(choose_calibration, prepared, equalized, feeds, scheme, target.encoding, evaluator)
        return Calibrated(equalized if choice.is_equalized else prepared, choice.ranges, choice)
    ranges = stages.stage(observe_ranges, equalized, feeds, method, scheme, evaluator)
    return Calibrated(equalized, stages.stage(observe_shifts, equalized, feeds, ranges, scheme, evaluator))


def quantize_model(
    calibrated: Calibrated, target: Target, stages: Stages, *, float_layers: frozenset[str] = frozenset()
) -> OnnxFile:
    """Return the model in int8, in the form that `target` fuses, but for the layers of a plan."""
    layers, scheme = tuple(sorted(float_layers)), target.post_training_scheme
    return stages.stage(
        quantize_onnx,
        calibrated.prepared,
        calibrated.ranges,
        scheme,
        target.encoding,
        layers,
        highest_opset=target.highest_opset,
    )


def search_precision(
    calibrated: Calibrated, place: "Place", exam: Exam, stages: Stages, *, seconds: float
) -> PrecisionChoice:
    """Return the fastest precision that holds, measured where the model is to run."""
    return stages.stage(
        choose_precision,
        calibrated.prepared,
        calibrated.ranges,
        place.target,
        place.site,
        exam,
        threads=place.options.threads,
        scheme=place.target.post_training_scheme,
        shapes=place.shapes,
        seconds=seconds,
    )


def write_plan(calibrated: Calibrated, target: Target, plan: Plan, stages: Stages) -> OnnxFile:
    """Return the model in the precision of a plan."""
    return stages.stage(
        apply_plan,
        calibrated.prepared,
        calibrated.ranges,
        target,
        target.post_training_scheme,
        precision=plan.precision,
        float_layers=tuple(sorted(plan.float_layers)),
        rest=plan.rest,
    )


def layer_sensitivity(calibrated: Calibrated, place: "Place", held_out: Feeds, stages: Stages) -> Sensitivity:
    """Return what each layer loses alone in int8, and what it costs."""
    return stages.stage(
        measure_sensitivity,
        calibrated.prepared,
        calibrated.ranges,
        place.target,
        place.site,
        Exam(held_out, max_drop=0.0),
        threads=place.options.threads,
        scheme=place.target.post_training_scheme,
        shapes=place.shapes,
    )


@dataclass(frozen=True)
class Place:
    """Where a model is to run, and how."""

    target: Target
    site: Site
    options: RunOptions
    shapes: dict[str, tuple[int, ...]]
    """Of inputs whose dimensions the model leaves open."""


@dataclass(frozen=True)
class Measuring:
    """What a comparison takes."""

    held_out: Feeds
    """Samples that parity is judged on."""
    place: Place
    max_seconds: float
    """Of measuring latency."""
    options: RunOptions | None = None
    """How the quantized model runs, where not as the float one."""


@dataclass(frozen=True)
class Form:
    """One form of a model, as it runs on the device."""

    size_bytes: int
    layers: tuple[Layer, ...]
    turns: Turns
    parity: tuple[OutputParity, ...]
    """With the float model as written; empty where it could not be measured."""


@dataclass(frozen=True)
class Comparison:
    """The user's float file, the same folded, and the quantized one, on the device."""

    given: Form
    folded: Form
    """The float model that was quantized: files often keep a runtime from folding what could be folded."""
    quantized: Form
    speedup: Speedup
    """Of the quantized model over the faster of the float ones."""
    folding_speedup: Speedup
    """Of the folded float model over the file as given."""
    fusion: FusionProof
    noisy: tuple[NoisyTensor, ...]
    """Tensors that part, first to last; looked for only where an output parts."""
    no_parity: str | None
    """Why parity could not be measured."""

    @property
    def folding_pays(self) -> bool:
        """Whether the folded float model is worth having for itself."""
        return self.folding_speedup.verdict is Verdict.PASS and self.folding_speedup.ratio >= WORTH_HAVING


def compare_forms(
    source: Source,
    calibrated: Calibrated,
    quantized: OnnxFile,
    measuring: Measuring,
    run: Run,
    *,
    float_layers: frozenset[str],
) -> Comparison:
    """Measure latency, parity and executed precisions of the user's float file and of what was made of it.

    Args:
        source: the user's file.
        calibrated: what was quantized.
        quantized: the int8 model, or what a search chose.
        measuring: samples, place and time.
        run: carries stages out.
        float_layers: the plan.

    Raises:
        DeviceError: the device failed.
        ModelRefused: the runtime refuses one of the models.
    """
    held_out, place = measuring.held_out, measuring.place
    target, site, options = place.target, place.site, place.options
    last = measuring.options or options
    models = (
        run.stage_of("as given", compile_model, source, target, site, options),
        run.stage_of("folded", compile_model, calibrated.prepared, target, site, options),
        run.stage_of(quantized.precision, compile_model, quantized, target, site, last),
    )
    runnable = tuple(
        Runnable(model.path, target, site.device, of_one)
        for model, of_one in zip(models, (options, options, last), strict=True)
    )
    parities, no_parity = _parities(source, runnable, held_out, run)
    parts = no_parity is None and quantized.precision == "int8" and any(map(_parts, parities[-1]))
    noisy = _find_noisy(calibrated, quantized, held_out, run) if parts else ()
    turns = _turns(runnable, place, run, measuring.max_seconds)
    given, folded, after = (
        Form(model.size_bytes, model.layers, of_one, parity)
        for model, of_one, parity in zip(models, turns, parities, strict=True)
    )
    against_each = [speedup(of_float.samples_ns, turns[-1].samples_ns) for of_float in turns[:-1]]
    return Comparison(
        given=given,
        folded=folded,
        quantized=after,
        speedup=min(against_each, key=lambda found: found.ratio),
        folding_speedup=speedup(turns[0].samples_ns, turns[1].samples_ns),
        fusion=prove_fusion(models[-1].layers, quantized.path, target, plan=float_layers),
        noisy=noisy,
        no_parity=no_parity,
    )


def _parities(
    source: Source, forms: tuple[Runnable, ...], held_out: Feeds, run: Run
) -> tuple[tuple[tuple[OutputParity, ...], ...], str | None]:
    """Return the parity of each model; none of any, and the reason, where outputs are not one a sample."""
    proto = source.load()
    try:
        found = run.measure(
            "compare_outputs",
            lambda on_progress: compare_outputs(proto, forms, held_out, find_evaluator(), on_progress=on_progress),
        )
    except ModelRefused as error:
        return tuple(() for _ in forms), str(error)
    return found, None


def _parts(output: OutputParity) -> bool:
    """Tell whether an output is so far from what it should be that people want to know where that began."""
    if output.top1_agreement is not None and output.top1_agreement < GOOD_AGREEMENT:
        return True
    return output.snr_db is not None and output.snr_db < LEAST_SNR_DB


def _find_noisy(calibrated: Calibrated, quantized: OnnxFile, held_out: Feeds, run: Run) -> tuple[NoisyTensor, ...]:
    samples = held_out.take(range(min(SAMPLES_TO_BISECT, len(held_out))))
    tapped = run_tapped(find_evaluator(), samples)
    float_model, int8_model = onnx.load(str(calibrated.prepared.path)), onnx.load(str(quantized.path))
    return run.measure("find_divergence", lambda _: find_divergence(float_model, int8_model, tapped))


def _turns(models: Sequence[Runnable], place: Place, run: Run, max_seconds: float) -> list[Turns]:
    """Time all models in turns, in one process on the device."""
    request = ProfileRequest(num_samples=SAMPLES_A_TURN, max_seconds=max_seconds, shapes=place.shapes)
    entrants = [Entrant(model.artifact, model.options) for model in models]
    found = run.measure(
        "compare_latency", lambda _: place.site.device.compare(place.target, entrants, request, rounds=ROUNDS)
    )
    for turns in found:
        if turns.refusal is not None:
            raise ModelRefused(turns.refusal)
    return found
