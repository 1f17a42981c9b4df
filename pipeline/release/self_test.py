"""What a wrapper's selfTest() returns, as JSON, on the device of an application team. Rule: figures, no verdict.

Every platform's wrapper writes it, and `edgeproof gate --profile FILE` judges it (docs/self_test.schema.json).
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from pipeline.budget import Scope
from pipeline.errors import UsageError
from pipeline.release.manifest import canonical_json
from pipeline.release.part import Digest, ReleasePart, Word
from pipeline.release.text import brief, violations

MAX_BYTES = 2**25
"""Of the file, which is parsed as a whole: two million samples of up to 16 digits."""
MAX_SAMPLES = 2_000_000
LONGEST_NS = 2**53 - 1
"""The largest whole number that every JSON reader takes as it is: 104 days."""


def _is_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"expected printable text of one line; got {brief(text)}")
    return text


def _form_of(value: object) -> str:
    return "processes" if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple) else "list"


Line = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_is_one_line)]
Nanoseconds = Annotated[int, Field(ge=0, le=LONGEST_NS)]
Samples = Annotated[tuple[Nanoseconds, ...], Field(fail_fast=True)]
"""The first that is wrong is told, not each of a million."""


class GoldenAnswers(ReleasePart):
    """What the model answered to the golden inputs of its package, held against the golden outputs."""

    samples: int = Field(ge=1)
    """How many golden inputs were asked."""
    largest_difference: float | None = Field(ge=0, le=3.5e38)
    """Largest absolute difference of any logit; null where an answer was not finite."""
    labels_equal: bool
    """Whether the class of every sample is the golden one."""


class SelfTest(ReleasePart):
    """Golden answers and raw latencies of one release on one device."""

    schema_version: Literal[1] = 1
    name: Word
    """Of the release, as its manifest says."""
    version: Word
    """Of the release."""
    platform: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40, examples=["android"])
    """The package's: android, ios, linux or web."""
    device: Line = Field(examples=["Google Pixel 8, Android 15, arm64-v8a"])
    """What the device says of itself: model, system, processor."""
    model_sha256: Digest
    """Of the model's file as the wrapper loaded it."""
    runtime_version: Line = Field(examples=["onnxruntime 1.22.0, cpu"])
    """Runtime, its version, and the execution provider."""
    scope: Scope = Field(examples=["model"])
    """What each sample holds: `model`, the inference alone; `end_to_end`, with pre- and post-processing."""
    samples_ns: Annotated[
        Annotated[Samples, Tag("list")] | Annotated[tuple[Samples, ...], Field(fail_fast=True), Tag("processes")],
        Discriminator(_form_of),
    ] = Field(examples=[[1203958, 1187204, 1190877]])
    """Whole nanoseconds of each inference, one after the other, in the order taken and after the warm-up: one list, or
    a list for each fresh process."""
    golden: GoldenAnswers

    @model_validator(mode="after")
    def _has_samples(self) -> "SelfTest":
        sizes = [block.size for block in self.blocks_ns]
        if not sizes or 0 in sizes:
            raise ValueError("samples_ns: expected at least one sample, in each process; got none")
        if sum(sizes) > MAX_SAMPLES:
            raise ValueError(f"samples_ns: expected at most {MAX_SAMPLES} samples; got {sum(sizes)}")
        return self

    @property
    def blocks_ns(self) -> tuple[np.ndarray, ...]:
        """Return the samples of each process, int64, in the order taken."""
        if self.samples_ns and isinstance(self.samples_ns[0], tuple):
            return tuple(np.array(block, dtype=np.int64) for block in self.samples_ns)
        return (np.array(self.samples_ns, dtype=np.int64),)


def read_self_test(path: Path) -> SelfTest:
    """Return what a wrapper's selfTest() wrote.

    Raises:
        UsageError: no file is there that can be read, or it is not what selfTest() writes; lists what is wrong.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: expected the JSON that a package's selfTest() returns; got: {error.strerror}; save it there"
        ) from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: expected at most {MAX_BYTES} bytes; got more; run selfTest() with fewer runs")
    try:
        found: SelfTest = SelfTest.model_validate_json(raw)
    except ValidationError as error:
        listed = "\n".join(
            f"{path}: {place}: expected {expected}; got {got}" for place, expected, got in violations(error)
        )
        raise UsageError(f"{listed}\nIt must be what selfTest() of the package returns, unchanged") from error
    return found


def self_test_schema() -> bytes:
    """Return the JSON Schema of the self-test, as docs/self_test.schema.json holds it."""
    schema = SelfTest.model_json_schema(mode="serialization")
    return canonical_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
