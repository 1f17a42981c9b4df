"""What OpenVINO's benchmark_app writes: its text, report (CSV, JSON) and counters (CSV, JSON). Versions 2021 to 2026.

Rule: a run that failed is refused with the tool's reason. Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Dict, Iterable, List, Mapping, Optional, Tuple, cast

from targets.errors import LogRefused
from targets.logs.tool_log import ToolLog
from targets.target import Layer

TOOL = "benchmark_app"
PREFIX = re.compile(r"^\s*(?:\[ (?:INFO|WARNING) \] ?)?")
BUILD = re.compile(r"^Build \.+ (\S+)")
FIRST = re.compile(r"^First inference took ([\d.]+) ms")
FIGURE = re.compile(r"^\s*(Count|Duration|Latency|Median|Average|Min|Max|Throughput|\d+ percentile):\s+([\d.]+)")
RUN = re.compile(r"^\$ benchmark_app (.*)$")
UNDER_LOAD = "latency under load: the default hint is throughput, so several requests run at once"
CUT_OFF = "the text ends before its latencies"
ROUNDED = "times are rounded to 0.01 ms: too coarse for small models"
PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i32": "int32", "i64": "int64"}


def parse_text(text: str) -> List[ToolLog]:
    """Read the text of one run or several; raises LogRefused where one failed or none gives a figure."""
    runs: List[_Run] = [_Run()]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "[ ERROR ]" in line:
            words = [line.split("[ ERROR ]", 1)[1].strip(), *lines[number + 1 : number + 2]]
            raise LogRefused(f"{TOOL}: expected a run that ended; got an error: {' '.join(words).strip()[:300]}")
        if RUN.match(line):
            runs.append(_Run())
        runs[-1].read(line)
    ended = [run.to_log() for run in runs if run.figures]
    if not ended:
        raise LogRefused(f"{TOOL}: expected a run with Count, Latency and Throughput; got none of them")
    return ended


class _Run:
    """What the lines of one run say."""

    def __init__(self) -> None:
        self.figures: Dict[str, float] = {}
        self.settings: Dict[str, str] = {}
        self.version = ""
        self.cautions: List[str] = []

    def read(self, line: str) -> None:
        said = PREFIX.sub("", line)
        command, build = RUN.match(line), BUILD.match(said)
        first, figure = FIRST.match(said), FIGURE.match(said)
        if command is not None:
            self.settings["command"] = command.group(1)
        elif build is not None:
            self.version = build.group(1).split("-")[0]
        elif first is not None:
            self.figures["first"] = float(first.group(1))
        elif figure is not None:
            self.figures[figure.group(1)] = float(figure.group(2))
        elif "PerformanceMode.THROUGHPUT" in said or "Start inference asynchronously" in said:
            self.cautions += [UNDER_LOAD] if UNDER_LOAD not in self.cautions else []

    def to_log(self) -> ToolLog:
        names = {"Median": "median", "Average": "mean", "Min": "min", "Max": "max", "Latency": "median"}
        latency = {names[name]: value for name, value in self.figures.items() if name in names}
        percentiles = {name: value for name, value in self.figures.items() if name.endswith(" percentile")}
        latency.update({f"p{name.split()[0]}": value for name, value in percentiles.items()})
        count = self.figures.get("Count")
        first = self.figures.get("first")
        return ToolLog(
            TOOL,
            self.version,
            latency,
            {} if first is None else {"first inference": {"mean": first}},
            num_inferences=None if count is None else int(count),
            throughput_per_s=self.figures.get("Throughput"),
            settings=self.settings,
            cautions=(*self.cautions, ROUNDED if latency else CUT_OFF),
        )


def parse_report_json(text: str) -> ToolLog:
    """Read benchmark_report.json, whose numbers are strings."""
    data = _load(text, "report")
    return _report({name: _table(data, name) for name in ("cmd_options", "configuration_setup", "execution_results")})


def parse_report_csv(text: str) -> ToolLog:
    """Read benchmark_report.csv: three tables of `name;value`."""
    sections: Dict[str, Dict[str, str]] = {}
    names = {
        "Command line parameters": "cmd_options",
        "Configuration setup": "configuration_setup",
        "Execution results": "execution_results",
    }
    table: Dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() in names:
            table = sections.setdefault(names[line.strip()], {})
        elif ";" in line:
            name, _, value = line.partition(";")
            table[name] = value
    if "execution_results" not in sections:
        raise LogRefused(f"{TOOL}: expected a report with Execution results; got none: the run was cut off?")
    return _report(sections)


def _report(sections: Mapping[str, Mapping[str, str]]) -> ToolLog:
    results, setup = sections.get("execution_results", {}), sections.get("configuration_setup", {})
    latency = {}
    for name, ours in (
        ("avg latency", "mean"),
        ("min latency", "min"),
        ("max latency", "max"),
        ("latency (ms)", "median"),
    ):
        latency.update({ours: _number(results, name)} if name in results else {})
    for name in results:
        percentile = re.match(r"latency \((\d+) percentile\) \(ms\)", name)
        latency.update({f"p{percentile.group(1)}": _number(results, name)} if percentile else {})
    if not latency:
        raise LogRefused(f"{TOOL}: expected a report with latencies; got {sorted(results)}")
    parts = ("read model time (ms)", "compile model time (ms)", "first inference time (ms)")
    is_loaded = setup.get("API") == "async" and setup.get("number of parallel infer requests", "1") != "1"
    return ToolLog(
        TOOL,
        latency_ms=latency,
        parts_ms={name[: -len(" time (ms)")]: {"mean": _number(results, name)} for name in parts if name in results},
        num_inferences=int(_number(results, "total number of iterations")),
        throughput_per_s=_number(results, "throughput"),
        settings={**setup, **sections.get("cmd_options", {})},
        cautions=(*((UNDER_LOAD,) if is_loaded else ()), ROUNDED),
    )


def parse_counters_csv(text: str) -> ToolLog:
    """Read the counters: `layerName;execStatus;layerType;execType;realTime (ms);cpuTime (ms)` and a Total row."""
    rows = [line.split(";") for line in text.splitlines()[1:] if line.count(";") >= 5]
    cells = [(row[0], row[1], row[2], row[3], row[4]) for row in rows if row[0] != "Total"]
    return _counters(cells)


def parse_counters_json(text: str) -> ToolLog:
    """Read detailed or average counters; the first inference of detailed ones stands for all."""
    data = _load(text, "counters")
    detailed = data.get("detailed_performance")
    inference = detailed[0] if isinstance(detailed, list) and detailed else data.get("avg_performance")
    nodes = cast(Mapping[str, object], inference).get("nodes") if isinstance(inference, dict) else None
    if not isinstance(nodes, list):
        raise LogRefused(f"{TOOL}: expected counters of nodes; got {sorted(data)}")
    if len(nodes) == 1:
        raise LogRefused(
            f"{TOOL}: expected the counters of all nodes; got one: average counters as JSON hold only the first node; "
            "write them without -json_stats"
        )
    names = ("name", "status", "node_type", "exec_type", "real_time")
    return _counters(
        [cast(Tuple[str, str, str, str, str], tuple(str(node.get(each)) for each in names)) for node in nodes]
    )


def _counters(cells: Iterable[Tuple[str, str, str, str, str]]) -> ToolLog:
    layers = [
        Layer(name, kind, _precision(execution), time_ms=float(time), is_conversion=kind == "Reorder")
        for name, status, kind, execution, time in cells
        if status.endswith("EXECUTED") and "NOT" not in status
    ]
    if not layers:
        raise LogRefused(f"{TOOL}: expected counters of executed layers; got none")
    return ToolLog(f"{TOOL} counters", layers=tuple(layers))


def _precision(execution: str) -> str:
    word = execution.rpartition("_")[2].lower()
    return PRECISIONS.get(word, word)


def _load(text: str, what: str) -> Mapping[str, object]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise LogRefused(f"{TOOL}: expected a {what} as JSON; got {error}: the run was cut off?") from error
    if not isinstance(data, dict):
        raise LogRefused(f"{TOOL}: expected a {what} as a JSON table; got {text[:40]!r}")
    return data


def _table(data: Mapping[str, object], name: str) -> Mapping[str, str]:
    table = data.get(name, {})
    return {key: str(value) for key, value in table.items()} if isinstance(table, dict) else {}


def _number(table: Mapping[str, str], name: str) -> float:
    text: Optional[str] = table.get(name)
    try:
        return float(text or "")
    except ValueError as error:
        raise LogRefused(f"{TOOL}: expected a number as {name!r}; got {text!r}") from error
