"""The manifest of a release: its files, how to call its model, and the evidence. Rule: data that checks itself.

Every wrapper for a platform, every README and every check of a release is made from it. It is written in one form
only (`manifest_bytes`), so that it can be compared byte by byte. A change of its fields raises SCHEMA_VERSION.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from pipeline.budget import Budget
from pipeline.measuring.verdict import Check, Verdict, combine
from pipeline.release.card import Card
from pipeline.release.licences import Licences
from pipeline.release.part import Digest, FilePath, FolderPath, ReleasePart, Time, Word
from pipeline.release.text import brief
from pipeline.report.report import (
    AccuracyFigures,
    LatencyFigures,
    LoadFigures,
    MemoryFigures,
    ParityFigures,
    Report,
)
from targets.processing import Processing
from targets.target import TensorSpec

SCHEMA_VERSION = 3

MANIFEST = "manifest.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
LABELS = "labels.txt"
README = "README.md"
GOLDEN = "golden.json"


class FileFacts(ReleasePart):
    """What a file of the release must be."""

    sha256: Digest
    size_bytes: int = Field(ge=0)


class Runtime(ReleasePart):
    """What the model was compiled for, and where it was measured."""

    target: str
    """Kind of the target: the runtime that loads the model."""
    version: str
    """Of the runtime."""
    device: str
    """Digest of what the device says of itself."""


class Interface(ReleasePart):
    """How the model is called: its tensors, and what surrounds it."""

    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    processing: Processing
    """Pixel p (0..255) of channel c enters as p * scale[c] + bias[c], float32, NCHW; where `input` is uint8_nhwc the
    model does that itself, and takes bytes as they are. `activation` turns the first output into scores, and the class
    is the largest one's."""
    labels: tuple[str, ...]
    """Names of the classes, in the order of the first output's last axis."""


class Manifest(ReleasePart):
    """What manifest.json holds; the fields from `version` to `lineage` are the report's own."""

    schema_version: Literal[3] = 3
    platform: Word = "any"
    """What the archive is for: any (the release itself), or the kind of the platform that it was packaged for."""
    name: Word
    """Of the recipe."""
    version: Word
    deployment: Word
    created_at: Time
    """When the report was complete: ISO 8601, UTC; the time of every file in the archive."""
    precision: str
    """The deployment's."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float where int8 ships, or beginnings of their names."""
    rest: str | None = None
    """What computes that is not on the int8 grid, where it is neither fp32 nor what the precision says."""
    licences: Licences
    """Of the model, and of what it was made from."""
    card: Card
    """What the model is for and how it came about, in words; describe_card (pipeline/describe.py) makes it."""
    verdict: Verdict
    accepted_undecided: bool
    """Whether a release was allowed in spite of undecided budgets."""
    checks: tuple[Check, ...]
    """Each budget, judged on the device."""
    accuracy: AccuracyFigures | None
    parity: ParityFigures | None
    latency: LatencyFigures | None
    memory: MemoryFigures | None
    load: LoadFigures | None
    context: dict[str, JsonValue]
    """What the device said of itself, its clocks and its load when it was measured."""
    lineage: dict[str, str]
    """Digests from data and teacher to the model, by name."""
    budget: Budget | None
    """What the deployment had to hold, as the recipe says it."""
    runtime: Runtime
    interface: Interface
    model: FilePath
    """The file of the archive that the runtime loads."""
    root: FolderPath = ""
    """Folder of the archive in which this manifest lies, with labels.txt, golden.json and the arrays of the latter."""
    evidence: FolderPath = ""
    """Folder of report.json and of what else is evidence."""
    release: Digest | None = None
    """sha256 of manifest.json of the release that a package was made from; null in the release itself."""
    files: dict[FilePath, FileFacts]
    """Every file of the archive but this one, the attestation beside it, and what is derived (RECORD of a wheel)."""

    @model_validator(mode="after")
    def _may_be_released(self) -> "Manifest":
        if self.verdict is not combine(check.verdict for check in self.checks):
            raise ValueError(f"verdict: expected that of all checks together; got {self.verdict}")
        if self.verdict is Verdict.FAIL:
            raise ValueError("verdict: expected pass or undecided; got fail")
        if self.verdict is Verdict.UNDECIDED and not self.accepted_undecided:
            raise ValueError("accepted_undecided: expected true, since the verdict is undecided; got false")
        return self

    @model_validator(mode="after")
    def _input_fits(self) -> "Manifest":
        image, processing = self.interface.inputs[0], self.interface.processing
        channels, takes_bytes = len(processing.scale), processing.input == "uint8_nhwc"
        axis, text = (3, f"height x width x {channels}") if takes_bytes else (1, f"{channels} x height x width")
        if len(image.shape) != 4 or image.shape[axis] not in (None, channels):
            raise ValueError(f"interface.inputs: expected N x {text}; got {brief(image.shape)}")
        if takes_bytes != (image.dtype == "uint8"):
            raise ValueError(f"interface.inputs: expected the type that {processing.input} names; got {image.dtype}")
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> "Manifest":
        labels, output = self.interface.labels, self.interface.outputs[0]
        classes = output.shape[-1] if output.shape else None
        if classes is not None and classes != len(labels):
            raise ValueError(f"interface.labels: expected {classes}, one a class of the output; got {len(labels)}")
        if broken := [label for label in labels if not label or not label.isprintable()]:
            raise ValueError(f"interface.labels: expected printable text of one line each; got {brief(broken[0])}")
        return self

    @model_validator(mode="after")
    def _has_its_form(self) -> "Manifest":
        try:
            manifest_bytes(self)
        except ValueError as error:  # NaN, infinity, or half a surrogate pair
            raise ValueError(f"expected only what JSON can hold; got {brief(str(error))}") from error
        return self

    @model_validator(mode="after")
    def _lists_its_files(self) -> "Manifest":
        required = {self.model, self.root + LABELS, self.root + GOLDEN, self.evidence + REPORT}
        if missing := required - self.files.keys():
            raise ValueError(f"files: expected {', '.join(sorted(missing))} to be listed; got none of that name")
        if self.root + MANIFEST in self.files:
            raise ValueError(f"files: expected every file but {MANIFEST}; got it too")
        return self


SHARED_WITH_REPORT = tuple(sorted(Manifest.model_fields.keys() & Report.model_fields.keys() - {"schema_version"}))
"""Fields that the manifest takes from the report as they are."""


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest in its only form: JSON with sorted keys, in UTF-8."""
    return canonical_json(manifest.model_dump(mode="json"))


def describe(files: Mapping[str, bytes]) -> dict[str, FileFacts]:
    """Return what the manifest says of files."""
    return {
        name: FileFacts(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in files.items()
    }


def labels_bytes(interface: Interface) -> bytes:
    """Return labels.txt: one label a line. What is no text stands as "?" until the manifest refuses it."""
    return "".join(f"{label}\n" for label in interface.labels).encode(errors="replace")


def manifest_schema() -> bytes:
    """Return the JSON Schema of the manifest, as docs/manifest.schema.json holds it."""
    schema = Manifest.model_json_schema(mode="serialization")
    return canonical_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def canonical_json(value: object) -> bytes:
    """Return sorted, indented JSON in UTF-8; raises ValueError for NaN and infinity."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
