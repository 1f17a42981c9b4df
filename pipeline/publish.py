"""What a run leaves behind: the report, its raw samples, the artifact, and a release where every budget holds."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts import Accuracy, CompiledModel, FusionProof, LatencyProfile, OnnxModel, Parity, Release
from pipeline.canonical import canonical, canonical_sha256
from pipeline.durable import write_durably, writing_in
from pipeline.measuring.verdict import Check, Verdict, combine
from pipeline.recipe import Deployment, Recipe
from pipeline.release.manifest import Interface
from pipeline.report.build import Evidence, Subject, build_report
from pipeline.report.page import report_html
from pipeline.report.report import SAMPLES_FILE, PrecisionFigures, Report, report_json, samples_bytes
from pipeline.report.sensor_figures import TRACE_FILE, trace_json
from pipeline.run import Run
from pipeline.stages.package_release import package_release

RELEASE, EARLIER_RELEASE = "release", "earlier_release"


@dataclass(frozen=True)
class Published:
    """What a run left on this machine."""

    report: Report
    release: Release | None
    """None where the gate stayed shut."""


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


def publish(
    recipe: Recipe,
    deployment: Deployment,
    findings: Findings,
    run: Run,
    *,
    folder: Path,
    accept_undecided: bool = False,
) -> Published:
    """Write report.json, report.html, the raw samples and the artifact to `folder`; and release/ if the gate opens.

    An earlier release that the new figures do not support moves to earlier_release/.

    Raises:
        StoreError: the folder cannot be written.
    """
    report = _build(recipe, deployment, findings, run, accept_undecided=accept_undecided)
    page = report_html(report, findings.latency.samples_ns)
    is_released = not findings.untrained and (report.verdict is Verdict.PASS or report.accepted_undecided)
    with writing_in(folder, "the report"):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / findings.compiled.path.name, findings.compiled.path.read_bytes())
        write_durably(folder / SAMPLES_FILE, samples_bytes(findings.latency.samples_ns))
        write_durably(folder / TRACE_FILE, trace_json(findings.latency).encode())
        write_durably(folder / "report.json", report_json(report).encode())
        write_durably(folder / "report.html", page.encode())
        if not is_released:
            _set_earlier_release_aside(folder, run)
    release = None
    if is_released:
        interface = Interface(
            inputs=(findings.model.input,),
            outputs=(findings.model.output,),
            processing=recipe.task.for_student().normalization.processing().fed_to(findings.model.input),
            labels=findings.classes,
        )
        with writing_in(folder, "the release"):
            release = package_release(
                folder,
                findings.compiled,
                report=report,
                report_html=page.encode(),
                interface=interface,
                budget=deployment.budget,
            )
    return Published(report, release)


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
