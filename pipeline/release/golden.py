"""Golden answers: what the model was asked on its device, and what it answered. Rule: raw little-endian arrays.

Every wrapper proves itself by them: the same bytes in must give the same answers, within what another processor may
round otherwise.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from pipeline.release.manifest import GOLDEN, Interface, canonical_json
from pipeline.release.packing import Difference
from pipeline.release.part import FilePath, ReleasePart
from pipeline.release.text import brief, violations
from targets.errors import EdgeproofError

IMAGES, LOGITS = "golden/images.bin", "golden/logits.bin"
NOISE = {"fp32": 1e-4, "int8": 1e-4, "fp16": 4e-3, "bf16": 3e-2}
"""What another processor rounds otherwise, of the largest answer, by what computes: some units in the last place of a
float type; int8 itself rounds alike everywhere, but for what a step allows."""
UNKNOWN_NOISE = 2e-2
"""Where int8 has no step that is known: ranges found at run time, float layers at the end."""
SCORE_NOISE = 1e-5
"""Scores are between 0 and 1 (or answers themselves), and another library's exp rounds otherwise."""


class GoldenArray(ReleasePart):
    """One array of the golden answers, as it lies in its file: C order, little-endian, nothing before or after."""

    name: str
    """Of the model's input or output."""
    dtype: Literal["uint8", "float32"]
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=2)
    """Samples first."""
    file: FilePath
    """Beside golden.json."""

    @property
    def size_bytes(self) -> int:
        """What its file holds."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Golden(ReleasePart):
    """What golden.json holds."""

    schema_version: Literal[1] = 1
    samples: int = Field(ge=1)
    inputs: GoldenArray
    """Images as a camera gives them: uint8, samples x height x width x channels, before any normalization."""
    outputs: GoldenArray
    """What the device answered: float32, samples x classes, before the activation."""
    labels: tuple[int, ...]
    """The class of each sample: the first of the largest outputs."""
    scores: tuple[float, ...]
    """Its score, after the activation."""
    step: float = Field(ge=0)
    """What one code changes at most of an output: its own step, or that of the last layer's input; 0 where unknown."""
    tolerance: float = Field(gt=0)
    """Largest absolute difference of an output that another processor's rounding explains."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Golden":
        found = {self.inputs.shape[0], self.outputs.shape[0], len(self.labels), len(self.scores)}
        if found != {self.samples}:
            raise ValueError(f"samples: expected {self.samples} everywhere; got {sorted(found)}")
        if self.inputs.dtype != "uint8" or len(self.inputs.shape) != 4:
            raise ValueError(f"inputs: expected uint8 of four dimensions; got {self.inputs.dtype} {self.inputs.shape}")
        if self.outputs.dtype != "float32" or len(self.outputs.shape) != 2:
            raise ValueError(f"outputs: expected float32 of two; got {self.outputs.dtype} {self.outputs.shape}")
        return self


def make_golden(
    interface: Interface, images_NHWC: np.ndarray, logits_NK: np.ndarray, *, step: float, noise: float
) -> dict[str, bytes]:
    """Return golden.json and its arrays by name.

    Args:
        interface: what was asked.
        images_NHWC: uint8, as the device was given them.
        logits_NK: float32, as it answered.
        step: one quantization step of the output; 0 where it is not known.
        noise: as `noise_of` gives it.
    """
    labels, scores = interface.processing.postprocess(logits_NK)
    images = GoldenArray(name=interface.inputs[0].name, dtype="uint8", shape=images_NHWC.shape, file=IMAGES)
    logits = GoldenArray(name=interface.outputs[0].name, dtype="float32", shape=logits_NK.shape, file=LOGITS)
    golden = Golden(
        samples=len(labels),
        inputs=images,
        outputs=logits,
        labels=tuple(labels.tolist()),
        scores=tuple(scores.tolist()),
        step=step,
        tolerance=_tolerance(logits_NK, step, noise),
    )
    return {
        GOLDEN: canonical_json(golden.model_dump(mode="json")),
        IMAGES: _raw(images_NHWC, images),
        LOGITS: _raw(logits_NK, logits),
    }


def noise_of(precision: str, rest: str | None, step: float) -> float:
    """Return what another processor rounds otherwise, of the largest answer, beside one step.

    Args:
        precision: of the deployment.
        rest: what computes beside int8, where that is not fp32.
        step: one quantization step of the output; 0 where it is not known.
    """
    known = [NOISE.get(each, UNKNOWN_NOISE) for each in (precision, rest) if each is not None]
    return max([*known, UNKNOWN_NOISE if precision == "int8" and not step else 0.0])


def read_golden(files: Mapping[str, bytes], root: str = "") -> Golden:
    """Return the golden answers beside the manifest in the folder `root`.

    Raises:
        EdgeproofError: there are none, or they do not fit together.
    """
    name = root + GOLDEN
    try:
        return Golden.model_validate_json(files[name])
    except KeyError as error:
        raise EdgeproofError(f"{name}: expected golden answers; got none; deploy again") from error
    except ValidationError as error:
        place, expected, got = violations(error)[0]
        raise EdgeproofError(f"{name}: {place}: expected {expected}; got {got}; deploy again") from error


def golden_array(array: GoldenArray, files: Mapping[str, bytes], root: str = "") -> np.ndarray:
    """Return one array of the golden answers beside the manifest in the folder `root`."""
    return np.frombuffer(files[root + array.file], np.dtype(array.dtype).newbyteorder("<")).reshape(array.shape)


def check_golden(interface: Interface, files: Mapping[str, bytes], root: str) -> Iterator[Difference]:
    """Check that golden answers are whole, about this model, and that labels and scores follow from the outputs."""
    name = root + GOLDEN
    if name not in files:
        return
    try:
        golden = Golden.model_validate_json(files[name])
    except ValidationError as error:
        yield from (Difference(name, *violation) for violation in violations(error))
        return
    if broken := [*_check_arrays(golden, interface, files, root)]:
        yield from broken
        return
    logits_NK = golden_array(golden.outputs, files, root)
    if not np.isfinite(logits_NK).all():
        yield Difference(root + golden.outputs.file, "values", "finite numbers", "others too")
        return
    labels, scores = interface.processing.postprocess(logits_NK)
    if tuple(labels.tolist()) != golden.labels:
        yield Difference(name, "labels", f"{brief(labels.tolist())}, the largest outputs", brief(golden.labels))
    if not np.allclose(scores, golden.scores, rtol=SCORE_NOISE, atol=SCORE_NOISE):
        yield Difference(name, "scores", f"{brief(scores.tolist())}, by the outputs", brief(golden.scores))


def _check_arrays(golden: Golden, interface: Interface, files: Mapping[str, bytes], root: str) -> Iterator[Difference]:
    for array, spec in ((golden.inputs, interface.inputs[0]), (golden.outputs, interface.outputs[0])):
        content = files.get(root + array.file)
        if array.name != spec.name:
            yield Difference(root + GOLDEN, "name", f"the manifest's {brief(spec.name)}", brief(array.name))
        if content is None:
            yield Difference(root + array.file, "presence", f"the array that {GOLDEN} names", "none")
        elif len(content) != array.size_bytes:
            expected = f"{array.size_bytes} bytes for {array.dtype} {brief(array.shape)}"
            yield Difference(root + array.file, "size", expected, f"{len(content)} bytes")
    classes, channels = len(interface.labels), len(interface.processing.scale)
    if golden.outputs.shape[1] != classes or golden.inputs.shape[3] != channels:
        got = brief((golden.inputs.shape, golden.outputs.shape))
        yield Difference(root + GOLDEN, "shapes", f"{channels} channels and {classes} classes", got)


def _tolerance(logits_NK: np.ndarray, step: float, noise: float) -> float:
    """Return one step and float noise: a sum on the edge of two codes is rounded to either."""
    largest = float(np.abs(logits_NK).max(initial=0.0)) or 1.0
    return step + noise * largest


def _raw(array: np.ndarray, facts: GoldenArray) -> bytes:
    return np.ascontiguousarray(array, np.dtype(facts.dtype).newbyteorder("<")).tobytes()
