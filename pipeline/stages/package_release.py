"""Bind a verdict to the bytes that ship. Rule: nothing leaves that the gate did not let through."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.artifacts import CompiledModel, Release
from pipeline.budget import Budget
from pipeline.measuring.verdict import Verdict
from pipeline.release.archive import parse_time, write_archive
from pipeline.release.bill import BILL, make_bill
from pipeline.release.card import Card
from pipeline.release.licences import Licences
from pipeline.release.manifest import (
    LABELS,
    MANIFEST,
    README,
    REPORT,
    REPORT_PAGE,
    SHARED_WITH_REPORT,
    Interface,
    Manifest,
    Runtime,
    describe,
    labels_bytes,
    manifest_bytes,
)
from pipeline.release.model_card import MODEL_CARD, render_model_card
from pipeline.release.readme import render_readme
from pipeline.release.text import violations
from pipeline.report.report import Report, report_json
from targets.errors import EdgeproofError


@dataclass(frozen=True, kw_only=True)
class Papers:
    """What a model ships with, beside its report."""

    interface: Interface
    budget: Budget | None
    card: Card
    licences: Licences
    golden: Mapping[str, bytes]
    """golden.json and its arrays, by name."""


def package_release(
    out_dir: Path, model: CompiledModel, papers: Papers, *, report: Report, report_html: bytes
) -> Release:
    """Write `release/<name>-<version>-<deployment>.zip` in `out_dir`: the same bytes for the same model and report.

    Name, version, licence, verdict, figures, lineage and time are the report's; so is the choice to accept what is
    undecided. An earlier archive of that name is replaced, and stays whole until then.

    Raises EdgeproofError where a check failed, or is undecided and not accepted; where the report is about another
    model, or about an untrained one; and where name, version, labels or tensors cannot be released as they are.
    """
    _refuse_unless_passed(report)
    content = _read_model(model, report)
    model_file = f"model{model.path.suffix}"
    files = {
        model_file: content,
        REPORT: report_json(report).encode(),
        REPORT_PAGE: report_html,
        LABELS: labels_bytes(papers.interface),
        **papers.golden,
    }
    manifest = _make_manifest(model, report, papers, files)
    files[BILL] = make_bill(manifest)
    files[MODEL_CARD] = render_model_card(manifest)
    files[README] = render_readme(manifest)
    files[MANIFEST] = manifest_bytes(manifest.model_copy(update={"files": describe(files)}))
    path = out_dir / "release" / f"{manifest.name}-{manifest.version}-{manifest.deployment}.zip"
    write_archive(path, files, parse_time(manifest.created_at))
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Release(path=path, sha256=sha256, size_bytes=path.stat().st_size)


def _refuse_unless_passed(report: Report) -> None:
    release = f"release of {report.recipe} for {report.deployment}"
    if report.untrained:
        raise EdgeproofError(
            f"{release}: expected a trained model; got the first answer of an untrained one; deploy it"
        )
    if report.verdict is Verdict.PASS or (report.verdict is Verdict.UNDECIDED and report.accepted_undecided):
        return
    wrong = [f"{check.name} {check.verdict}" for check in report.checks if check.verdict is not Verdict.PASS]
    remedy = "measure longer, or set --accept-undecided"
    if report.verdict is Verdict.FAIL:
        remedy = "change the student, its training or the budget"
    got = ", ".join(wrong) or "no check at all"
    raise EdgeproofError(f"{release}: expected every check to pass; got {got}; {remedy}")


def _read_model(model: CompiledModel, report: Report) -> bytes:
    content = model.path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    for name, expected in (("when it was compiled", model.sha256), ("when it was judged", report.artifact.sha256)):
        if sha256 != expected:
            raise EdgeproofError(
                f"{model.path}: expected the model to have sha256 {expected}, as {name}; got {sha256}; deploy again"
            )
    return content


def _make_manifest(model: CompiledModel, report: Report, papers: Papers, files: Mapping[str, bytes]) -> Manifest:
    fields: dict[str, object] = {name: getattr(report, name) for name in SHARED_WITH_REPORT}
    fields |= {
        "name": report.recipe,
        "runtime": Runtime(target=report.target, version=model.runtime_version, device=model.device),
        "interface": papers.interface,
        "budget": papers.budget,
        "card": papers.card,
        "licences": papers.licences,
        "model": f"model{model.path.suffix}",
        "files": describe(files),
    }
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        listed = "; ".join(f"{place}: expected {expected}; got {got}" for place, expected, got in violations(error))
        raise EdgeproofError(f"release of {report.recipe}: {listed}; change the recipe and deploy again") from error
