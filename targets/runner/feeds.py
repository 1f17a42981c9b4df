"""Inputs of a model: made up by element type where no data is given, and checked before a runtime sees them.

Rule: devices carry this file: Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

from typing import Mapping, Sequence, Tuple

import numpy as np

from targets.errors import ModelRefused
from targets.target import Arrays, TensorSpec

CACHE_LINE_BYTES = 64


def make_feeds(inputs: Sequence[TensorSpec], shapes: Mapping[str, Tuple[int, ...]], seed: int) -> Arrays:
    """Return seeded values for every input; unknown dimensions are 1 unless `shapes` gives them.

    Floats are uniform in 0..1, bytes in 0..255, other integers 0 or 1 (an index or a mask that fits most models).
    Raises ModelRefused for element types that cannot be made up and for shapes that contradict the model.
    """
    unknown = sorted(set(shapes) - {spec.name for spec in inputs})
    if unknown:
        raise ModelRefused(f"shape of {unknown[0]!r}: expected an input among {_names(inputs)}; got an unknown name")
    random = np.random.default_rng(seed)
    return {spec.name: align(_make_values(random, spec, resolve_shape(spec, shapes.get(spec.name)))) for spec in inputs}


def align(array: np.ndarray) -> np.ndarray:
    """Return a copy whose memory begins on a cache line, as runtimes allocate theirs; NumPy promises 16 bytes only."""
    block = np.empty(array.nbytes + CACHE_LINE_BYTES, np.uint8)
    start = -block.ctypes.data % CACHE_LINE_BYTES
    aligned: np.ndarray = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


def resolve_shape(spec: TensorSpec, given: object = None) -> Tuple[int, ...]:
    """Return a whole shape for `spec`: the given one where it fits, else 1 for each unknown dimension."""
    if given is None:
        return tuple(1 if size is None else size for size in spec.shape)
    shape = tuple(given) if isinstance(given, (tuple, list)) else ()
    if not _fits(shape, spec):
        raise ModelRefused(f"shape of {spec.name!r}: expected {_text(spec)}; got {'x'.join(map(str, shape))}")
    return shape


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, np.ndarray]) -> None:
    """Raise ModelRefused where the feeds do not fit the inputs by name, element type, shape or layout in memory."""
    expected, got = {spec.name for spec in inputs}, set(feeds)
    if expected != got:
        raise ModelRefused(f"feeds: expected the inputs {sorted(expected)}; got {sorted(got)}")
    for spec in inputs:
        array = feeds[spec.name]
        if array.dtype.name != spec.dtype or not _fits(array.shape, spec):
            raise ModelRefused(
                f"feed {spec.name!r}: expected {spec.dtype} {_text(spec)}; got {array.dtype.name} {array.shape}"
            )
        if not array.flags.c_contiguous:
            raise ModelRefused(f"feed {spec.name!r}: expected a C-contiguous array; got strides {array.strides}")


def _make_values(random: np.random.Generator, spec: TensorSpec, shape: Tuple[int, ...]) -> np.ndarray:
    if spec.dtype in ("float32", "float64", "float16"):
        return random.random(shape).astype(spec.dtype)
    if spec.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    if spec.dtype in ("int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "bool"):
        return random.integers(0, 2, shape).astype(spec.dtype)
    raise ModelRefused(
        f"input {spec.name!r}: expected numbers of a type that NumPy has, to make them up; got {spec.dtype}; "
        "export the model with a float32 or integer input in its place"
    )


def _fits(shape: Tuple[int, ...], spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        got >= 0 and expected in (None, got) for got, expected in zip(shape, spec.shape)
    )


def _names(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in inputs) or "none (the model has no inputs)"


def _text(spec: TensorSpec) -> str:
    return "x".join("?" if size is None else str(size) for size in spec.shape) or "a scalar"
