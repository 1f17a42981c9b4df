"""What ONNX Runtime writes: its profile (JSON) and the text of onnxruntime_perf_test.

Rule: a file that is cut off is refused. Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Dict, List

from targets.errors import LogRefused
from targets.logs.tool_log import ToolLog
from targets.onnxruntime_trace import drop_first_run, read_layers

FIELD = re.compile(r"^\s*([A-Za-z][\w ]*?)(?:\s+is\s+|\s*:\s*)(-?[\d.]+(?:e[+-]?\d+)?)\s*(s|sec|ms|%|bytes)?\s*$")
FEWEST = 299
"""Inferences without which a p99 is hardly bounded: 0.99**299 is 0.05."""
FEW = "{} inferences are too few for high percentiles: those are the largest samples"
TO_MS = {"s": 1e3, "sec": 1e3, "ms": 1.0, "": 1e3}
STATISTICS = re.compile(r"^(Min|Max|P\d+) Latency$")
AVERAGES = ("Average inference time cost", "Average time cost")
COUNTS = ("Total inference requests", "Total iterations")


def parse_profile(text: str) -> ToolLog:
    """Read a profile: executed nodes and their median times; the first of several inferences is cold, and left out."""
    try:
        events = json.loads(text)
    except ValueError as error:
        raise LogRefused(f"onnxruntime profile: expected JSON; got {error}: the session was not closed?") from error
    if not isinstance(events, list) or not all(isinstance(event, dict) and "name" in event for event in events):
        raise LogRefused("onnxruntime profile: expected a list of events with names; got something else")
    num_runs = sum(event["name"] == "model_run" for event in events)
    if not num_runs:
        raise LogRefused("onnxruntime profile: expected at least one inference (model_run); got none")
    warm: List[Dict[str, object]] = drop_first_run(events) if num_runs > 1 else events
    layers = read_layers(warm, max(1, num_runs - 1))
    if not layers:
        raise LogRefused("onnxruntime profile: expected events of nodes; got none")
    return ToolLog("onnxruntime profile", layers=tuple(layers), num_inferences=num_runs)


def parse_perf_test(text: str) -> ToolLog:
    """Read onnxruntime_perf_test's text; units are as it writes them, seconds where it writes none."""
    fields: Dict[str, float] = {}
    for line in text.splitlines():
        found = FIELD.match(line)
        if found is not None:
            unit = found.group(3) or ""
            fields[found.group(1)] = float(found.group(2)) * (
                TO_MS[unit] if unit in TO_MS and _is_time(found.group(1)) else 1
            )
    latency = {_short(name): value for name, value in fields.items() if STATISTICS.match(name)}
    has_percentiles = bool(latency)
    for name in AVERAGES:
        latency.update({"mean": fields[name]} if name in fields else {})
    if not latency:
        raise LogRefused("onnxruntime_perf_test: expected an average time or percentiles; got neither")
    parts = {"session creation": "Session creation time cost", "first inference": "First inference time cost"}
    count = next((int(fields[name]) for name in COUNTS if name in fields), None)
    return ToolLog(
        "onnxruntime_perf_test",
        latency_ms=latency,
        parts_ms={ours: {"mean": fields[name]} for ours, name in parts.items() if name in fields},
        num_inferences=count,
        throughput_per_s=fields.get("Number of inferences per second"),
        cautions=(FEW.format(count),) if has_percentiles and count is not None and count < FEWEST else (),
    )


def _is_time(name: str) -> bool:
    return name.endswith(("cost", "time", "Latency"))


def _short(name: str) -> str:
    word = name.split(" ")[0]
    return {"Min": "min", "Max": "max", "P50": "median", "P999": "p99.9"}.get(word, word.lower())
