"""A compiled model on its device, and the measurements that the chain takes of it: always fresh, always timed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from pipeline.artifacts import Accuracy, CompiledModel, FusionProof, LatencyProfile, OnnxModel, Parity
from pipeline.errors import RecipeError
from pipeline.fusion.prove import prove_fusion
from pipeline.measuring.ratio import Speedup, speedup
from pipeline.models.trained import TrainedModel
from pipeline.precision.search import FINAL_ROUNDS
from pipeline.recipe import Deployment
from pipeline.run import Run
from pipeline.site import Site
from pipeline.stages.check_parity import Runtime, answer_on_host, check_parity
from pipeline.stages.export_onnx import FloatForm
from pipeline.stages.measure_accuracy import ChainPredictions, measure_accuracy
from pipeline.stages.profile_latency import profile_latency
from pipeline.tasks import AnyTask
from targets import reference_target
from targets.devices.device import DeviceFacts, Entrant, ProfileRequest, open_device
from targets.devices.install import Recording
from targets.errors import ModelRefused
from targets.target import FloatType, RunOptions, Target

SECONDS_TO_EARN = 5.0
"""Of comparing what was trained in int8 with the float student."""
SMOKE_SAMPLES = 8
"""Test images whose answers are recorded."""
TOLERANCE = 0.01
"""Of the largest recorded answer: the same file on the same device answers the same, but for a GPU's order of sums."""
FLOAT_TYPES: tuple[str, ...] = get_args(FloatType)


@dataclass(frozen=True)
class OnDevice:
    """What ships, where it runs, and who hears of progress."""

    task: AnyTask
    deployment: Deployment
    model: OnnxModel
    compiled: CompiledModel
    site: Site
    run: Run

    def parity(self, shipped: TrainedModel) -> Parity:
        """Compare the trained model in torch, its ONNX as written (on the host), and the compiled artifact."""
        host = open_device("local", self.run.work)
        reference = Runtime(reference_target(), host, RunOptions())
        runtime = Runtime(self.deployment.target, self.site.device, options_of(self.deployment))

        def check(on_progress: Callable[[int, int], None]) -> Parity:
            answers = self.run.host.once(
                f"answers of {shipped.checkpoint.sha256} as {self.model.sha256}",
                lambda: answer_on_host(self.task, shipped, self.model, reference),
            )
            return check_parity(
                self.task,
                shipped,
                model=self.model,
                compiled=self.compiled,
                reference=reference,
                runtime=runtime,
                answers=answers,
                budget=self.deployment.budget.parity,
                on_host=self.run.host.turn,
            )

        return self.run.measure("check_parity", check)

    def fusion(self, shipped: TrainedModel) -> FusionProof:
        """Tell what of the compiled model runs in int8, and why the rest does not; nothing is run for it."""
        return prove_fusion(
            self.compiled.layers, self.model.path, self.deployment.target, plan=frozenset(shipped.float_layers)
        )

    def accuracy(self, predictions: ChainPredictions) -> Accuracy:
        """Run the whole test set through the compiled artifact."""
        return self.run.measure(
            "measure_accuracy",
            lambda on_progress: measure_accuracy(
                self.task,
                self.compiled,
                predictions,
                model=self.model,
                target=self.deployment.target,
                device=self.site.device,
                options=options_of(self.deployment),
                on_progress=on_progress,
            ),
        )

    def latency(self, *, at_most_s: float | None = None) -> LatencyProfile:
        """Sample latency until the budget is decided, or the deployment's time (or `at_most_s`) is up."""
        protocol = self.deployment.profile
        seconds = min(protocol.max_seconds, at_most_s or protocol.max_seconds)
        return self.run.measure(
            "profile_latency",
            lambda on_progress: profile_latency(
                self.compiled,
                self.deployment.target,
                self.site.device,
                options_of(self.deployment),
                budget=self.deployment.budget.latency,
                protocol=protocol.model_copy(update={"max_seconds": seconds}),
                processing=self.task.normalization.processing().fed_to(self.model.input),
                on_progress=lambda num_samples, spent: on_progress(round(spent), round(seconds)),
            ),
        )

    def record(self) -> Recording:
        """Ask the compiled model on the device about the first test images."""
        images_NHWC = self.task.load().test.images[:SMOKE_SAMPLES]
        feeds = {self.model.input.name: images_NHWC}
        processing = self.task.normalization.processing().fed_to(self.model.input)
        options, target = options_of(self.deployment), self.deployment.target
        outputs = self.run.measure(
            "record_answers",
            lambda on_progress: self.site.device.infer(
                target, self.compiled.path, options, feeds, processing=processing
            ),
        )
        return Recording(feeds, outputs, processing, TOLERANCE)


def compare_with_float(
    int8: CompiledModel, float_model: CompiledModel, deployment: Deployment, site: Site, run: Run
) -> Speedup:
    """Time what was trained in int8 and the float student in turns on the device: int8 must earn its place."""
    options = options_of(deployment)
    entrants = (Entrant(float_model.path, RunOptions(threads=options.threads)), Entrant(int8.path, options))
    request = ProfileRequest(max_seconds=SECONDS_TO_EARN)

    def compare(on_progress: Callable[[int, int], None]) -> Speedup:
        turns = site.device.compare(deployment.target, entrants, request, rounds=FINAL_ROUNDS)
        for each in turns:
            if each.refusal is not None:
                raise ModelRefused(each.refusal)
        return speedup(turns[0].samples_ns, turns[1].samples_ns)

    return run.measure("compare_with_float", compare)


def options_of(deployment: Deployment) -> RunOptions:
    """Return how the deployment's models run: floats stay float32 beside int8, so that figures compare."""
    named = (deployment.precision, deployment.rest)
    pinned = next((word for word in named if word is not None and word in FLOAT_TYPES), "fp32")
    return RunOptions(threads=deployment.threads, precision=pinned)


def opset_note(opset: int, target: Target) -> str:
    """Return what there is to say where a target reads only older ONNX than the recipe asks for."""
    if opset <= target.highest_opset:
        return ""
    return f"; it reads ONNX up to opset {target.highest_opset}, to which {opset} is lowered"


def floats_of(deployment: Deployment) -> FloatForm:
    """Return how the file holds the operators that were not trained on codes."""
    if deployment.rest in ("int8_dynamic", "int8_dynamic_per_tensor"):
        return deployment.rest
    if deployment.precision == "int8_dynamic":
        return "int8_dynamic"
    is_half = "fp16" in (deployment.precision, deployment.rest)
    return "fp16" if is_half and deployment.target.floats_in_file else "fp32"


def list_precisions(target: Target, facts: DeviceFacts) -> tuple[str, ...]:
    """Return what a deployment to this target can ship on this device, as the recipe writes it."""
    return ("auto", "int8", *(("int8_dynamic",) if target.dynamic else ()), *facts.float_types)


def require_precision(deployment: Deployment, facts: DeviceFacts) -> None:
    """Refuse a precision that would run as another one, or through conversions.

    Raises:
        RecipeError: runtime or processor lack it; names what they have.
    """
    present = list_precisions(deployment.target, facts)
    if deployment.precision not in present:
        raise RecipeError(
            f"deployments.{deployment.name}.precision: expected one of {', '.join(present)}, which "
            f"{deployment.target.kind} {facts.identity['runtime_version']} has on {facts.identity['cpu']}; "
            f'got "{deployment.precision}"; set one of those'
        )
    rest = deployment.rest and deployment.rest.removesuffix("_per_tensor")
    if rest is not None and rest not in present:
        raise RecipeError(
            f"deployments.{deployment.name}.rest: expected what {deployment.target.kind} "
            f"{facts.identity['runtime_version']} has on {facts.identity['cpu']}, of {', '.join(present[2:])}; "
            f'got "{deployment.rest}"; set one of those, or leave it out'
        )
