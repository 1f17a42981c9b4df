"""Gathers artifacts and checks into a report. Rule: copies and sums figures; judges nothing, measures nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import JsonValue, TypeAdapter

from pipeline.artifacts import (
    Accuracy,
    Bisection,
    CompiledModel,
    Divergence,
    FloatIsland,
    FusionProof,
    Hop,
    LatencyProfile,
    Parity,
)
from pipeline.budget import LatencyBudget
from pipeline.measuring import quantiles
from pipeline.measuring.assess import assess
from pipeline.measuring.dependence import lag1_autocorrelation
from pipeline.measuring.validity import find_flags
from pipeline.measuring.verdict import Check, combine
from pipeline.report.report import (
    AccuracyFigures,
    ArtifactFigures,
    BisectionFigures,
    DivergenceFigures,
    ExecutedFigures,
    FlagFigures,
    FusionFigures,
    HopFigures,
    IslandFigures,
    LatencyFigures,
    LayerTimeFigures,
    LoadFigures,
    MemoryFigures,
    OperatorFigures,
    ParityFigures,
    PrecisionFigures,
    Report,
    SlowSpotFigures,
    StageFigures,
    StrayFigures,
    samples_file,
)
from pipeline.report.sensor_figures import TRACE_FILE, energy_figures, sensor_figures
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
    float_layers: tuple[str, ...] = ()
    rest: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the chain has found; accuracy and parity are None where it stopped at the first answer."""

    compiled: CompiledModel
    artifact_path: str
    """Of the compiled model, relative to the report's folder."""
    latency: LatencyProfile | None
    fusion: FusionProof | None = None
    """None where nothing is known of what runs."""
    search: PrecisionFigures | None = None
    """None where the recipe names the precision."""
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
        float_layers=subject.float_layers,
        rest=subject.rest,
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
        energy=energy_figures(latency) if latency else None,
        sensors=sensor_figures(latency.traces, TRACE_FILE) if latency else None,
        executed=executed_figures(compiled.layers),
        fusion=fusion_figures(evidence.fusion) if evidence.fusion else None,
        search=evidence.search,
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
        layers=tuple(
            LayerTimeFigures(
                name=layer.name,
                op_type=layer.op_type,
                precision=layer.precision,
                time_ms=layer.time_ms,
                time_share=layer.time_ms / time_ms if time_ms and layer.time_ms is not None else None,
                nodes=layer.sources,
                is_conversion=layer.is_conversion,
            )
            for layer in layers
        ),
    )


def fusion_figures(proof: FusionProof) -> FusionFigures:
    """Copy the fusion proof; islands with one cause become one row, the largest first."""
    return FusionFigures(
        runtime=proof.runtime,
        num_operators=proof.num_operators,
        int8_operators=proof.int8_operators,
        float_operators=proof.float_operators,
        conversions=proof.conversions,
        int8_time_share=proof.int8_time_share,
        float_time_share=proof.float_time_share,
        conversion_time_share=proof.conversion_time_share,
        strays=tuple(
            StrayFigures(
                name=stray.name,
                op_type=stray.op_type,
                before=stray.before,
                after=stray.after,
                time_share=stray.time_share,
            )
            for stray in proof.strays
        ),
        islands=_islands(proof.islands),
        has_edges=proof.has_edges,
        slow_spots=tuple(SlowSpotFigures.model_validate(asdict(spot)) for spot in proof.slow_spots),
    )


def _islands(islands: Sequence[FloatIsland]) -> tuple[IslandFigures, ...]:
    causes = dict.fromkeys((each.is_inside, each.subject, each.reason, each.remedy) for each in islands)
    rows = []
    for cause in causes:
        same = [each for each in islands if (each.is_inside, each.subject, each.reason, each.remedy) == cause]
        shares = [each.time_share for each in same if each.time_share is not None]
        rows.append(
            IslandFigures(
                subject=same[0].subject,
                reason=same[0].reason,
                remedy=same[0].remedy,
                is_inside=same[0].is_inside,
                count=len(same),
                conversions=sum(each.num_conversions for each in same),
                time_share=math.fsum(shares) if shares else None,
                operators=tuple(sorted({operator for each in same for operator in each.operators})),
                nodes=tuple(node for each in same for node in each.nodes),
            )
        )
    return tuple(sorted(rows, key=lambda row: (not row.is_inside, -(row.time_share or 0.0), -row.count)))


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
    return ParityFigures(
        torch_vs_onnx=_hop(parity.torch_vs_onnx),
        onnx_vs_device=_hop(parity.onnx_vs_device),
        bisections=tuple(map(_bisection, parity.bisections)),
    )


def _bisection(found: Bisection) -> BisectionFigures:
    return BisectionFigures(
        hop=found.hop,
        first=_divergence(found.first) if found.first else None,
        largest=_divergence(found.largest),
        num_tensors=found.num_tensors,
        num_samples=found.num_samples,
        note=found.note,
    )


def _divergence(found: Divergence) -> DivergenceFigures:
    is_finite = math.isfinite(found.lsb)
    return DivergenceFigures(
        tensor=found.tensor,
        lsb=found.lsb if is_finite else None,
        max_abs_diff=found.max_abs_diff if is_finite else None,
        budget_lsb=found.budget_lsb,
    )


def _hop(hop: Hop) -> HopFigures:
    return HopFigures(
        max_abs_diff=hop.max_abs_diff if math.isfinite(hop.max_abs_diff) else None,
        top1_agreement=hop.top1_agreement,
        num_samples=hop.num_samples,
    )


def _latency(latency: LatencyProfile, budget: LatencyBudget | None) -> LatencyFigures:
    samples_ms = latency.samples_ns / 1e6
    tail = assess(latency.blocks_ns, 99, look=latency.looks)
    return LatencyFigures(
        scope=latency.scope,
        threads=latency.threads,
        num_samples=samples_ms.size,
        p50_ms=quantiles.percentile_of(samples_ms, 50),
        p90_ms=quantiles.percentile_of(samples_ms, 90),
        p99_ms=quantiles.percentile_of(samples_ms, 99),
        p99_ci_ms=tail.interval_ms,
        budget_ms=budget.max_ms if budget else None,
        budget_percentile=budget.percentile if budget else None,
        protocol=latency.protocol,
        block_sizes=latency.block_sizes,
        warmup_runs=latency.warmup_runs,
        seconds=latency.seconds,
        lag1_autocorrelation=lag1_autocorrelation(latency.samples_ns, latency.block_sizes),
        measured_at=latency.measured_at,
        samples=samples_file(latency.samples_ns),
        mode=latency.mode,
        looks=latency.looks,
        effective_samples=tail.effective_samples,
        drift=tail.drift.share if tail.drift else None,
        inferences_per_s=latency.inferences_per_s,
        flags=flag_figures(latency),
    )


def flag_figures(latency: LatencyProfile) -> tuple[FlagFigures, ...]:
    """Copy what is to be doubted of a profile."""
    flags = find_flags(latency.blocks_ns, latency.traces, latency.context)
    return tuple(FlagFigures(name=f.name, evidence=f.evidence, advice=f.advice, forbids=f.forbids) for f in flags)


def _load(latency: LatencyProfile) -> LoadFigures:
    return LoadFigures(median_ms=quantiles.percentile_of(np.array(latency.load_ms), 50), each_ms=latency.load_ms)


def _context(compiled: CompiledModel, latency: LatencyProfile | None) -> dict[str, JsonValue]:
    """Return what the device said while it measured, beside the runtime; refuses what JSON cannot hold."""
    said = latency.context if latency else {}
    known = {"runtime": compiled.runtime, "runtime_version": compiled.runtime_version}
    return _CONTEXT.validate_python({**known, "device_digest": compiled.device, **said})
