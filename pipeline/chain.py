"""THE chain: from a recipe to a released model on a device. Rule: a table of contents, without logic of its own."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint, CompiledModel, OnnxModel
from pipeline.budget import Protocol
from pipeline.locks import held
from pipeline.measuring.verdict import Check, Verdict
from pipeline.models.trained import TrainedModel
from pipeline.publish import Findings, publish
from pipeline.recipe import Deployment, Recipe
from pipeline.report.report import Report
from pipeline.run import PlannedStage, Run, Stages, device_or_missing, open_plan, open_run
from pipeline.stages.check_budget import check_budget, first_answer
from pipeline.stages.check_parity import Runtime, check_parity
from pipeline.stages.compile_model import Site, compile_model
from pipeline.stages.distill_student import distill_student
from pipeline.stages.export_onnx import export_onnx
from pipeline.stages.initialize_student import initialize_student
from pipeline.stages.load_teacher import load_teacher
from pipeline.stages.measure_accuracy import ChainPredictions, measure_accuracy
from pipeline.stages.predict import predict
from pipeline.stages.profile_latency import profile_latency
from pipeline.stages.train_quantized import train_quantized
from pipeline.stages.train_teacher import train_teacher
from pipeline.training.student_run import Teaching
from pipeline.user_files import find_file
from targets import reference_target
from targets.devices.device import open_device
from targets.target import RunOptions

FIRST_ANSWER_SECONDS = 20.0
"""What the first answer may spend on sampling; the final profile has the deployment's own limit."""


def deploy(
    recipe: Recipe,
    deployment: Deployment,
    *,
    build: Path,
    train_anyway: bool = False,
    accept_undecided: bool = False,
    console: Console,
) -> Report:
    """Take a recipe to one of its deployments; release it where every budget holds.

    Raises:
        EdgeproofError: whatever stops the chain; finished stages, and the last epoch of an unfinished one, are kept.
    """
    folder = build / recipe.name / deployment.name
    run = open_run(console, build)
    with held(build / recipe.name / "lock", f"deploying {recipe.name} to {deployment.name}", run.wait):
        site = probe(deployment, build)
        run.say(f"{deployment.name}: {deployment.target.kind} {site.facts.identity['runtime_version']} answers")
        if will_train(recipe, deployment, build):
            first = check_feasibility(recipe, deployment, site, run)
            if any(check.verdict is Verdict.FAIL for check in first.checks) and not train_anyway:
                return publish(recipe, deployment, first, run, folder=folder)
        models = train_models(recipe, deployment, run)
        model, compiled = compile_for(recipe, deployment, models.shipped, models.scheme, site, run)
        findings = measure(recipe, deployment, models, model, compiled, site, run)
        return publish(recipe, deployment, findings, run, folder=folder, accept_undecided=accept_undecided)


def plan(recipe: Recipe, deployment: Deployment, *, build: Path) -> list[PlannedStage]:
    """Say what a deploy would run, what is cached, and why something is stale; nothing is computed."""
    planned = open_plan(build)
    models = train_models(recipe, deployment, planned)
    with device_or_missing(planned, "compile_model"):
        site = probe(deployment, build)
        compile_for(recipe, deployment, models.shipped, models.scheme, site, planned)
    return [*planned.stages, *(PlannedStage(name, "measure", "always fresh") for name in MEASUREMENTS)]


MEASUREMENTS = ("check_parity", "measure_accuracy", "profile_latency")


@dataclass(frozen=True)
class Models:
    """What training gives: the chain's models, and which of them ships on which grid."""

    teacher: TrainedModel
    student: TrainedModel
    shipped: TrainedModel
    scheme: Scheme | None


def probe(deployment: Deployment, build: Path) -> Site:
    """Reach the device and its runtime before anything else is done.

    Raises:
        DeviceError: it does not answer, or lacks the runtime.
    """
    device = open_device(deployment.device, (build / "work").absolute())
    return Site(device, device.probe(deployment.target))


def will_train(recipe: Recipe, deployment: Deployment, build: Path) -> bool:
    """Tell whether a deploy would train anything."""
    planned = open_plan(build)
    train_models(recipe, deployment, planned)
    return any(stage.state != "cached" for stage in planned.stages)


def check_feasibility(recipe: Recipe, deployment: Deployment, site: Site, run: Run) -> Findings:
    """Profile the untrained, calibrated, quantized student: a first answer before hours are spent."""
    run.say("first answer: the untrained student on the device")
    seed = recipe.distillation.training.seed
    untrained = TrainedModel(
        recipe.student.model, run.stage(initialize_student, recipe.task, recipe.student.model, seed)
    )
    scheme = deployment.target.scheme if deployment.precision == "int8" else None
    shipped = quantize(recipe, untrained, scheme, Teaching(None, (), run.outputs), run, epochs=0)
    model, compiled = compile_for(recipe, deployment, shipped, scheme, site, run)
    budget, protocol = deployment.budget, deployment.profile
    seconds = min(protocol.max_seconds, FIRST_ANSWER_SECONDS)
    latency = run.measure(
        "profile_latency",
        lambda on_progress: profile_latency(
            compiled,
            deployment.target,
            site.device,
            options_of(deployment),
            budget=budget.latency,
            protocol=Protocol(max_seconds=seconds, min_samples=protocol.min_samples),
            processing=recipe.task.normalization.processing(),
            on_progress=lambda num_samples, spent: on_progress(round(spent), round(seconds)),
        ),
    )
    checks = first_answer(budget, latency=latency, size_bytes=compiled.size_bytes)
    lineage = {"student": untrained.checkpoint.sha256, "onnx": model.sha256}
    return Findings(model, compiled, latency, checks, lineage, classes=untrained.checkpoint.classes, untrained=True)


def train_models(recipe: Recipe, deployment: Deployment, stages: Stages) -> Models:
    """Train or load the teacher, distill the student, and train it on the target's grid."""
    teacher = TrainedModel(recipe.teacher.model, teach(recipe, stages))
    student_checkpoint = stages.stage(
        distill_student,
        recipe.task,
        recipe.student.model,
        recipe.distillation.training,
        Teaching(teacher, recipe.distillation.losses, stages.outputs),
    )
    student = TrainedModel(recipe.student.model, student_checkpoint)
    if deployment.precision == "fp32" or recipe.quantization is None:
        return Models(teacher, student, student, None)
    scheme = deployment.target.scheme
    teaching = Teaching(teacher, recipe.quantization.losses, stages.outputs)
    return Models(teacher, student, quantize(recipe, student, scheme, teaching, stages), scheme)


def teach(recipe: Recipe, stages: Stages) -> Checkpoint:
    """Train the teacher, or load the user's checkpoint."""
    teacher = recipe.teacher
    if teacher.training is not None:
        return stages.stage(train_teacher, recipe.task, teacher.model, teacher.training)
    assert teacher.checkpoint is not None
    path = find_file(teacher.checkpoint, recipe.folder, what="the teacher's checkpoint")
    return stages.stage(load_teacher, recipe.task, teacher.model, path)


def quantize(
    recipe: Recipe,
    student: TrainedModel,
    scheme: Scheme | None,
    teaching: Teaching,
    stages: Stages,
    *,
    epochs: int | None = None,
) -> TrainedModel:
    """Train a float student on a grid; `epochs` over the recipe's own (0: calibrate only)."""
    quantization = recipe.quantization
    if scheme is None or quantization is None:
        return student
    training = quantization.training
    checkpoint = stages.stage(
        train_quantized,
        recipe.task,
        student,
        training if epochs is None else training.model_copy(update={"epochs": epochs}),
        teaching,
        calibration=quantization.calibration,
        scheme=scheme,
    )
    return TrainedModel(student.model, checkpoint)


def compile_for(
    recipe: Recipe, deployment: Deployment, shipped: TrainedModel, scheme: Scheme | None, site: Site, stages: Stages
) -> tuple[OnnxModel, CompiledModel]:
    """Export in the form that the target fuses, and compile on the device."""
    target = deployment.target
    model = stages.stage(
        export_onnx,
        shipped,
        recipe.export,
        scheme=scheme,
        encoding=target.encoding if scheme else None,
        highest_opset=target.highest_opset,
    )
    return model, stages.stage(compile_model, model, target, site, options_of(deployment))


def measure(
    recipe: Recipe,
    deployment: Deployment,
    models: Models,
    model: OnnxModel,
    compiled: CompiledModel,
    site: Site,
    run: Run,
) -> Findings:
    """Measure parity, accuracy and latency on the device, and judge every budget."""
    task, target, device, options = recipe.task, deployment.target, site.device, options_of(deployment)
    predictions = ChainPredictions(
        teacher=run.stage(predict, task, models.teacher, None),
        student=run.stage(predict, task, models.student, None),
        quantized=run.stage(predict, task, models.shipped, models.scheme) if models.scheme else None,
    )
    host = open_device("local", run.store.root.parent / "work")
    parity = run.measure(
        "check_parity",
        lambda on_progress: check_parity(
            task,
            models.shipped,
            models.scheme,
            model=model,
            compiled=compiled,
            reference=Runtime(reference_target(), host, RunOptions()),
            runtime=Runtime(target, device, options),
        ),
    )
    accuracy = run.measure(
        "measure_accuracy",
        lambda on_progress: measure_accuracy(
            task,
            compiled,
            predictions,
            model=model,
            target=target,
            device=device,
            options=options,
            on_progress=on_progress,
        ),
    )
    latency = run.measure(
        "profile_latency",
        lambda on_progress: profile_latency(
            compiled,
            target,
            device,
            options,
            budget=deployment.budget.latency,
            protocol=deployment.profile,
            processing=task.normalization.processing(),
            on_progress=lambda num_samples, spent: on_progress(round(spent), round(deployment.profile.max_seconds)),
        ),
    )
    checks: tuple[Check, ...] = check_budget(
        deployment.budget, parity=parity, accuracy=accuracy, latency=latency, size_bytes=compiled.size_bytes
    )
    lineage = {
        "teacher": models.teacher.checkpoint.sha256,
        "student": models.student.checkpoint.sha256,
        "shipped": models.shipped.checkpoint.sha256,
        "onnx": model.sha256,
    }
    return Findings(
        model,
        compiled,
        latency,
        checks,
        lineage,
        classes=models.student.checkpoint.classes,
        accuracy=accuracy,
        parity=parity,
    )


def options_of(deployment: Deployment) -> RunOptions:
    """Return how the deployment's models run: floats stay float32 beside int8, so that figures compare."""
    return RunOptions(threads=deployment.threads, precision="fp32")
