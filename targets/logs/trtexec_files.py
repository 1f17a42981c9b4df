"""The files that trtexec exports: times, profile, layers; TensorRT 8 to 11. Rule: nothing is guessed; a gap is refused.

Devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import json
from typing import Dict, List, Mapping, Sequence, Tuple, cast

import numpy as np

from targets.errors import DeviceError, LogRefused
from targets.logs.tool_log import ToolLog
from targets.target import Layer
from targets.tensorrt_layers import read_layers

Entry = Mapping[str, object]

WARM_UP_MS = 200.0
"""trtexec's own --warmUp: its figures leave out what started before, its file of times does not."""
PARTS: Dict[str, Tuple[str, str]] = {
    "h2d": ("h2dMs", "inMs"),
    "compute": ("computeMs", "computeMs"),
    "d2h": ("d2hMs", "outMs"),
}


def parse_times(text: str, warm_up_ms: float = WARM_UP_MS) -> ToolLog:
    """Read --exportTimes: the latency of each inference in ms, without those that started within the warm-up.

    Up to version 8.4 a file held no latency: it is the sum of the transfers and the GPU's part.
    """
    entries = _entries(text, "--exportTimes")
    kept = [entry for entry in entries if _number(entry, "startComputeMs") >= warm_up_ms]
    if not kept:
        raise LogRefused(
            f"trtexec --exportTimes: expected an inference behind the warm-up of {warm_up_ms:g} ms; "
            f"got {len(entries)} before its end"
        )
    is_new = "h2dMs" in kept[0]
    columns = {part: _column(kept, names[0 if is_new else 1]) for part, names in PARTS.items()}
    latency = _column(kept, "latencyMs") if is_new else columns["h2d"] + columns["compute"] + columns["d2h"]
    parts = {part: {"mean": float(values.mean())} for part, values in columns.items()}
    num_warm = len(entries) - len(kept)
    cautions = (f"{num_warm} inferences of the warm-up are left out",) if num_warm else ()
    return ToolLog(
        "trtexec --exportTimes", samples_ms=latency, num_inferences=latency.size, parts_ms=parts, cautions=cautions
    )


def parse_profile(text: str) -> ToolLog:
    """Read --exportProfile: the mean time of each layer over the runs that its first entry counts."""
    entries = _entries(text, "--exportProfile")
    if not entries or not isinstance(entries[0].get("count"), int):
        raise LogRefused('trtexec --exportProfile: expected {"count": N} first; got ' + repr(entries[:1])[:60])
    layers = [
        Layer(str(each.get("name")), "unknown", "unknown", time_ms=_number(each, "averageMs")) for each in entries[1:]
    ]
    return ToolLog("trtexec --exportProfile", num_inferences=cast(int, entries[0]["count"]), layers=tuple(layers))


def parse_layer_info(text: str, profile: str = "") -> ToolLog:
    """Read --exportLayerInfo, with the times of --exportProfile of the same engine where that is given."""
    times_ms = {layer.name: layer.time_ms or 0.0 for layer in parse_profile(profile).layers} if profile else {}
    try:
        layers = read_layers(text, times_ms)
    except DeviceError as error:
        raise LogRefused(f"trtexec --exportLayerInfo: {error}") from error
    is_bare = all(layer.op_type == "unknown" for layer in layers)
    caution = ("names alone: build with --profilingVerbosity=detailed for types and precisions",) if is_bare else ()
    return ToolLog("trtexec --exportLayerInfo", layers=tuple(layers), cautions=caution)


def _entries(text: str, what: str) -> Sequence[Entry]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise LogRefused(f"trtexec {what}: expected JSON; got {error}: the run was cut off?") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LogRefused(f"trtexec {what}: expected a list of tables; got {text[:40]!r}")
    return cast(List[Entry], entries)


def _column(entries: Sequence[Entry], name: str) -> np.ndarray:
    return np.array([_number(entry, name) for entry in entries])


def _number(entry: Entry, name: str) -> float:
    value = entry.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LogRefused(f"trtexec: expected a number as {name}; got {value!r} among {sorted(entry)}")
    return float(value)
