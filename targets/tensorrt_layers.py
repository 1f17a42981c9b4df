"""The engine inspector's JSON, of TensorRT 8.5 to 11, as layers. The format of trtexec's --exportLayerInfo is the same.

Rule: a layer computes in the type of what it reads first; names come as TensorRT fused them. Devices carry this file:
Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Dict, Iterator, List, Mapping, Optional, Tuple, cast

from targets.errors import DeviceError
from targets.target import Layer

Described = Mapping[str, object]
"""A layer as the inspector tells it; a name alone where the engine was built without details."""

TYPES: Tuple[Tuple[str, str], ...] = (
    ("int8", r"u?int8"),
    ("int4", r"int4"),
    ("int64", r"int64"),
    ("int32", r"int32"),
    ("fp8", r"fp8|e4m3|e5m2"),
    ("bf16", r"bf16|bfloat"),
    ("fp16", r"fp16|half|float16"),
    ("fp32", r"fp32|float"),
    ("bool", r"bool"),
)
"""Ours, and how the versions write them: `Four wide channel vectorized row major Int8 format`, `Half`, `Float`."""

IN_PLACE = ("NoOp", "Constant")
"""Kinds of layers that run nothing."""
ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def read_layers(text: str, times_ms: Mapping[str, float]) -> List[Layer]:
    """Return the executed layers in their order.

    Args:
        text: the inspector's JSON.
        times_ms: of layers by name, by the engine's profiler.

    Raises:
        DeviceError: the text is something else.
    """
    try:
        described = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            'tensorrt: expected the inspector\'s JSON with "Layers"; got {!r}; report it as an issue, with the version '
            "of TensorRT".format(text[:60])
        ) from error
    whole = [each if isinstance(each, dict) else {"Name": str(each)} for each in described]
    writers: Dict[str, Tuple[str, ...]] = {}
    layers: List[Layer] = []
    for each in whole:
        name, before = _text(each, "Name"), _before(each, writers)
        is_executed = _text(each, "LayerType") not in IN_PLACE
        for tensor in _tensors(each, "Outputs"):
            writers[_text(tensor, "Name")] = (name,) if is_executed else before
        if is_executed:
            layers.append(_read_layer(each, before, times_ms.get(name)))
    return layers


def _read_layer(described: Described, reads: Tuple[str, ...], time_ms: Optional[float]) -> Layer:
    kind = _text(described, "ParameterType") or _text(described, "LayerType") or "unknown"
    read, written = (_first_type(described, side) for side in ("Inputs", "Outputs"))
    return Layer(
        _text(described, "Name"),
        kind,
        read or written or "unknown",
        time_ms=time_ms,
        reads=reads,
        sources=_sources(described),
        is_conversion=kind in ("Quantize", "Dequantize") or (kind == "Reformat" and read != written),
    )


def _sources(described: Described) -> Tuple[str, ...]:
    """Return the nodes that a layer computes: told since 8.6, found in its name (`a + b`, `PWN(a, b)`) before."""
    told = ONNX_LAYER.findall(_text(described, "Metadata"))
    if told:
        return tuple(dict.fromkeys(told))
    if _text(described, "Origin") == "REFORMAT" or _text(described, "Name").startswith("Reformatting CopyNode"):
        return ()
    parts = re.split(r" \+ |, |\(|\)", _text(described, "Name"))
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip() and part.strip() != "PWN"))


def _before(described: Described, writers: Mapping[str, Tuple[str, ...]]) -> Tuple[str, ...]:
    found = (name for tensor in _tensors(described, "Inputs") for name in writers.get(_text(tensor, "Name"), ()))
    return tuple(dict.fromkeys(found))


def _first_type(described: Described, side: str) -> Optional[str]:
    for tensor in _tensors(described, side):
        told = _text(tensor, "Datatype") or _text(tensor, "Format/Datatype")  # two fields since 11, one before
        return next((name for name, pattern in TYPES if re.search(pattern, told, re.IGNORECASE)), None)
    return None


def _tensors(described: Described, side: str) -> Iterator[Described]:
    listed = described.get(side, [])
    return (cast(Described, each) for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict))


def _text(described: Described, name: str) -> str:
    value = described.get(name, "")
    return value if isinstance(value, str) else ""
