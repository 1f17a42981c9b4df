"""The manifest of a release: its files, how to call its model, and the evidence. Rule: data that checks itself.

Every wrapper for a platform, every README and every check of a release is made from it. It is written in one form
only (`manifest_bytes`), so that it can be compared byte by byte. A change of its fields raises SCHEMA_VERSION.
"""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from pipeline.budget import Budget
from pipeline.measuring.verdict import Check, Verdict, combine
from pipeline.release.archive import is_safe_name, parse_time
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

SCHEMA_VERSION = 2

MANIFEST = "manifest.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
LABELS = "labels.txt"
README = "README.md"


def _is_time(text: str) -> str:
    parse_time(text)
    return text


def _is_path(name: str) -> str:
    if not is_safe_name(name):
        raise ValueError("expected a plain relative path: ASCII words between slashes, none starting with a dot")
    return name


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]
"""What can stand in the name of a file."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in hex."""
FilePath = Annotated[str, AfterValidator(_is_path)]


class ManifestPart(BaseModel):
    """A table of the manifest."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class FileFacts(ManifestPart):
    """What a file of the release must be."""

    sha256: Digest
    size_bytes: int = Field(ge=0)


class Runtime(ManifestPart):
    """What the model was compiled for, and where it was measured."""

    target: str
    """Kind of the target: the runtime that loads the model."""
    version: str
    """Of the runtime."""
    device: str
    """Digest of what the device says of itself."""


class Interface(ManifestPart):
    """How the model is called: its tensors, and what surrounds it."""

    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    processing: Processing
    """Pixel p (0..255) of channel c enters as p * scale[c] + bias[c], float32, NCHW; where `input` is uint8_nhwc the
    model does that itself, and takes bytes as they are. `activation` turns the first output into scores, and the class
    is the largest one's."""
    labels: tuple[str, ...]
    """Names of the classes, in the order of the first output's last axis."""


class Manifest(ManifestPart):
    """What manifest.json holds; the fields from `version` to `lineage` are the report's own."""

    schema_version: Literal[2] = 2
    name: Word
    """Of the recipe."""
    version: Word
    deployment: Word
    created_at: Annotated[str, AfterValidator(_is_time)]
    """When the report was complete: ISO 8601, UTC; the time of every file in the archive."""
    precision: str
    """The deployment's."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float where int8 ships, or beginnings of their names."""
    rest: str | None = None
    """What computes that is not on the int8 grid, where it is neither fp32 nor what the precision says."""
    licence: str | None
    """Of the model: SPDX expression or a name; null where the recipe does not say."""
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
    """The file of the release that the runtime loads."""
    files: dict[FilePath, FileFacts]
    """Every file of the release but this one."""

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
        if missing := {self.model, REPORT, LABELS} - self.files.keys():
            raise ValueError(f"files: expected {', '.join(sorted(missing))} to be listed; got none of that name")
        if MANIFEST in self.files:
            raise ValueError(f"files: expected every file but {MANIFEST}; got it too")
        return self


SHARED_WITH_REPORT = tuple(sorted(Manifest.model_fields.keys() & Report.model_fields.keys() - {"schema_version"}))
"""Fields that the manifest takes from the report as they are."""


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest in its only form: JSON with sorted keys, in UTF-8."""
    return canonical_json(manifest.model_dump(mode="json"))


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
