"""`edgeproof read`: logs of other tools, in one form. Rule: a log is read or refused; nothing is guessed."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter
from rich.text import Text

from pipeline.measuring import quantiles
from pipeline.report.wording import figure
from pipeline.verbs.output import console_for_people, write_json
from targets.errors import LogRefused
from targets.logs.jetson_release import JetsonRelease
from targets.logs.read import Log, read_log
from targets.logs.tegrastats import TegrastatsLine
from targets.logs.tool_log import ToolLog

MOST_LAYERS = 5
_JSON_VALUE: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def run_read(paths: Sequence[Path], *, as_json: bool) -> int:
    """Print what each log says, or why it is refused; 1 where one was refused, else 0."""
    console = console_for_people(as_json=as_json)
    entries: list[JsonValue] = []
    has_refused = False
    for path in paths:
        try:
            logs = read_log(path)
        except LogRefused as error:
            has_refused = True
            entries.append({"file": str(path), "refused": str(error)})
            console.print(Text(f"refused: {error}"), soft_wrap=True)
            continue
        entries.append({"file": str(path), "logs": [_as_json(log) for log in logs]})
        for line in _lines(path, logs):
            console.print(Text(line), soft_wrap=True)
    if as_json:
        write_json(entries)
    return 1 if has_refused else 0


def _lines(path: Path, logs: Sequence[Log]) -> Iterator[str]:
    """Yield what the logs of one file say; lines of a monitor are summed up."""
    lines = [log for log in logs if isinstance(log, TegrastatsLine)]
    if lines:
        yield f"{path}: tegrastats, {len(lines)} line{'s' if len(lines) > 1 else ''}"
        yield from _monitor_lines(lines)
    for log in logs:
        if isinstance(log, ToolLog):
            yield f"{path}: {log.tool} {log.version}".rstrip()
            yield from _tool_lines(log)
        elif isinstance(log, JetsonRelease):
            said = {name: value for name, value in dataclasses.asdict(log).items() if isinstance(value, str)}
            yield f"{path}: {'; '.join(f'{name} {value}' for name, value in {**said, **log.libraries}.items())}"


def _tool_lines(log: ToolLog) -> Iterator[str]:
    if log.latency_ms:
        yield f"  latency, by the tool's own statistics: {_statistics(log.latency_ms)}"
    if log.samples_ms is not None:
        ours = {f"p{each}": quantiles.percentile_of(log.samples_ms, each) for each in (50, 90, 99)}
        yield f"  latency of {log.samples_ms.size:,} inferences: {_statistics(ours)}"
    for name, part in log.parts_ms.items():
        yield f"  {name}: {_statistics(part)}"
    if log.throughput_per_s is not None:
        yield f"  throughput: {log.throughput_per_s:,.6g} a second"
    if log.layers:
        timed = [layer for layer in log.layers if layer.time_ms is not None]
        timed.sort(key=lambda layer: -(layer.time_ms or 0))
        total = f", {figure(sum(layer.time_ms or 0 for layer in timed), 'ms')} in all" if timed else ""
        slowest = "; ".join(f"{layer.name} {figure(layer.time_ms or 0, 'ms')}" for layer in timed[:MOST_LAYERS])
        yield f"  {len(log.layers)} layers{total}{': ' + slowest if slowest else ''}"
    for caution in log.cautions:
        yield f"  caution: {caution}"


def _monitor_lines(lines: Sequence[TegrastatsLine]) -> Iterator[str]:
    rails = dict.fromkeys(rail for line in lines for rail in line.power_mw)
    power = (f"{rail} {_mean([line.power_mw[rail] for line in lines if rail in line.power_mw])} mW" for rail in rails)
    zones = dict.fromkeys(zone for line in lines for zone in line.temperatures_c)
    heat = (f"{zone} {max(line.temperatures_c.get(zone, -273.0) for line in lines):g} C" for zone in zones)
    unknown = dict.fromkeys(word for line in lines for word in line.unknown)
    for title, words in (("power, mean", power), ("temperature, highest", heat), ("not understood", unknown)):
        said = ", ".join(words)
        if said:
            yield f"  {title}: {said}"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.0f}"


def _statistics(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figure(value, 'ms')}" for name, value in values.items())


def _as_json(log: Log) -> JsonValue:
    fields = dataclasses.asdict(log)
    samples = fields.get("samples_ms")
    if isinstance(samples, np.ndarray):
        fields["samples_ms"] = samples.tolist()
    return _JSON_VALUE.validate_json(json.dumps({"kind": type(log).__name__, **fields}))
