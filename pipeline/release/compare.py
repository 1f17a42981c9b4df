"""Two releases or packages side by side: what an application team gets when it takes the other one.

Rule: figures are compared only where they were measured under the same conditions; an interval that holds no change is
no change; what an app relies on is listed apart, since a better model that breaks the app is no better.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from pydantic import ValidationError

from pipeline.release.manifest import REPORT, FileFacts, Manifest
from pipeline.release.verify import OpenRelease
from pipeline.report.comparison import (
    LOAD_SPREAD,
    MEMORY_SPREAD,
    Compared,
    change_of,
    compare_accuracy,
    compare_plain,
    differences,
)
from pipeline.report.report import LatencyFigures, Report, read_report
from pipeline.report.wording import plan_words

MEASURED_ON_DEVICE = ("p50", "p99", "peak memory", "load")
"""Figures that are of a device and a protocol."""


@dataclass(frozen=True)
class Changed:
    """Something that is not as it was."""

    what: str
    before: str | None
    """None where there was none."""
    after: str | None


@dataclass(frozen=True)
class OperatorChange:
    """How many executed operators of one type and precision there are; those that both have alike are left out."""

    op_type: str
    precision: str
    before: int
    after: int


@dataclass(frozen=True)
class Comparison:
    """Everything that is not alike in two releases, and the figures of both."""

    figures: tuple[Compared, ...]
    conditions: tuple[str, ...]
    """What keeps figures of the device from being compared."""
    breaking: tuple[Changed, ...]
    """Of how the model is called: an app that took the one must be changed for the other."""
    facts: tuple[Changed, ...]
    """Version, runtime, precision, verdict, budgets and the like."""
    licences: tuple[Changed, ...]
    operators: tuple[OperatorChange, ...] | None
    """None where a report does not tell."""
    files: tuple[Changed, ...]
    """By digest; the model first."""

    @property
    def is_worse(self) -> bool:
        """Whether a figure became worse beyond chance, or an app would break."""
        return bool(self.breaking) or any(each.change == "worse" for each in self.figures)


def compare_releases(before: OpenRelease, after: OpenRelease) -> Comparison:
    """Compare two verified releases or packages, of one platform or of two."""
    one, other = before.manifest, after.manifest
    reports = _report(before), _report(after)
    conditions: list[str] = []
    operators: tuple[OperatorChange, ...] | None = None
    if reports[0] and reports[1]:
        conditions = differences(reports[0], reports[1], of_one_precision=False)
        operators = tuple(_operators(reports[0], reports[1]))
    else:
        conditions = ["a report of another version of edgeproof, which does not tell the conditions"]
    return Comparison(
        figures=tuple(_judged(each, conditions) for each in _figures(one, other)),
        conditions=tuple(conditions),
        breaking=tuple(_breaking(one, other)),
        facts=tuple(_changes(_facts(one), _facts(other))),
        licences=tuple(_changes(dict(one.licences.each()), dict(other.licences.each()))),
        operators=operators,
        files=tuple(_changes(_files(one), _files(other))),
    )


def _report(release: OpenRelease) -> Report | None:
    try:
        return read_report(release.files[release.manifest.evidence + REPORT].decode())
    except (ValidationError, UnicodeDecodeError):
        return None


def _figures(one: Manifest, other: Manifest) -> Iterator[Compared]:
    if one.accuracy and other.accuracy:
        yield compare_accuracy(one.accuracy, other.accuracy)
    if one.latency and other.latency:
        yield Compared("p50", one.latency.p50_ms, other.latency.p50_ms, "ms", None, "unknown")
        yield _p99(one.latency, other.latency)
    yield compare_plain("size", _model(one).size_bytes, _model(other).size_bytes, "bytes")
    if one.memory and other.memory:
        peaks = one.memory.peak_bytes, other.memory.peak_bytes
        yield compare_plain("peak memory", *peaks, "bytes", spread=MEMORY_SPREAD)
    if one.load and other.load:
        yield compare_plain("load", one.load.median_ms, other.load.median_ms, "ms", spread=LOAD_SPREAD)


def _p99(one: LatencyFigures, other: LatencyFigures) -> Compared:
    """Compare by the ends of both intervals divided crosswise: at least 90 %, since each holds its p99 with 95 %."""
    interval = None
    if one.p99_ci_ms and other.p99_ci_ms:
        interval = (other.p99_ci_ms[0] / one.p99_ci_ms[1], other.p99_ci_ms[1] / one.p99_ci_ms[0])
    return Compared("p99", one.p99_ms, other.p99_ms, "ms", interval, change_of(interval, 1.0))


def _judged(figure: Compared, conditions: list[str]) -> Compared:
    """Take back what cannot be said of figures that were measured under other conditions."""
    if conditions and figure.name in MEASURED_ON_DEVICE:
        return replace(figure, interval=None, change="unknown")
    return figure


def _breaking(one: Manifest, other: Manifest) -> Iterator[Changed]:
    """Yield what an app relies on: tensors, what surrounds them, and the labels with their order."""
    yield from _changes(_interface(one), _interface(other))
    before, after = one.interface.labels, other.interface.labels
    if before == after:
        return
    removed, added = [label for label in before if label not in after], [each for each in after if each not in before]
    if removed or added:
        yield Changed("labels", _listed(removed), _listed(added))
    else:
        yield Changed("order of the labels", _listed(before), _listed(after))


def _interface(manifest: Manifest) -> dict[str, str | None]:
    interface, processing = manifest.interface, asdict(manifest.interface.processing)
    tensors = {"input": interface.inputs, "output": interface.outputs}
    return {
        "runtime": manifest.runtime.target,
        **{
            f"{kind} {index}": f"{spec.name}: {spec.dtype}{_shape(spec.shape)}"
            for kind, specs in tensors.items()
            for index, spec in enumerate(specs)
        },
        **{f"processing: {name}": json.dumps(value) for name, value in processing.items()},
    }


def _facts(manifest: Manifest) -> dict[str, str | None]:
    budgets = manifest.budget.model_dump(mode="json", exclude_none=True) if manifest.budget else {}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "deployment": manifest.deployment,
        "platform": manifest.platform,
        "made": manifest.created_at,
        "runtime": f"{manifest.runtime.target} {manifest.runtime.version}",
        "precision": plan_words(manifest.precision, manifest.float_layers, manifest.rest),
        "verdict": manifest.verdict.value + (", accepted as it is" if manifest.accepted_undecided else ""),
        "network": manifest.card.student.architecture,
        "training": f"{manifest.card.student.origin}; {'; '.join(manifest.card.losses)}",
        "quantization": manifest.card.quantization,
        "data": manifest.card.data.name,
        **{f"budget: {name}": json.dumps(limits, sort_keys=True) for name, limits in budgets.items()},
        **{f"lineage: {name}": digest for name, digest in manifest.lineage.items()},
    }


def _operators(one: Report, other: Report) -> Iterator[OperatorChange]:
    before, after = _counts(one), _counts(other)
    for op_type, precision in sorted(before.keys() | after.keys()):
        counts = before[op_type, precision], after[op_type, precision]
        if counts[0] != counts[1]:
            yield OperatorChange(op_type, precision, *counts)


def _counts(report: Report) -> Counter[tuple[str, str]]:
    counts = Counter[tuple[str, str]]()
    for each in report.executed.operators:
        counts[each.op_type, each.precision] += each.count
    return counts


def _files(manifest: Manifest) -> dict[str, str | None]:
    files = {name: facts for name, facts in manifest.files.items() if name != manifest.model}
    named = {"model": _model(manifest), **dict(sorted(files.items()))}
    return {name: f"{facts.size_bytes} bytes, sha256 {facts.sha256}" for name, facts in named.items()}


def _model(manifest: Manifest) -> FileFacts:
    return manifest.files[manifest.model]


def _changes(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> Iterator[Changed]:
    for what in dict.fromkeys((*before, *after)):
        if before.get(what) != after.get(what):
            yield Changed(what, before.get(what), after.get(what))


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _listed(labels: list[str] | tuple[str, ...]) -> str | None:
    return ", ".join(labels) if labels else None
