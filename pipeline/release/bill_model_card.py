"""The modelCard of a CycloneDX 1.6 component, which the library has no class for. Rule: figures are the manifest's.

https://cyclonedx.org/docs/1.6/json/#components_items_modelCard: every value is a string there.
"""

from collections.abc import Iterator

from pydantic import JsonValue

from pipeline.measuring.proportions import wilson_interval
from pipeline.measuring.verdict import Verdict
from pipeline.release.manifest import Manifest
from pipeline.report.report import AccuracyFigures, LatencyFigures
from targets.target import TensorSpec

DATA = "data"
"""What the component of the data set is referred to by."""


def model_card(manifest: Manifest) -> dict[str, JsonValue]:
    """Return the modelCard of a release's model."""
    return {
        "modelParameters": _parameters(manifest),
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(manifest))},
        "considerations": _considerations(manifest),
        "properties": list(_properties(manifest)),
    }


def measured_limits(manifest: Manifest) -> list[str]:
    """Return what the figures do not tell, in words: for the bill and the card alike."""
    limits = ["Accuracy and latency hold for the data and the device that they were measured on, and for no other."]
    if manifest.verdict is Verdict.UNDECIDED:
        limits.append("It was released although not every budget could be decided.")
    figures = {
        "Accuracy": manifest.accuracy,
        "Latency": manifest.latency,
        "Memory": manifest.memory,
        "Time to load": manifest.load,
    }
    limits += [f"{name} was not measured." for name, found in figures.items() if found is None]
    return [*limits, "Fairness among groups of people and robustness against attacks were not measured."]


def tensor_words(spec: TensorSpec) -> str:
    """Return name, type and shape of a tensor on one line."""
    shape = " x ".join("any" if size is None else str(size) for size in spec.shape)
    return f"{spec.name}: {spec.dtype}, {shape}"


def _parameters(manifest: Manifest) -> dict[str, JsonValue]:
    card, interface = manifest.card, manifest.interface
    return {
        "approach": {"type": "supervised"},
        "task": card.task,
        "architectureFamily": card.student.architecture.split(" ")[0],
        "modelArchitecture": card.student.architecture,
        "datasets": [{"ref": DATA}],
        "inputs": [{"format": tensor_words(spec)} for spec in interface.inputs],
        "outputs": [{"format": tensor_words(spec)} for spec in interface.outputs],
    }


def _metrics(manifest: Manifest) -> Iterator[JsonValue]:
    if manifest.accuracy:
        yield from _accuracies(manifest.accuracy)
    where = f"{manifest.deployment}: {manifest.runtime.target} {manifest.runtime.version}"
    if manifest.latency:
        yield from _latencies(manifest.latency, where)
    if manifest.memory:
        yield _metric("peak resident memory in bytes", manifest.memory.peak_bytes, where)
    if manifest.load:
        yield _metric("median time to load in ms", manifest.load.median_ms, where)
    yield _metric("size of the model in bytes", manifest.files[manifest.model].size_bytes, "the file that ships")


def _accuracies(accuracy: AccuracyFigures) -> Iterator[JsonValue]:
    """Yield the model's accuracy on the device, and those of what it was made from, each with its Wilson interval."""
    for what, share in (
        ("on the device", accuracy.on_device),
        ("teacher", accuracy.teacher),
        ("float student", accuracy.student),
        ("quantized student in training's arithmetic", accuracy.quantized),
    ):
        interval = wilson_interval(share * accuracy.num_samples, accuracy.num_samples)
        where = f"{what}: {accuracy.num_samples} test images"
        yield _metric(f"accuracy ({accuracy.metric})", share, where, interval)


def _latencies(latency: LatencyFigures, where: str) -> Iterator[JsonValue]:
    for name, value, interval in (
        ("p50", latency.p50_ms, None),
        ("p90", latency.p90_ms, None),
        ("p99", latency.p99_ms, latency.p99_ci_ms),
    ):
        yield _metric(f"latency {name} in ms, scope {latency.scope}", value, where, interval)


def _metric(kind: str, value: float, where: str, interval: tuple[float, float] | None = None) -> JsonValue:
    metric: dict[str, JsonValue] = {"type": kind, "value": f"{value:.9g}", "slice": where}
    if interval is not None:
        low, high = interval
        metric["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
    return metric


def _considerations(manifest: Manifest) -> dict[str, JsonValue]:
    card = manifest.card
    found: dict[str, JsonValue] = {"technicalLimitations": [*card.limitations, *measured_limits(manifest)]}
    if card.intended_use:
        found["useCases"] = [card.intended_use]
    if accuracy := manifest.accuracy:
        lost = 100 * (accuracy.student - accuracy.on_device)
        found["performanceTradeoffs"] = [
            f"{manifest.precision} on the device loses {lost:.2f} points of accuracy against the float student"
        ]
    return found


def _properties(manifest: Manifest) -> Iterator[JsonValue]:
    """Yield what the schema has no word for: how it was trained, and how its budgets were judged."""
    card = manifest.card
    said = {
        "teachers": "; ".join(f"{each.architecture}, {each.origin}" for each in card.teachers),
        "student": card.student.origin,
        "losses": "; ".join(card.losses),
        "quantization": card.quantization or "none",
        **{
            f"budget:{check.name}": f"{check.bound} {check.limit:.6g} {check.unit}: {check.verdict.value}"
            for check in manifest.checks
        },
    }
    for name, value in said.items():
        yield {"name": f"edgeproof:{name}", "value": value}
