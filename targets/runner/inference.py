"""Inference over samples, and the one call that a profile times.

Rule: devices carry this file: Python 3.8, standard library and NumPy only.
Legend: N samples, B the model's batch, H height, W width, C channels.
"""

from __future__ import annotations

import sys
import time
from typing import Callable, Dict, Mapping, Optional, Sequence

import numpy as np

from targets.errors import ModelRefused
from targets.processing import Processing
from targets.runner.feeds import align, make_feeds, resolve_shape
from targets.runner.job import PROGRESS, ProfileRequest
from targets.target import Arrays, Session, TensorSpec

DYNAMIC_BATCH = 64
"""Samples of a chunk, where the model leaves its batch open."""
PROGRESS_EVERY_S = 0.2


def bind_for_scope(session: Session, request: ProfileRequest) -> Callable[[], object]:
    """Return what a profile times: an inference, or all from a uint8 image to labels and scores."""
    if request.scope == "model":
        return _bind_model(session, request)
    if request.processing is None:
        raise ModelRefused("scope end_to_end: expected pre- and post-processing; got none; use the scope model")
    return _bind_end_to_end(session, request, request.processing)


def _bind_model(session: Session, request: ProfileRequest) -> Callable[[], object]:
    try:
        return session.bind(make_feeds(session.inputs, request.shapes, request.seed))
    except ModelRefused as error:
        guessed = [spec.name for spec in session.inputs if None in spec.shape and spec.name not in request.shapes]
        if not guessed:
            raise
        names = ", ".join(guessed)
        raise ModelRefused(f"{error}; unknown dimensions were taken as 1: give the shapes of {names}") from error


def _bind_end_to_end(session: Session, request: ProfileRequest, processing: Processing) -> Callable[[], object]:
    spec = _find_image_input(session, processing)
    shape = resolve_shape(spec, request.shapes.get(spec.name))
    if processing.input == "float32_nchw":
        shape = (shape[0], *shape[2:], shape[1])
    images = np.random.default_rng(request.seed).integers(0, 256, shape, dtype=np.uint8)
    tensor = align(processing.preprocess(images))
    infer = session.bind({spec.name: tensor})
    first = session.outputs[0].name
    if infer()[first].ndim != 2:
        raise ModelRefused(
            f"output {first!r}: expected logits (N, K) for the scope end_to_end; got {infer()[first].shape}"
        )

    def run() -> object:
        processing.preprocess(images, out=tensor)
        return processing.postprocess(infer()[first])

    return run


def infer_samples(session: Session, feeds: Mapping[str, np.ndarray], processing: Optional[Processing]) -> Arrays:
    """Return the outputs for every sample, stacked along the first axis.

    Each feed has a leading sample axis, which the model's batch axis cuts into chunks: its own size, or 64
    where it is open. A last chunk that is short of a fixed size is filled with its last sample, which is cut off again.
    With `processing`, the only feed holds uint8 images (N, H, W, C).
    """
    num_samples = _count_samples(feeds)
    if processing is not None:
        _find_image_input(session, processing)
    batch = _find_batch(session.inputs)
    size = min(batch or DYNAMIC_BATCH, num_samples if batch is None else batch)
    outputs: Arrays = {}
    chunk: Arrays = {}
    infer: Optional[Callable[[], Arrays]] = None
    progress = _Progress(num_samples)
    for start in range(0, num_samples, size):
        stop = min(start + size, num_samples)
        length = size if batch is not None else stop - start
        fresh = {name: _take(array, start, length, processing) for name, array in feeds.items()}
        if infer is None or any(chunk[name].shape != array.shape for name, array in fresh.items()):
            chunk = fresh
            infer = session.bind(chunk)
        else:
            for name, array in fresh.items():
                chunk[name][...] = array
        _store(outputs, infer(), start, stop, num_samples, length)
        progress.report(stop)
    return outputs


def _take(array: np.ndarray, start: int, length: int, processing: Optional[Processing]) -> np.ndarray:
    part = array[start : start + length]
    if len(part) < length:
        part = np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)])
    if processing is None:
        return np.array(part, order="C")
    try:
        return processing.preprocess(part)
    except ValueError as error:
        raise ModelRefused(str(error)) from error


def _store(outputs: Arrays, values: Arrays, start: int, stop: int, num_samples: int, length: int) -> None:
    for name, value in values.items():
        if value.ndim == 0 or value.shape[0] != length:
            raise ModelRefused(
                f"output {name!r}: expected the {length} samples of a chunk on its first axis; got {value.shape}; "
                "export the model with its batch first"
            )
        if name not in outputs:
            outputs[name] = np.empty((num_samples, *value.shape[1:]), value.dtype)
        if outputs[name].shape[1:] != value.shape[1:]:
            raise ModelRefused(
                f"output {name!r}: expected one shape for all samples; got {value.shape[1:]} after others"
            )
        outputs[name][start:stop] = value[: stop - start]


def _count_samples(feeds: Mapping[str, np.ndarray]) -> int:
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in feeds.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ModelRefused(f"feeds: expected the same number of samples, at least 1, on each first axis; got {sizes}")
    return next(iter(sizes.values()))


def _find_batch(inputs: Sequence[TensorSpec]) -> Optional[int]:
    """Return the fixed size of the first axis of the inputs, or None where it is open."""
    sizes: Dict[str, Optional[int]] = {}
    for spec in inputs:
        if not spec.shape:
            raise ModelRefused(f"input {spec.name!r}: expected a batch on its first axis; got a scalar")
        sizes[spec.name] = spec.shape[0]
    fixed = {size for size in sizes.values() if size is not None}
    if len(fixed) > 1 or 0 in fixed:
        raise ModelRefused(f"inputs: expected one batch size, at least 1, on their first axes; got {sizes}")
    return fixed.pop() if fixed else None


def _find_image_input(session: Session, processing: Processing) -> TensorSpec:
    """Return the model's only input; raises ModelRefused unless it takes what `processing` makes."""
    if len(session.inputs) != 1:
        raise ModelRefused(f"inputs: expected one, of images; got {len(session.inputs)}: {session.inputs}")
    spec = session.inputs[0]
    channels = len(processing.scale)
    dtype, axis, text = "float32", 1, f"(N, {channels}, H, W)"
    if processing.input == "uint8_nhwc":
        dtype, axis, text = "uint8", 3, f"(N, H, W, {channels})"
    if spec.dtype != dtype or len(spec.shape) != 4 or spec.shape[axis] not in (None, channels):
        raise ModelRefused(f"input {spec.name!r}: expected {dtype} images {text}; got {spec.dtype} {spec.shape}")
    return spec


class _Progress:
    """Lines on stderr that the host turns into a progress bar."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = 0.0

    def report(self, done: int) -> None:
        now = time.monotonic()
        if now >= self._next or done == self._total:
            self._next = now + PROGRESS_EVERY_S
            sys.stderr.write(f"{PROGRESS} {done} {self._total}\n")
            sys.stderr.flush()
