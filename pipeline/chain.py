"""THE chain: from a recipe to a released model on a device. Rule: a table of contents, without logic of its own."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline.artifacts import CompiledModel, OnnxModel, SyntheticImages
from pipeline.locks import held
from pipeline.measuring.verdict import Verdict
from pipeline.models.trained import TrainedModel
from pipeline.on_device import OnDevice, options_of
from pipeline.publish import Findings, publish
from pipeline.recipe import Deployment, Recipe
from pipeline.report.report import Report
from pipeline.run import PlannedStage, Run, Stages, device_or_missing, open_plan, open_run, work_folder
from pipeline.stages.calibrate_student import calibrate_student
from pipeline.stages.check_budget import check_budget, first_answer
from pipeline.stages.compile_model import Site, compile_model
from pipeline.stages.distill_student import distill_student
from pipeline.stages.export_onnx import export_onnx
from pipeline.stages.initialize_student import initialize_student
from pipeline.stages.load_teacher import load_teacher
from pipeline.stages.measure_accuracy import ChainPredictions
from pipeline.stages.predict import predict
from pipeline.stages.synthesize_images import synthesize_images
from pipeline.stages.train_quantized import train_quantized
from pipeline.stages.train_teacher import train_teacher
from pipeline.training.student_run import Teaching
from pipeline.trials import check_losses
from pipeline.user_files import find_file
from targets.devices.device import open_device

FIRST_ANSWER_SECONDS = 20.0
"""What the first answer may spend on sampling; the final profile has the deployment's own limit."""


def deploy(
    recipe: Recipe,
    deployment: Deployment,
    *,
    build: Path,
    train_anyway: bool = False,
    accept_undecided: bool = False,
    loggers: tuple[str, ...] = (),
    console: Console,
) -> Report:
    """Take a recipe to one of its deployments; release it where every budget holds.

    Raises:
        EdgeproofError: whatever stops the chain; finished stages, and the last epoch of an unfinished one, are kept.
    """
    folder = build / recipe.name / deployment.name
    run = open_run(console, build, loggers=loggers, run_name=recipe.name)
    with held(build / recipe.name / "lock", f"deploying {recipe.name} to {deployment.name}", run.wait):
        site = probe(deployment, run.work)
        run.say(f"{deployment.name}: {deployment.target.kind} {site.facts.identity['runtime_version']} answers")
        if will_train(recipe, deployment, build):
            check_losses(recipe, deployment)
            first = check_feasibility(recipe, deployment, site, run)
            if any(check.verdict is Verdict.FAIL for check in first.checks) and not train_anyway:
                return publish(recipe, deployment, first, run, folder=folder)
        models = train_models(recipe, deployment, run)
        model, compiled = compile_for(recipe, deployment, models.shipped, site, run)
        findings = measure(
            recipe, models, OnDevice(recipe.task.for_student(), deployment, model, compiled, site, run), run
        )
        return publish(recipe, deployment, findings, run, folder=folder, accept_undecided=accept_undecided)


def plan(recipe: Recipe, deployment: Deployment, *, build: Path) -> list[PlannedStage]:
    """Say what a deploy would run, what is cached, and why something is stale; nothing is computed."""
    planned = open_plan(build)
    models = train_models(recipe, deployment, planned)
    with device_or_missing(planned, "compile_model"):
        site = probe(deployment, work_folder(build))
        compile_for(recipe, deployment, models.shipped, site, planned)
    return [*planned.stages, *(PlannedStage(name, "measure", "always fresh") for name in MEASUREMENTS)]


MEASUREMENTS = ("check_parity", "measure_accuracy", "profile_latency")


@dataclass(frozen=True)
class Models:
    """What training gives; the quantized student ships, or the float one."""

    teacher: TrainedModel
    student: TrainedModel
    shipped: TrainedModel


def probe(deployment: Deployment, work: Path) -> Site:
    """Reach the device and its runtime before anything else is done.

    Raises:
        DeviceError: it does not answer, or lacks the runtime.
    """
    device = open_device(deployment.device, work)
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
    student = TrainedModel(
        recipe.student.model, run.stage(initialize_student, recipe.task.for_student(), recipe.student.model, seed)
    )
    shipped = calibrate(recipe, deployment, student, run)
    model, compiled = compile_for(recipe, deployment, shipped, site, run)
    latency = OnDevice(recipe.task.for_student(), deployment, model, compiled, site, run).latency(
        at_most_s=FIRST_ANSWER_SECONDS
    )
    checks = first_answer(deployment.budget, latency=latency, size_bytes=compiled.size_bytes)
    lineage = {"student": student.checkpoint.sha256, "onnx": model.sha256}
    return Findings(model, compiled, latency, checks, lineage, classes=student.checkpoint.classes, untrained=True)


def train_models(recipe: Recipe, deployment: Deployment, stages: Stages) -> Models:
    """Train or load the teachers, distill the student, and train it on the target's grid."""
    teachers = teach(recipe, stages)
    images = synthesize(recipe, teachers[0], stages)
    student = distill(recipe, teachers, images, stages)
    losses = recipe.quantization.losses if recipe.quantization else ()
    teaching = Teaching(teachers, losses, stages.outputs)
    shipped = quantize(recipe, deployment, student, teaching, images, stages)
    return Models(teachers[0], student, shipped)


def teach(recipe: Recipe, stages: Stages) -> tuple[TrainedModel, ...]:
    """Train the teachers, or load the user's checkpoints; the first is the one that others only join."""
    found = []
    for teacher in (recipe.teacher, *recipe.more_teachers):
        if teacher.training is not None:
            checkpoint = stages.stage(train_teacher, recipe.task.for_teacher(), teacher.model, teacher.training)
        else:
            assert teacher.checkpoint is not None
            path = find_file(teacher.checkpoint, recipe.folder, what="the teacher's checkpoint")
            checkpoint = stages.stage(load_teacher, recipe.task.for_teacher(), teacher.model, path, teacher.num_classes)
        found.append(TrainedModel(teacher.model, checkpoint))
    return tuple(found)


def synthesize(recipe: Recipe, teacher: TrainedModel, stages: Stages) -> SyntheticImages | None:
    """Make the images to learn from out of the teacher, where the recipe wants no data."""
    data_free = recipe.distillation.data_free
    return stages.stage(synthesize_images, recipe.task.normalization, teacher, data_free) if data_free else None


def distill(
    recipe: Recipe, teachers: tuple[TrainedModel, ...], images: SyntheticImages | None, stages: Stages
) -> TrainedModel:
    """Distill the student: from the teachers, or from the last of the assistants, each taught by the one before."""
    distillation = recipe.distillation
    learners = [(each.model, each.training or distillation.training) for each in distillation.assistants]
    for model, training in (*learners, (recipe.student.model, distillation.training)):
        teaching = Teaching(teachers, distillation.losses, stages.outputs, live=distillation.live_teacher)
        checkpoint = stages.stage(distill_student, recipe.task, model, training, teaching, images)
        teachers = (TrainedModel(model, checkpoint),)
    return teachers[0]


def quantize(
    recipe: Recipe,
    deployment: Deployment,
    student: TrainedModel,
    teaching: Teaching,
    images: SyntheticImages | None,
    stages: Stages,
) -> TrainedModel:
    """Train a float student on the target's grid, where int8 ships."""
    quantization, scheme = recipe.quantization, deployment.target.scheme
    if deployment.precision == "fp32" or quantization is None:
        return student
    checkpoint = stages.stage(
        train_quantized,
        recipe.task,
        student,
        quantization.training,
        teaching,
        images,
        calibration=quantization.calibration,
        scheme=scheme,
    )
    return TrainedModel(student.model, checkpoint, scheme)


def calibrate(recipe: Recipe, deployment: Deployment, student: TrainedModel, stages: Stages) -> TrainedModel:
    """Put a float student on the target's grid without training, where int8 ships."""
    quantization, scheme = recipe.quantization, deployment.target.scheme
    if deployment.precision == "fp32" or quantization is None:
        return student
    checkpoint = stages.stage(calibrate_student, recipe.task.for_student(), student, quantization.calibration, scheme)
    return TrainedModel(student.model, checkpoint, scheme)


def compile_for(
    recipe: Recipe, deployment: Deployment, shipped: TrainedModel, site: Site, stages: Stages
) -> tuple[OnnxModel, CompiledModel]:
    """Export in the form that the target fuses, and compile on the device."""
    target = deployment.target
    encoding = target.encoding if shipped.scheme else None
    model = stages.stage(export_onnx, shipped, recipe.export, encoding=encoding, highest_opset=target.highest_opset)
    return model, stages.stage(compile_model, model, target, site, options_of(deployment))


def measure(recipe: Recipe, models: Models, on_device: OnDevice, run: Run) -> Findings:
    """Measure parity, accuracy and latency on the device, and judge every budget."""
    budget, compiled = on_device.deployment.budget, on_device.compiled
    predictions = ChainPredictions(
        teacher=run.stage_of("teacher", predict, recipe.task.for_teacher(), models.teacher),
        student=run.stage_of("student", predict, recipe.task.for_student(), models.student),
        quantized=run.stage_of("quantized", predict, recipe.task.for_student(), models.shipped)
        if models.shipped.scheme
        else None,
    )
    parity = on_device.parity(models.shipped)
    accuracy = on_device.accuracy(predictions)
    latency = on_device.latency()
    checks = check_budget(budget, parity=parity, accuracy=accuracy, latency=latency, size_bytes=compiled.size_bytes)
    lineage = {
        "teacher": models.teacher.checkpoint.sha256,
        "student": models.student.checkpoint.sha256,
        "shipped": models.shipped.checkpoint.sha256,
        "onnx": on_device.model.sha256,
    }
    classes = models.student.checkpoint.classes
    return Findings(on_device.model, compiled, latency, checks, lineage, classes, accuracy=accuracy, parity=parity)
