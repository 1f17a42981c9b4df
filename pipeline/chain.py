"""THE chain: from a recipe to a released model on a device. Rule: a table of contents, without logic of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from pipeline.accepted import can_be_asked, require_accepted
from pipeline.artifacts import CompiledModel, OnnxModel, SyntheticImages
from pipeline.describe import check_licences
from pipeline.install import install
from pipeline.locks import held
from pipeline.measuring.verdict import Verdict
from pipeline.models.trained import TrainedModel
from pipeline.on_device import OnDevice, compare_with_float, floats_of, opset_note, options_of, require_precision
from pipeline.publish import Findings, publish
from pipeline.recipe import Deployment, Recipe
from pipeline.report.report import Report
from pipeline.run import PlannedStage, Run, Stages, open_plan, open_run, site_or_missing, work_folder
from pipeline.settle import Settled, must_earn, settle
from pipeline.site import Site
from pipeline.stages.calibrate_student import calibrate_student
from pipeline.stages.check_budget import check_budget, first_answer
from pipeline.stages.compile_model import compile_model
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
from targets.devices.device import Device, open_device
from targets.devices.install import Installed
from targets.devices.inventory import LOCAL_ALONE, Inventory

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
    devices: Inventory = LOCAL_ALONE,
) -> Report:
    """Take a recipe to one of its deployments; release it where every budget holds.

    Raises:
        EdgeproofError: whatever stops the chain; finished stages, and the last epoch of an unfinished one, are kept.
    """
    folder = build / recipe.name / deployment.name
    run = open_run(console, build, loggers=loggers, run_name=recipe.name)
    with held(build / recipe.name / "lock", f"deploying {recipe.name} to {deployment.name}", run.wait):
        check_export(recipe, deployment, run)
        site = probe(deployment, run.work, devices, run.say)
        note = opset_note(recipe.export.opset, deployment.target)
        run.say(f"{deployment.name}: {deployment.target.kind} {site.facts.identity['runtime_version']} answers{note}")
        if will_train(recipe, deployment, site, build):
            check_losses(recipe, deployment)
            first = check_feasibility(recipe, deployment, site, run)
            if is_hopeless(first) and not train_anyway:
                return publish(recipe, deployment, first, run, folder=folder).report
        models = train_models(recipe, deployment, site, run)
        return prove(recipe, models, site, run, folder=folder, accept_undecided=accept_undecided).report


def plan(
    recipe: Recipe, deployment: Deployment, *, build: Path, devices: Inventory = LOCAL_ALONE
) -> list[PlannedStage]:
    """Say what a deploy would run, what is cached, and why something is stale; nothing is computed."""
    planned = open_plan(build)
    site = site_or_missing(lambda: probe(deployment, work_folder(build), devices))
    models = train_models(recipe, deployment, site, planned)
    compile_for(recipe, models.settled.deployment, models.shipped, site, planned)
    measurements = (PlannedStage(name, "measure", "always fresh") for name in MEASUREMENTS)
    at_the_gate = (("record_answers", "measure"), ("install_release", "install"))
    if_it_opens = (PlannedStage(name, state, "if every budget holds") for name, state in at_the_gate)
    return [*planned.stages, *measurements, *if_it_opens]


MEASUREMENTS = ("check_parity", "measure_accuracy", "profile_latency")


@dataclass(frozen=True)
class Models:
    """What training gives; the quantized student ships, or the float one."""

    teacher: TrainedModel
    student: TrainedModel
    settled: Settled
    shipped: TrainedModel


@dataclass(frozen=True)
class Proved:
    """What a trained student is worth on one device."""

    report: Report
    installed: Installed | None
    """None where the gate stayed shut."""


def prove(
    recipe: Recipe, models: Models, site: Site, run: Run, *, folder: Path, accept_undecided: bool = False
) -> Proved:
    """Compile and measure what was trained on one device; release and install it where every budget holds."""
    models = earn_place(recipe, models, site, run)
    settled = models.settled.deployment
    model, compiled = compile_for(recipe, settled, models.shipped, site, run)
    on_device = OnDevice(recipe.task.for_student(), settled, model, compiled, site, run)
    findings = measure(recipe, models, on_device, run)
    recording = on_device.record() if findings.can_be_released(accept_undecided=accept_undecided) else None
    with run.host.turn():
        published = publish(
            recipe,
            settled,
            findings,
            run,
            folder=folder,
            accept_undecided=accept_undecided,
            recording=recording,
        )
        run.note(published.report, findings.latency.samples_ns)
    return Proved(published.report, install(published, on_device, folder))


def probe(
    deployment: Deployment, work: Path, devices: Inventory, say: Callable[[str], None] = lambda line: None
) -> Site:
    """Reach the device of the inventory, and its runtime, before anything else is done; raises as `ask`."""
    return ask(deployment, open_device(deployment.device, work, devices, say))


def ask(deployment: Deployment, device: Device) -> Site:
    """Have a device say what it is, before anything else is done.

    Raises:
        DeviceError: it does not answer, is not what is expected, or lacks the runtime.
        RecipeError: runtime or processor lack the deployment's precision.
    """
    facts = device.probe(deployment.target)
    require_precision(deployment, facts)
    return Site(device, facts)


def will_train(recipe: Recipe, deployment: Deployment, site: Site, build: Path) -> bool:
    """Tell whether a deploy would train anything."""
    planned = open_plan(build)
    train_models(recipe, deployment, site, planned)
    return any(stage.state != "cached" for stage in planned.stages)


def check_export(recipe: Recipe, deployment: Deployment, run: Run) -> None:
    """Ask what needs no device before one is reached: licences, and whether the target takes the untrained student."""
    check_licences(recipe, deployment, run.say)
    if can_be_asked(deployment.target) and deployment.precision != "auto":
        export_for(recipe, deployment, calibrate(recipe, deployment, untrained_student(recipe, run), run), run)


def check_feasibility(recipe: Recipe, deployment: Deployment, site: Site, run: Run) -> Findings:
    """Profile the untrained, calibrated, quantized student: a first answer before hours are spent."""
    run.say("first answer: the untrained student on the device")
    student = untrained_student(recipe, run)
    deployment = settle(recipe, deployment, student, site, run, is_trained=False).deployment
    shipped = calibrate(recipe, deployment, student, run)
    model, compiled = compile_for(recipe, deployment, shipped, site, run)
    on_device = OnDevice(recipe.task.for_student(), deployment, model, compiled, site, run)
    latency, fusion = on_device.latency(at_most_s=FIRST_ANSWER_SECONDS), on_device.fusion(shipped)
    checks = first_answer(deployment.budget, latency=latency, size_bytes=compiled.size_bytes)
    lineage = {"student": student.checkpoint.sha256, "onnx": model.sha256}
    classes = student.checkpoint.classes
    return Findings(model, compiled, latency, checks, lineage, classes, fusion=fusion, untrained=True)


def is_hopeless(first: Findings) -> bool:
    """Tell whether a budget fails that no training will mend."""
    return any(check.verdict is Verdict.FAIL for check in first.checks)


def untrained_student(recipe: Recipe, run: Run) -> TrainedModel:
    """Return the student as its training begins."""
    model, seed = recipe.student.model, recipe.distillation.training.seed
    return TrainedModel(model, run.stage(initialize_student, recipe.task.for_student(), model, seed))


def train_models(recipe: Recipe, deployment: Deployment, site: Site, stages: Stages) -> Models:
    """Train or load the teachers, distill the student, settle its precision, and train it on the target's grid."""
    teachers = teach(recipe, stages)
    images = synthesize(recipe, teachers[0], stages)
    student = distill(recipe, teachers, images, stages)
    losses = recipe.quantization.losses if recipe.quantization else ()
    teaching = Teaching(teachers, losses, stages.outputs, precision=recipe.distillation.teacher_precision)
    settled = settle(recipe, deployment, student, site, stages)
    shipped = quantize(recipe, settled.deployment, student, teaching, images, stages)
    return Models(teachers[0], student, settled, shipped)


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
        teaching = Teaching(
            teachers,
            distillation.losses,
            stages.outputs,
            live=distillation.live_teacher,
            precision=distillation.teacher_precision,
        )
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
    if deployment.precision != "int8" or quantization is None:
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
        scales=quantization.scales,
        float_layers=deployment.float_layers,
    )
    return TrainedModel(student.model, checkpoint, scheme, deployment.float_layers)


def calibrate(recipe: Recipe, deployment: Deployment, student: TrainedModel, stages: Stages) -> TrainedModel:
    """Put a float student on the target's grid without training, where int8 ships."""
    quantization, scheme = recipe.quantization, deployment.target.scheme
    if deployment.precision != "int8" or quantization is None:
        return student
    layers = deployment.float_layers
    checkpoint = stages.stage(
        calibrate_student, recipe.task.for_student(), student, quantization.calibration, scheme, layers
    )
    return TrainedModel(student.model, checkpoint, scheme, layers)


def earn_place(recipe: Recipe, models: Models, site: Site, run: Run) -> Models:
    """Ship the float student after all where `auto` trained int8, and that is slower on the device."""
    settled = models.settled
    if not must_earn(settled):
        return models
    as_float = settled.deployment.model_copy(update={"precision": "fp32", "float_layers": (), "rest": None})
    _, float_model = compile_for(recipe, as_float, models.student, site, run)
    _, int8_model = compile_for(recipe, settled.deployment, models.shipped, site, run)
    earned = compare_with_float(int8_model, float_model, settled.deployment, site, run)
    if earned.verdict is not Verdict.FAIL:
        return replace(models, settled=replace(settled, earned=earned))
    run.say(f"int8 is slower than float on the device ({earned.ratio:.3g} times as fast): the float student ships")
    return replace(models, settled=replace(settled, deployment=as_float, earned=earned), shipped=models.student)


def compile_for(
    recipe: Recipe, deployment: Deployment, shipped: TrainedModel, site: Site, stages: Stages
) -> tuple[OnnxModel, CompiledModel]:
    """Export in the form that the target fuses, and compile on the device."""
    model = export_for(recipe, deployment, shipped, stages)
    return model, stages.stage(compile_model, model, deployment.target, site, options_of(deployment))


def export_for(recipe: Recipe, deployment: Deployment, shipped: TrainedModel, stages: Stages) -> OnnxModel:
    """Export in the form that the target fuses, and ask whether it takes that, where no device is needed for it."""
    target = deployment.target
    model = stages.stage(
        export_onnx,
        shipped,
        recipe.export,
        encoding=target.encoding if shipped.scheme else None,
        highest_opset=target.highest_opset,
        floats=floats_of(deployment),
        processing=recipe.task.for_student().normalization.processing(),
    )
    require_accepted(model, target, stages)
    return model


def predict_all(recipe: Recipe, models: Models, run: Run) -> ChainPredictions:
    """Return what the models before the device say of the test images."""
    return ChainPredictions(
        teacher=run.stage_of("teacher", predict, recipe.task.for_teacher(), models.teacher),
        student=run.stage_of("student", predict, recipe.task.for_student(), models.student),
        quantized=run.stage_of("quantized", predict, recipe.task.for_student(), models.shipped)
        if models.shipped.scheme
        else None,
    )


def measure(recipe: Recipe, models: Models, on_device: OnDevice, run: Run) -> Findings:
    """Measure parity, accuracy and latency on the device, and judge every budget."""
    budget, compiled = on_device.deployment.budget, on_device.compiled
    predictions = predict_all(recipe, models, run)
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
    return Findings(
        on_device.model,
        compiled,
        latency,
        checks,
        lineage,
        classes,
        fusion=on_device.fusion(models.shipped),
        search=models.settled.figures(),
        accuracy=accuracy,
        parity=parity,
        parameters=models.shipped.checkpoint.parameters,
    )
