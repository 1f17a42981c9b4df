"""Any log by what it holds. Rule: the content decides, never the file's name; what is not known is refused.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import List, Union

from targets.errors import LogRefused
from targets.logs import benchmark_app, onnxruntime_files, tegrastats, trtexec, trtexec_files
from targets.logs.jetson_release import JetsonRelease, parse_jetson_release
from targets.logs.tegrastats import TegrastatsLine
from targets.logs.tool_log import ToolLog

Log = Union[ToolLog, TegrastatsLine, JetsonRelease]
KNOWN = (
    "trtexec (text, times, profile, layers), benchmark_app (text, reports, counters), ONNX Runtime (profile, "
    "perf_test), tegrastats, jetson_release"
)


def read_log(path: Path) -> List[Log]:
    """Read a log of any of these tools; several runs or lines give several.

    Raises:
        LogRefused: it cannot be read, its run failed, or no tool is known that writes such.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error) as error:
        raise LogRefused(f"{path}: expected a log; got {getattr(error, 'strerror', None) or error}") from error
    try:
        return parse_log(text)
    except LogRefused as error:
        raise LogRefused(f"{path}: {error}") from error


def parse_log(text: str) -> List[Log]:
    """Read the text of a log; raises LogRefused as `read_log`."""
    if re.match(r"\s*(?:\[\s*)?\{", text):
        return [_parse_json(text)]
    if re.search(r"^&&&& \w+ TensorRT|^\[[\d/:-]+\] \[\w\] ", text, re.MULTILINE):
        return [trtexec.parse_trtexec(text)]
    if re.search(r"^\s*(?:\d\S+ \S+ )?RAM \d+/\d+", text, re.MULTILINE):
        return list(tegrastats.parse_log(text))
    if re.search(r"^Command line parameters$", text, re.MULTILINE):
        return [benchmark_app.parse_report_csv(text)]
    if text.startswith("layerName;"):
        return [benchmark_app.parse_counters_csv(text)]
    if re.search(r"^\[Step \d+/\d+\]|^\$ benchmark_app|\[ INFO \] Count:", text, re.MULTILINE):
        return list(benchmark_app.parse_text(text))
    if re.search(r"time cost|Latency(?: is)?:? [\d.]+ s", text):
        return [onnxruntime_files.parse_perf_test(text)]
    if re.search(r"L4T|cuDNN|TensorRT:", text):
        return [parse_jetson_release(text)]
    raise LogRefused(f"expected a log of {KNOWN}; got {text.strip()[:60]!r}")


def _parse_json(text: str) -> Log:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise LogRefused(f"expected whole JSON; got {error}: the run was cut off?") from error
    first = data[0] if isinstance(data, list) and data else data
    names = set(first) if isinstance(first, dict) else set()
    if names & {"startEnqMs", "startInMs"}:
        return trtexec_files.parse_times(text)
    if names == {"count"}:
        return trtexec_files.parse_profile(text)
    if "Layers" in names:
        return trtexec_files.parse_layer_info(text)
    if {"cat", "ph", "name"} <= names:
        return onnxruntime_files.parse_profile(text)
    if "execution_results" in names:
        return benchmark_app.parse_report_json(text)
    if "report_type" in names:
        return benchmark_app.parse_counters_json(text)
    raise LogRefused(f"expected JSON of {KNOWN}; got one with {', '.join(sorted(map(str, names))[:4]) or 'nothing'}")
