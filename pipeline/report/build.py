"""Gathers artifacts and checks into a report. Rule: copies and sums figures; judges nothing, measures nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue, TypeAdapter

from pipeline.artifacts import Accuracy, CompiledModel, Hop, LatencyProfile, Parity
from pipeline.budget import LatencyBudget
from pipeline.measuring import quantiles
from pipeline.measuring.sequential import lag1_autocorrelation
from pipeline.measuring.verdict import Check, combine
from pipeline.report.report import (
    AccuracyFigures,
    ArtifactFigures,
    ExecutedFigures,
    HopFigures,
    LatencyFigures,
    LoadFigures,
    MemoryFigures,
    OperatorFigures,
    ParityFigures,
    Report,
    StageFigures,
    samples_file,
)
from targets.target import Layer

_CONTEXT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a report is about."""

    recipe: str
    version: str
    deployment: str
    target: str
    """Kind of the runtime."""
    device: str
    """Its name in the recipe."""
    precision: str
    """The deployment's."""
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the chain has found; accuracy and parity are None where it stopped at the first answer."""

    compiled: CompiledModel
    artifact_path: str
    """Of the compiled model, relative to the report's folder."""
    latency: LatencyProfile | None
    accuracy: Accuracy | None = None
    parity: Parity | None = None


def build_report(
    subject: Subject,
    evidence: Evidence,
    checks: Sequence[Check],
    *,
    stages: Sequence[StageFigures],
    created_at: str,
    latency_budget: LatencyBudget | None = None,
    lineage: Mapping[str, str] | None = None,
    accepted_undecided: bool = False,
    untrained: bool = False,
) -> Report:
    """Return the report of one deployment; its verdict is that of all checks together.

    Args:
        subject: Recipe and deployment.
        evidence: Artifacts and measurements.
        checks: Every budget that was set, judged.
        stages: What ran, in order.
        created_at: UTC, ISO 8601; part of the report so that a release takes its times from it.
        latency_budget: Shown beside the percentiles.
        lineage: Digests from data and teacher to the artifact, by name.
        accepted_undecided: Whether a release was allowed in spite of undecided budgets.
        untrained: Whether this is the first answer before training.
    """
    latency, compiled = evidence.latency, evidence.compiled
    return Report(
        created_at=created_at,
        recipe=subject.recipe,
        version=subject.version,
        deployment=subject.deployment,
        target=subject.target,
        device=subject.device,
        precision=subject.precision,
        licence=subject.licence,
        verdict=combine(check.verdict for check in checks),
        accepted_undecided=accepted_undecided,
        untrained=untrained,
        artifact=ArtifactFigures(path=evidence.artifact_path, sha256=compiled.sha256, size_bytes=compiled.size_bytes),
        accuracy=_accuracy(evidence.accuracy) if evidence.accuracy else None,
        parity=_parity(evidence.parity) if evidence.parity else None,
        latency=_latency(latency, latency_budget) if latency else None,
        memory=MemoryFigures(peak_bytes=latency.peak_bytes, baseline_bytes=latency.baseline_bytes) if latency else None,
        load=_load(latency) if latency else None,
        executed=executed_figures(compiled.layers),
        checks=tuple(checks),
        stages=tuple(stages),
        lineage=dict(lineage or {}),
        context=_context(compiled, latency),
    )


def executed_figures(layers: Sequence[Layer]) -> ExecutedFigures:
    """Count executed operators, and their time where the runtime counts it, by type and precision."""
    kinds = sorted({(layer.op_type, layer.precision) for layer in layers})
    int8 = [layer for layer in layers if layer.precision == "int8"]
    time_ms, int8_time_ms = _time_ms(layers), _time_ms(int8) or 0.0
    return ExecutedFigures(
        num_operators=len(layers),
        int8_operators=len(int8),
        int8_share=len(int8) / len(layers) if layers else None,
        int8_time_share=int8_time_ms / time_ms if time_ms else None,
        operators=tuple(
            OperatorFigures(op_type=op_type, precision=precision, count=len(same), time_ms=_time_ms(same))
            for op_type, precision in kinds
            for same in [[layer for layer in layers if (layer.op_type, layer.precision) == (op_type, precision)]]
        ),
    )


def _time_ms(layers: Sequence[Layer]) -> float | None:
    times = [layer.time_ms for layer in layers if layer.time_ms is not None]
    return math.fsum(times) if times else None


def _accuracy(accuracy: Accuracy) -> AccuracyFigures:
    return AccuracyFigures(
        metric=accuracy.metric,
        teacher=_share(accuracy.teacher),
        student=_share(accuracy.student),
        quantized=_share(accuracy.quantized),
        on_device=_share(accuracy.on_device),
        num_samples=accuracy.on_device.size,
    )


def _share(correct: np.ndarray) -> float:
    return int(correct.sum()) / correct.size


def _parity(parity: Parity) -> ParityFigures:
    return ParityFigures(torch_vs_onnx=_hop(parity.torch_vs_onnx), onnx_vs_device=_hop(parity.onnx_vs_device))


def _hop(hop: Hop) -> HopFigures:
    return HopFigures(
        max_abs_diff=hop.max_abs_diff if math.isfinite(hop.max_abs_diff) else None,
        top1_agreement=hop.top1_agreement,
        num_samples=hop.num_samples,
    )


def _latency(latency: LatencyProfile, budget: LatencyBudget | None) -> LatencyFigures:
    samples_ms = latency.samples_ns / 1e6
    return LatencyFigures(
        scope=latency.scope,
        threads=latency.threads,
        num_samples=samples_ms.size,
        p50_ms=quantiles.percentile_of(samples_ms, 50),
        p90_ms=quantiles.percentile_of(samples_ms, 90),
        p99_ms=quantiles.percentile_of(samples_ms, 99),
        p99_ci_ms=quantiles.interval(samples_ms, 99),
        budget_ms=budget.max_ms if budget else None,
        budget_percentile=budget.percentile if budget else None,
        protocol=latency.protocol,
        block_sizes=latency.block_sizes,
        warmup_runs=latency.warmup_runs,
        seconds=latency.seconds,
        lag1_autocorrelation=lag1_autocorrelation(latency.samples_ns, latency.block_sizes),
        measured_at=latency.measured_at,
        samples=samples_file(latency.samples_ns),
    )


def _load(latency: LatencyProfile) -> LoadFigures:
    return LoadFigures(median_ms=quantiles.percentile_of(np.array(latency.load_ms), 50), each_ms=latency.load_ms)


def _context(compiled: CompiledModel, latency: LatencyProfile | None) -> dict[str, JsonValue]:
    """Return what the device said while it measured, beside the runtime; refuses what JSON cannot hold."""
    said = latency.context if latency else {}
    known = {"runtime": compiled.runtime, "runtime_version": compiled.runtime_version}
    return _CONTEXT.validate_python({**known, "device_digest": compiled.device, **said})
