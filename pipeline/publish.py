"""What a run leaves behind: the report, its raw samples, the artifact, and a release where every budget holds."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx

from pipeline.artifacts import Accuracy, CompiledModel, FusionProof, LatencyProfile, OnnxModel, Parity, Release
from pipeline.canonical import canonical, canonical_sha256
from pipeline.describe import describe_card, find_licences
from pipeline.durable import write_durably, writing_in
from pipeline.measuring.verdict import Check, Verdict, combine
from pipeline.recipe import Deployment, Recipe
from pipeline.release.golden import make_golden, noise_of
from pipeline.release.manifest import Interface
from pipeline.release.output_step import output_step
from pipeline.report.build import Evidence, Subject, build_report
from pipeline.report.page import report_html
from pipeline.report.report import SAMPLES_FILE, PrecisionFigures, Report, report_json, samples_bytes
from pipeline.report.sensor_figures import TRACE_FILE, trace_json
from pipeline.run import Run
from pipeline.stages.package_release import Papers, package_release
from targets.devices.install import Recording

RELEASE, EARLIER_RELEASE = "release", "earlier_release"


@dataclass(frozen=True)
class Published:
    """What a run left on this machine."""

    report: Report
    release: Release | None
    """None where the gate stayed shut."""
    recording: Recording | None = None
    """What the released model answered on its device."""


@dataclass(frozen=True)
class Findings:
    """What the chain found out about one deployment; `untrained` is the first answer, before training."""

    model: OnnxModel
    compiled: CompiledModel
    latency: LatencyProfile
    checks: tuple[Check, ...]
    lineage: dict[str, str]
    classes: tuple[str, ...]
    fusion: FusionProof
    search: PrecisionFigures | None = None
    """How the precision was found, where the recipe did not name it."""
    accuracy: Accuracy | None = None
    parity: Parity | None = None
    untrained: bool = False
    parameters: int | None = None
    """Weights and biases of what ships."""

    def can_be_released(self, *, accept_undecided: bool) -> bool:
        """Tell whether they allow a release."""
        verdict = combine(check.verdict for check in self.checks)
        return not self.untrained and (verdict is Verdict.PASS or (verdict is Verdict.UNDECIDED and accept_undecided))


def publish(
    recipe: Recipe,
    deployment: Deployment,
    findings: Findings,
    run: Run,
    *,
    folder: Path,
    accept_undecided: bool = False,
    recording: Recording | None = None,
) -> Published:
    """Write report.json, report.html, the raw samples and the artifact to `folder`; and release/ if the gate opens.

    `recording` is what the model answers on its device, where it is to be released. An earlier release that the new
    figures do not support moves to earlier_release/.

    Raises:
        StoreError: the folder cannot be written.
    """
    report = _build(recipe, deployment, findings, run, accept_undecided=accept_undecided)
    page = report_html(report, findings.latency.samples_ns)
    is_released = findings.can_be_released(accept_undecided=accept_undecided)
    with writing_in(folder, "the report"):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / findings.compiled.path.name, findings.compiled.path.read_bytes())
        write_durably(folder / SAMPLES_FILE, samples_bytes(findings.latency.samples_ns))
        write_durably(folder / TRACE_FILE, trace_json(findings.latency).encode())
        write_durably(folder / "report.json", report_json(report).encode())
        write_durably(folder / "report.html", page.encode())
        if not is_released:
            _set_earlier_release_aside(folder, run)
    if not is_released:
        return Published(report, None)
    assert recording is not None, "a release has golden answers"
    papers = _papers(recipe, deployment, findings, recording)
    with writing_in(folder, "the release"):
        release = package_release(folder, findings.compiled, papers, report=report, report_html=page.encode())
    return Published(report, release, recording)


def _papers(recipe: Recipe, deployment: Deployment, findings: Findings, recording: Recording) -> Papers:
    """Return what ships beside the model, but for the report."""
    interface = Interface(
        inputs=(findings.model.input,),
        outputs=(findings.model.output,),
        processing=recipe.task.for_student().normalization.processing().fed_to(findings.model.input),
        labels=findings.classes,
    )
    step = output_step(onnx.load(findings.model.path))
    return Papers(
        interface=interface,
        budget=deployment.budget,
        card=describe_card(recipe, deployment, parameters=findings.parameters),
        licences=find_licences(recipe, deployment),
        golden=make_golden(
            interface,
            recording.feeds[findings.model.input.name],
            recording.outputs[findings.model.output.name],
            step=step,
            noise=noise_of(deployment.precision, deployment.rest, step),
        ),
    )


def _build(recipe: Recipe, deployment: Deployment, findings: Findings, run: Run, *, accept_undecided: bool) -> Report:
    subject = Subject(
        recipe=recipe.name,
        version=recipe.version,
        deployment=deployment.name,
        target=deployment.target.kind,
        device=deployment.device,
        precision=deployment.precision,
        float_layers=deployment.float_layers,
        rest=deployment.rest,
        licence=recipe.license,
    )
    evidence = Evidence(
        compiled=findings.compiled,
        artifact_path=findings.compiled.path.name,
        latency=findings.latency,
        fusion=findings.fusion,
        search=findings.search,
        accuracy=findings.accuracy,
        parity=findings.parity,
    )
    lineage = {
        "recipe": canonical_sha256(canonical(recipe, "recipe")),
        "data": canonical_sha256(canonical(recipe.task, "task")),
        **findings.lineage,
        "artifact": findings.compiled.sha256,
    }
    return build_report(
        subject,
        evidence,
        findings.checks,
        stages=run.stages,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        latency_budget=deployment.budget.latency,
        lineage=lineage,
        accepted_undecided=accept_undecided and combine(c.verdict for c in findings.checks) is Verdict.UNDECIDED,
        untrained=findings.untrained,
    )


def _set_earlier_release_aside(folder: Path, run: Run) -> None:
    release, earlier = folder / RELEASE, folder / EARLIER_RELEASE
    if release.exists():
        shutil.rmtree(earlier, ignore_errors=True)
        release.rename(earlier)
        run.say(f"no release now; that of an earlier run is kept in {earlier}")
