"""trtexec's text, TensorRT 7 to 11. Rule: a run that failed, or that is cut off before any figure, is refused.

Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional

from targets.errors import LogRefused
from targets.logs.tool_log import ToolLog
from targets.target import Layer

STAMP = re.compile(r"^\[[\d/:-]+\] \[(\w)\] ?(.*)$")
MARK = re.compile(r"^&&&& (RUNNING|PASSED|FAILED|WAIVED) TensorRT\.trtexec(?: \[TensorRT v(\d+)\])?")
METRIC = re.compile(r"^([A-Z][\w\s-]*): (min = .*)$")
STATISTIC = re.compile(r"(min|max|mean|median|percentile\((\d+(?:\.\d+)?)%\)) = (-?[\d.e+-]+) ms")
OLD_METRIC = re.compile(r"^(Host Latency|GPU Compute|Enqueue Time)$")
OLD_STATISTIC = re.compile(r"^(min|max|mean|median|percentile): (-?[\d.e+-]+) ms(?: at (\d+)%)?")
THROUGHPUT = re.compile(r"^[Tt]hroughput: ([\d.e+-]+) qps")
PROFILE = re.compile(r"^=== Profile \((\d+) iterations ?\) ===$")
PROFILE_ROW = re.compile(r"^\s*([\d.]+)\s+([\d.]+)\s+(?:([\d.]+)\s+)?([\d.]+)\s+(\S.*)$")
LAYER = re.compile(r"^Name: (.+?), LayerType: (\w+), Inputs: ")
OPTION = re.compile(r"^([A-Z][\w\s-]*): (\S.*)$")
ENDED_EARLY = "Skipped inference phase"
LATENCY_NAMES = ("Latency", "Host Latency")
NOT_END_TO_END = "since version 11 latency leaves transfers out by default: compare runs of one version"


def parse_trtexec(text: str) -> ToolLog:
    """Read one run's text; raises LogRefused where it failed, gives no figure, or is something else."""
    found = _Found()
    for line in text.splitlines():
        found.read(line)
    if found.outcome == "FAILED":
        raise LogRefused(
            f"trtexec: expected a run that passed; got one that failed: {found.error or 'no reason given'}"
        )
    if not found.is_trtexec:
        raise LogRefused("trtexec: expected its text, with lines such as [07/07/2026-02:10:45] [I]; got something else")
    latency_ms = next((found.metrics[name] for name in LATENCY_NAMES if found.metrics.get(name)), {})
    if not latency_ms and not found.layers and not found.has_skipped:
        reason = found.error or "it ends before any figure"
        raise LogRefused(f"trtexec: expected latencies, or a table of layers; got neither: {reason}")
    version = name_version(found.version)
    cautions = list(found.cautions)
    if version and int(version.split(".")[0]) >= 11:
        cautions.append(NOT_END_TO_END)
    return ToolLog(
        "trtexec",
        version,
        latency_ms,
        {name: metric for name, metric in found.metrics.items() if name not in LATENCY_NAMES and metric},
        num_inferences=found.iterations,
        throughput_per_s=found.throughput or None,  # version 7 says 0 where it does not know
        layers=tuple(found.layers),
        settings=found.settings,
        cautions=tuple(cautions),
    )


def name_version(digits: str) -> str:
    """Return 8.5.2 for 8502, as versions up to 9 write it, and 10.16.1 for 101601."""
    if not digits:
        return ""
    number = int(digits)
    if number < 10_000:
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


class _Found:
    """What the lines say, read one after the other."""

    def __init__(self) -> None:
        self.is_trtexec = False
        self.outcome = ""
        self.version = ""
        self.error = ""
        self.has_skipped = False
        self.throughput: Optional[float] = None
        self.iterations: Optional[int] = None
        self.metrics: Dict[str, Dict[str, float]] = {}
        self.layers: List[Layer] = []
        self.settings: Dict[str, str] = {}
        self.cautions: List[str] = []
        self._section = ""
        self._old = ""

    def read(self, line: str) -> None:
        mark = MARK.match(line)
        if mark is not None:
            self.is_trtexec, self.outcome = True, mark.group(1)
            self.version = mark.group(2) or self.version
            return
        layer, stamped = LAYER.match(line), STAMP.match(line)
        if layer is not None:
            self.layers.append(Layer(layer.group(1), layer.group(2), "unknown"))
        if stamped is None:
            return
        level, said = stamped.group(1), stamped.group(2)
        if level == "E" and not self.error:
            self.error = said
        elif level == "W":
            self._warn(said)
        elif level == "I":
            self._inform(said)

    def _warn(self, said: str) -> None:
        if said.startswith("* "):
            self.cautions.append(said[2:].strip())
        elif said.startswith("  ") and self.cautions:
            self.cautions[-1] += f" {said.strip()}"

    def _inform(self, said: str) -> None:
        if said.startswith("=== "):
            self._section = said.strip("= ")
            profile = PROFILE.match(said)
            self.iterations = int(profile.group(1)) if profile else self.iterations
            self.is_trtexec = True
            return
        if said.startswith(ENDED_EARLY):
            self.has_skipped = True
        if self._section.startswith("Profile ("):
            self._read_layer(said)
        elif self._section.endswith("Options"):
            option = OPTION.match(said)
            self.settings.update({option.group(1): option.group(2).strip()} if option else {})
        self._read_metric(said)

    def _read_metric(self, said: str) -> None:
        throughput, metric = THROUGHPUT.match(said), METRIC.match(said)
        old, statistic = OLD_METRIC.match(said), OLD_STATISTIC.match(said)
        if throughput is not None:
            self.throughput = float(throughput.group(1))
        elif metric is not None:
            self.is_trtexec = True
            self.metrics[metric.group(1)] = {
                f"p{percent}" if percent else name: float(value)
                for name, percent, value in STATISTIC.findall(metric.group(2))
            }
        elif old is not None:
            self._old = old.group(1)
            self.is_trtexec = True
            self.metrics[self._old] = {}
        elif statistic is not None and self._old:
            name = f"p{statistic.group(3)}" if statistic.group(3) else statistic.group(1)
            self.metrics[self._old][name] = float(statistic.group(2))

    def _read_layer(self, said: str) -> None:
        row = PROFILE_ROW.match(said)
        if row is not None and row.group(5) != "Total":
            self.layers.append(Layer(row.group(5).strip(), "unknown", "unknown", time_ms=float(row.group(2))))
