"""`edgeproof profile`: the latency of any ONNX file on this machine, without a recipe."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import LatencyProfile
from pipeline.budget import Budget, LatencyBudget, Protocol
from pipeline.errors import DataError, UsageError
from pipeline.explain import explain
from pipeline.fusion.prove import prove_fusion
from pipeline.inventory import load_inventory
from pipeline.measuring import quantiles
from pipeline.measuring.assess import assess
from pipeline.measuring.verdict import Check, combine
from pipeline.report.build import executed_figures, flag_figures, fusion_figures
from pipeline.report.fusion_words import fusion_lines
from pipeline.report.report import ExecutedFigures, FusionFigures
from pipeline.report.sensor_figures import energy_figures, sensor_figures
from pipeline.report.sensor_words import energy_words, sensor_lines
from pipeline.report.table import show_checks
from pipeline.report.wording import byte_words, figure
from pipeline.schema import nearest, schema_of
from pipeline.stages.check_budget import first_answer
from pipeline.stages.profile_latency import profile_latency
from pipeline.verbs.output import EXIT_CODES, console_for_people, write_json
from targets import TARGETS, AnyTarget
from targets.devices.device import Compiled, open_device
from targets.errors import DeviceError
from targets.target import RunOptions

MOST_ISLANDS = 8
"""Causes of float islands that are printed; --json has all."""
PRECISIONS = ("fp32", "bf16", "fp16")
_JSON_VALUE: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


@dataclass(frozen=True, kw_only=True)
class LatencyRequest:
    """The command line of one profile, as typed."""

    model: Path
    runtime: str
    shapes: tuple[str, ...] = ()
    threads: int = 1
    precision: str = "fp32"
    max_ms: float | None = None
    percentile: float = 99.0
    max_seconds: float = 30.0
    device: str = "local"
    devices: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What was found."""

    compiled: Compiled
    fusion: FusionFigures
    latency: LatencyProfile
    checks: tuple[Check, ...]


def run_profile(request: LatencyRequest, *, as_json: bool) -> int:
    """Compile and measure the model, print its figures and return the exit code of its budget, or 0 without one."""
    require_model(request.model)
    target = choose_runtime(request.runtime)
    budget, protocol = _read_limits(request)
    shapes = dict(parse_shape(text) for text in request.shapes)
    options = RunOptions(threads=request.threads, precision=_choose_precision(request.precision))
    console = console_for_people(as_json=as_json)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="edgeproof-") as work:
        device = open_device(request.device, Path(work) / "jobs", load_inventory(request.devices), say)
        artifact = Path(work) / request.model.name
        compiled = device.compile_model(target, request.model, artifact, options)
        with console.status(f"profiling {request.model.name}, at most {protocol.max_seconds:g} s"):
            try:
                latency = profile_latency(
                    artifact, target, device, options, budget=budget, protocol=protocol, shapes=shapes
                )
            except DeviceError as error:  # about the compiled copy; users know their own file
                raise type(error)(str(error).replace(str(artifact), str(request.model))) from error
        size_bytes = artifact.stat().st_size
    if not latency.samples_ns.size:
        raise DataError(f"{request.model}: no inference ended within {protocol.max_seconds:g} s; raise --max-seconds")
    checks = first_answer(Budget(latency=budget), latency=latency, size_bytes=size_bytes) if budget else ()
    fusion = fusion_figures(prove_fusion(compiled.layers, request.model, target))
    measured = Measured(compiled, fusion, latency, checks)
    if as_json:
        write_json(_as_json(request, measured))
    else:
        _show(console, request, measured)
    return EXIT_CODES[combine(check.verdict for check in checks)] if checks else 0


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `name=1x3x32x32`; commas do as well.

    Raises:
        UsageError: anything else.
    """
    name, equals, sizes = text.rpartition("=")
    if not equals or not name or not re.fullmatch(r"\d+([x,]\d+)*", sizes):
        raise UsageError(f"--shape {text}: expected NAME=SIZES, for example input=1x3x32x32")
    return name, tuple(int(size) for size in re.split("[x,]", sizes))


def require_model(model: Path) -> None:
    """Raise UsageError where nothing is there that could be an ONNX file; names what is near."""
    if model.is_file():
        return
    found = "a folder" if model.is_dir() else "nothing there"
    folder = model if model.is_dir() else model.parent
    nearby = tuple(str(file) for file in sorted(folder.glob("*.onnx"))) if folder.is_dir() else ()
    listed = f"; there are {', '.join(nearby[:10])}" if nearby else ""
    raise UsageError(f"{model}: expected an ONNX file; got {found}{nearest(str(model), nearby) or listed}")


def choose_runtime(name: str) -> AnyTarget:
    """Return the target that `name` stands for; raises UsageError where there is none."""
    kinds = tuple(target.kind for target in TARGETS)
    for target in TARGETS:
        if target.kind == name:
            return target()
    raise UsageError(f"--target: expected a runtime: {', '.join(kinds)}; got {name}{nearest(name, kinds)}")


def _choose_precision(name: str) -> str:
    if name not in PRECISIONS:
        raise UsageError(f"--precision: expected one of {', '.join(PRECISIONS)}; got {name}{nearest(name, PRECISIONS)}")
    return name


def _read_limits(request: LatencyRequest) -> tuple[LatencyBudget | None, Protocol]:
    try:
        protocol = Protocol(max_seconds=request.max_seconds)
        if request.max_ms is None:
            return None, protocol
        return LatencyBudget(max_ms=request.max_ms, percentile=request.percentile), protocol
    except ValidationError as error:
        typed: dict[str, JsonValue] = {
            "max_ms": request.max_ms,
            "percentile": request.percentile,
            "max_seconds": request.max_seconds,
        }
        problems = explain(error.errors(include_url=False), typed, schema_of(LatencyBudget))
        text = "\n".join(f"--{problem}".replace("_", "-", 1) for problem in problems)
        raise UsageError(text) from error


def _show(console: Console, request: LatencyRequest, measured: Measured) -> None:
    latency, compiled = measured.latency, measured.compiled
    place = "this machine" if request.device == "local" else f"device {request.device}"
    console.print(
        Text(
            f"{request.model} on {request.runtime} {compiled.runtime_version}, {place}, "
            f"{request.threads} thread(s), floats pinned to {request.precision}"
        ),
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, _ in _figures(latency):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*(value for _, value in _figures(latency)))
    console.print(table)
    above = byte_words(latency.peak_bytes - latency.baseline_bytes)
    console.print(Text(f"memory: {byte_words(latency.peak_bytes)} at the peak, {above} above the runtime alone"))
    for line in (energy_words(energy_figures(latency)), *sensor_lines(sensor_figures(latency.traces, None))):
        console.print(Text(line), soft_wrap=True)
    for flag in flag_figures(latency):
        console.print(Text(f"{flag.name.replace('_', ' ')}: {flag.evidence}; {flag.advice}"), soft_wrap=True)
    console.print(Text(_executed(executed_figures(compiled.layers))), soft_wrap=True)
    for line in fusion_lines(measured.fusion, MOST_ISLANDS):
        console.print(Text(line), soft_wrap=True)
    first = {name: said for name, said in latency.context.items() if name != "last_process"}  # the report has both
    said = "; ".join(f"{name} {value}" for name, value in _flat(first))
    console.print(Text(f"context: {said}", style="dim"), soft_wrap=True)
    if measured.checks:
        show_checks(console, measured.checks, combine(check.verdict for check in measured.checks))


def _figures(latency: LatencyProfile) -> list[tuple[str, str]]:
    samples_ms = latency.samples_ns / 1e6
    interval = assess(latency.blocks_ns, 99, look=latency.looks).interval_ms
    shown = f"{interval[0]:.3g} to {interval[1]:.3g} ms" if interval else "unknown"
    return [
        *((f"p{p}", figure(quantiles.percentile_of(samples_ms, p), "ms")) for p in (50, 90, 99)),
        ("95 % of the p99", shown),
        ("samples", f"{samples_ms.size:,}"),
        ("load", figure(quantiles.percentile_of(np.array(latency.load_ms), 50), "ms")),
    ]


def _executed(executed: ExecutedFigures) -> str:
    counts = Counter[str]()
    for operator in executed.operators:
        counts[operator.precision] += operator.count
    shown = ", ".join(f"{count} in {precision}" for precision, count in counts.most_common())
    return f"executed: {executed.num_operators} operators" + (f": {shown}" if shown else "")


def _flat(context: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """List what the device said, nested tables as `before.governor`."""
    for name, said in context.items():
        if isinstance(said, dict):
            yield from _flat(said, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", said


def _as_json(request: LatencyRequest, measured: Measured) -> JsonValue:
    latency = measured.latency
    samples_ms = latency.samples_ns / 1e6
    return _JSON_VALUE.validate_python(
        {
            "model": str(request.model),
            "runtime": request.runtime,
            "device": request.device,
            "runtime_version": measured.compiled.runtime_version,
            "precision": request.precision,
            "scope": latency.scope,
            "threads": latency.threads,
            "num_samples": samples_ms.size,
            **{f"p{p}_ms": quantiles.percentile_of(samples_ms, p) for p in (50, 90, 99)},
            "p99_ci_ms": _listed(assess(latency.blocks_ns, 99, look=latency.looks).interval_ms),
            "load_ms": list(latency.load_ms),
            "memory": {"peak_bytes": latency.peak_bytes, "baseline_bytes": latency.baseline_bytes},
            "energy": energy_figures(latency).model_dump(mode="json"),
            "sensors": sensor_figures(latency.traces, None).model_dump(mode="json"),
            "executed": executed_figures(measured.compiled.layers).model_dump(mode="json"),
            "fusion": measured.fusion.model_dump(mode="json"),
            "checks": [asdict(check) | {"interval": _listed(check.interval)} for check in measured.checks],
            "verdict": combine(check.verdict for check in measured.checks).value if measured.checks else None,
            "protocol": latency.protocol,
            "flags": [flag.model_dump(mode="json") for flag in flag_figures(latency)],
            "inferences_per_s": latency.inferences_per_s,
            "context": latency.context,
            "measured_at": latency.measured_at,
        }
    )


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None
