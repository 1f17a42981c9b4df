"""The report: every figure of one deployment, typed, and its JSON. Rule: names and nesting are a contract.

Machines read report.json by docs/report.schema.json; a field may be added, none renamed without a new `schema`.
"""

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import Field, JsonValue

from pipeline.measuring.verdict import Check, Verdict
from pipeline.report.part import ReportPart
from pipeline.report.sensor_figures import EnergyFigures, SensorFigures

SAMPLES_FILE = "latency_samples_ns.npz"


class ArtifactFigures(ReportPart):
    """The file that the runtime loads on the device."""

    path: str
    """Relative to the report's folder, with forward slashes."""
    sha256: str
    size_bytes: int


class AccuracyFigures(ReportPart):
    """Accuracy along the chain on the same test samples, as fractions."""

    metric: str
    teacher: float
    student: float
    quantized: float
    on_device: float
    num_samples: int


class HopFigures(ReportPart):
    """How far two forms of one model part."""

    max_abs_diff: float | None
    """Null where a logit was not finite."""
    top1_agreement: float
    num_samples: int


class DivergenceFigures(ReportPart):
    """How far one tensor parts between two forms of the model, in steps of its own grid (LSB)."""

    tensor: str
    lsb: float | None
    """Root mean square difference in its worst channel; null where a value was not finite."""
    max_abs_diff: float | None
    """Of any element, in the tensor's own unit; null where a value was not finite."""
    budget_lsb: float


class BisectionFigures(ReportPart):
    """Where a hop parts, tensor by tensor."""

    hop: str
    first: DivergenceFigures | None
    """First in order of execution beyond its budget; null where none is."""
    largest: DivergenceFigures
    num_tensors: int
    num_samples: int
    note: str


class ParityFigures(ReportPart):
    """Parity at both hops."""

    torch_vs_onnx: HopFigures
    onnx_vs_device: HopFigures
    bisections: tuple[BisectionFigures, ...] = ()
    """For each hop that parts beyond its limit."""


class SamplesFile(ReportPart):
    """The raw samples: int64 nanoseconds in the order taken, as NumPy's compressed .npz, under `samples_ns`."""

    path: str
    """Relative to the report's folder."""
    sha256: str


class FlagFigures(ReportPart):
    """A doubt about the measurement."""

    name: str
    evidence: str
    advice: str
    forbids: tuple[Verdict, ...]
    """Words that it forbids of the latency; empty where it is accounted for."""


class LatencyFigures(ReportPart):
    """Percentiles are the ceil(n*p)-th order statistic of the raw samples."""

    scope: str
    threads: int
    num_samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_ci_ms: tuple[float, float] | None
    """It holds the p99 with 95 %, free of any distribution, the dependence of samples and repeated looks accounted for;
    null where too little is known."""
    budget_ms: float | None
    budget_percentile: float | None
    protocol: str
    block_sizes: tuple[int, ...]
    """Samples of each fresh process."""
    warmup_runs: int
    """Of all processes together."""
    seconds: float
    lag1_autocorrelation: float | None
    """Information: `effective_samples` accounts for it. Null where nothing varies."""
    measured_at: str
    samples: SamplesFile
    mode: str = "burst"
    """Of the protocol."""
    looks: int = 1
    """How often the budget was looked at."""
    effective_samples: float | None = None
    """How many independent samples they are worth for the p99."""
    drift: float | None = None
    """Change while it was sampled that is no chance: 0.1 is slower by 10 %. Null where there is none."""
    inferences_per_s: float | None = None
    """Of all streams together, in the mode throughput."""
    flags: tuple[FlagFigures, ...] = ()
    """What is to be doubted of the measurement, and what to do."""


class MemoryFigures(ReportPart):
    """Resident memory of the inference process."""

    peak_bytes: int
    baseline_bytes: int
    """With the runtime imported and no model loaded."""


class LoadFigures(ReportPart):
    """Time to load the artifact until it can infer, once a process."""

    median_ms: float
    each_ms: tuple[float, ...]


class OperatorFigures(ReportPart):
    """Executed operators of one type and precision."""

    op_type: str
    precision: str
    count: int
    time_ms: float | None
    """Of one inference in all of them; null where the runtime does not count it."""


class LayerTimeFigures(ReportPart):
    """One executed operator, in the order of execution: the same table for every runtime."""

    name: str
    op_type: str
    """In the runtime's words."""
    precision: str
    time_ms: float | None
    """Of one inference; null where the runtime does not count it."""
    time_share: float | None
    nodes: tuple[str, ...]
    """What it computes, as names in the ONNX file, where the runtime tells."""
    is_conversion: bool


class ExecutedFigures(ReportPart):
    """What really runs, after the runtime's own fusions."""

    num_operators: int
    int8_operators: int
    int8_share: float | None
    """Share of operators computed in int8; null where the runtime names none."""
    int8_time_share: float | None
    """Share of the counted time; null where the runtime does not count it."""
    operators: tuple[OperatorFigures, ...]
    layers: tuple[LayerTimeFigures, ...] = ()


class SlowSpotFigures(ReportPart):
    """What costs time beside int8 arithmetic, and what to move."""

    kind: str
    """float island, Q/DQ, reformat, or not fused."""
    subject: str
    remedy: str
    count: int
    time_ms: float | None
    time_share: float | None


class StrayFigures(ReportPart):
    """A Q/DQ that is executed between two int8 operators."""

    name: str
    op_type: str
    before: str
    after: str
    time_share: float | None


class IslandFigures(ReportPart):
    """Float operators between int8 ones, or at an end of the graph: all islands of one cause."""

    subject: str
    """With `reason` and `remedy` one sentence: what runs in float, why, and what to change."""
    reason: str
    remedy: str
    is_inside: bool
    """Whether int8 operators lie on both sides."""
    count: int
    """Islands of this cause."""
    conversions: int
    """Q/DQ that are executed at their shores."""
    time_share: float | None
    """Of the counted time, those Q/DQ included; null where the runtime does not count it."""
    operators: tuple[str, ...]
    """ONNX operators in them."""
    nodes: tuple[str, ...]
    """Their names in the ONNX file, as far as they are known."""


class FusionFigures(ReportPart):
    """What runs in int8, what does not, and why; shares are of the time that the runtime counts."""

    runtime: str
    num_operators: int
    int8_operators: int
    float_operators: int
    conversions: int
    """Executed Q/DQ, wherever they are."""
    int8_time_share: float | None
    float_time_share: float | None
    conversion_time_share: float | None
    strays: tuple[StrayFigures, ...]
    islands: tuple[IslandFigures, ...]
    has_edges: bool
    """Whether the runtime tells what reads what; else nothing is known of strays and islands."""
    slow_spots: tuple[SlowSpotFigures, ...] = ()
    """The most expensive first; none where nothing is int8."""


class TriedFigures(ReportPart):
    """One plan of a search for a precision."""

    plan: str
    """In words."""
    precision: str
    float_layers: tuple[str, ...]
    rest: str | None
    """What computes that is not on the grid, where the precision does not say it."""
    median_ms: float
    of_fp32: float
    """Latency over that of fp32: the median over rounds in turns, for finalists in one run with fp32."""
    of_fp32_ci: tuple[float, float] | None
    """95 %; null where it was not compared with fp32 itself."""
    drop: float | None
    """Accuracy lost before any training, or agreement where there were no labels; fraction. Null where not judged."""
    error_db: float | None
    """Of the outputs: mean square of the difference over mean square of the float ones."""
    size_bytes: int | None
    holds: bool | None
    """Whether drop, error and size are within what was asked for."""
    is_finalist: bool
    """Whether it was judged on the device and compared at the end; else its error is an estimate from few samples."""
    is_chosen: bool


class LayerFigures(ReportPart):
    """What one layer does alone in int8, all others in float, and what it costs in both."""

    name: str
    op_type: str
    error_db: float
    drop: float
    float_ms: float | None
    """Of one inference, where the runtime counts it."""
    int8_ms: float | None
    weight_share: float
    """Of the bytes of all weights."""


class EarnedFigures(ReportPart):
    """The trained int8 model beside the float student on the device, in turns."""

    ratio: float
    """How many times as fast int8 is."""
    interval: tuple[float, float] | None
    """95 %."""
    verdict: Verdict
    """Fail: float ships."""


class PrecisionFigures(ReportPart):
    """How the precision was found: what was tried, what it gained and lost, and why one ships."""

    chosen: str
    """The plan in words."""
    reason: str
    tried: tuple[TriedFigures, ...]
    """Finalists, then the others in the order in which they were tried."""
    has_labels: bool
    """Whether drops are of accuracy; else of agreement with the float model."""
    refusals: tuple[str, ...]
    """Plans that the runtime did not run, with its reasons."""
    sensitivity: tuple[LayerFigures, ...]
    """Of each layer, the most sensitive first; empty where it was not measured."""
    sensitivity_samples: int | None
    earned: EarnedFigures | None
    """Null where int8 was not chosen."""


class StageFigures(ReportPart):
    """One stage of the chain."""

    name: str
    seconds: float
    cached: bool
    key: str | None
    """Its key in the store; null for a measurement, which is never cached."""


class Report(ReportPart):
    """Everything that is known of one deployment."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    created_at: str
    """UTC, ISO 8601."""
    recipe: str
    version: str
    deployment: str
    target: str
    """Kind of the runtime."""
    device: str
    """Its name in the recipe."""
    precision: str
    """The deployment's; what was executed is in `executed`."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float where int8 ships, or beginnings of their names."""
    rest: str | None = None
    """What computes that is not on the int8 grid, where it is neither fp32 nor what the precision says."""
    licence: str | None
    verdict: Verdict
    accepted_undecided: bool
    """Whether a release was allowed in spite of undecided budgets."""
    untrained: bool
    """Whether this is the first answer before training: the figures are the untrained student's."""
    artifact: ArtifactFigures
    accuracy: AccuracyFigures | None
    parity: ParityFigures | None
    latency: LatencyFigures | None
    memory: MemoryFigures | None
    load: LoadFigures | None
    energy: EnergyFigures | None = None
    """Null where nothing was profiled."""
    sensors: SensorFigures | None = None
    """Null where nothing was profiled."""
    executed: ExecutedFigures
    fusion: FusionFigures | None = None
    """Null where nothing is known of what runs."""
    search: PrecisionFigures | None = None
    """Null where the recipe names the precision."""
    checks: tuple[Check, ...]
    stages: tuple[StageFigures, ...]
    lineage: dict[str, str]
    """Digests from data and teacher to the artifact, by name."""
    context: dict[str, JsonValue]
    """What the device said of itself, and what the host was."""


def report_json(report: Report) -> str:
    """Return the report as JSON: the same report gives the same bytes."""
    return _canonical_json(report.model_dump(mode="json"))


def read_report(text: str) -> Report:
    """Return the report of `report_json`; raises pydantic's ValidationError where it is not one."""
    return Report.model_validate_json(text)


def report_schema_json() -> str:
    """Return the JSON Schema of report.json, as docs/report.schema.json holds it."""
    schema = Report.model_json_schema(mode="serialization")
    return _canonical_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def samples_bytes(samples_ns: np.ndarray) -> bytes:
    """Return the samples as the bytes of a compressed .npz file, which their digest is taken of."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples_ns=np.ascontiguousarray(samples_ns, dtype=np.int64))
    return buffer.getvalue()


def read_samples(path: Path) -> np.ndarray:
    """Return the samples of `samples_bytes`; raises OSError or ValueError where they are not there."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            samples_ns: np.ndarray = archive["samples_ns"]
    except (AttributeError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: expected an .npz file with samples_ns") from error
    return samples_ns


def samples_file(samples_ns: np.ndarray) -> SamplesFile:
    """Return the reference by which a report names its raw samples."""
    return SamplesFile(path=SAMPLES_FILE, sha256=sha256(samples_bytes(samples_ns)).hexdigest())


def _canonical_json(value: JsonValue) -> str:
    """Dump with sorted keys; Python's shortest repr of a float is the same on every platform."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
