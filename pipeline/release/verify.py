"""Say exactly what differs in a release from what was packed. Rule: offline, in memory, nothing is ever unpacked.

What no signature covers can be rebuilt by whoever changes it: this finds every accident and every change that is
not a new release in itself. The checks go from the archive inwards, and end with the whole archive laid out again
from its own files and compared byte by byte, so that no byte goes unchecked.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.release.archive import MAX_BYTES, parse_time
from pipeline.release.manifest import (
    LABELS,
    MANIFEST,
    REPORT,
    SCHEMA_VERSION,
    SHARED_WITH_REPORT,
    Manifest,
    labels_bytes,
    manifest_bytes,
)
from pipeline.release.packing import Contents, Difference, check_bytes, check_times, read_contents, shown
from pipeline.release.text import brief, violations
from targets.errors import EdgeproofError

_NO_MANIFEST = Difference(MANIFEST, "presence", "a manifest", "none that can be read")


@dataclass(frozen=True)
class Verification:
    """What was found in a release."""

    differences: tuple[Difference, ...]
    manifest: Manifest | None
    """None where it could not be read; to be believed only where there is no difference."""

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was packed."""
        return not self.differences


@dataclass(frozen=True)
class OpenRelease:
    """A verified release in memory: the very bytes that were verified."""

    manifest: Manifest
    model: bytes
    """What the runtime loads."""


def verify_release(path: Path) -> Verification:
    """Compare every byte of a release with what its manifest promises.

    Raises EdgeproofError where there is no file that can be read; whatever a file holds is an answer.
    """
    return _verify(_read(path))[0]


def open_release(path: Path) -> OpenRelease:
    """Return manifest and model of a release; raises EdgeproofError with every difference where it has one."""
    verification, files = _verify(_read(path))
    manifest = verification.manifest
    if manifest is None or not verification.ok:
        listed = "\n".join(f"  {difference}" for difference in verification.differences)
        raise EdgeproofError(f"{path}: expected a release as it was packed; got, instead:\n{listed}\nget it again")
    return OpenRelease(manifest=manifest, model=files[manifest.model])


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise EdgeproofError(f"{path}: expected a release (.zip); got {found}; give the path of its archive")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return stream.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise EdgeproofError(f"{path}: expected a release that can be read; got: {error.strerror}") from error


def _verify(raw: bytes) -> tuple[Verification, Mapping[str, bytes]]:
    contents = read_contents(raw)
    if not contents.entries:
        return Verification(contents.differences or (_NO_MANIFEST,), None), {}
    manifest, wrong = _read_manifest(contents)
    differences = [*contents.differences, *wrong]
    if manifest is not None:
        created_at = parse_time(manifest.created_at)
        differences += _check_files(manifest, contents)
        differences += _check_labels(manifest, contents.files)
        differences += _check_report(manifest, contents.files)
        differences += check_times(contents, created_at)
        differences += () if differences else check_bytes(contents, created_at, raw)
    return Verification(tuple(differences), manifest), contents.files


class _AnySchema(BaseModel):
    """What a manifest of every schema has."""

    schema_version: int


class _ArtifactTable(BaseModel):
    """The model that a report of any schema is about."""

    sha256: str


class _ReportTables(BaseModel):
    """A report of any schema, its tables as they are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    recipe: str
    artifact: _ArtifactTable


def _read_manifest(contents: Contents) -> tuple[Manifest | None, list[Difference]]:
    content = contents.files.get(MANIFEST)
    if content is None:
        return None, [_NO_MANIFEST]
    try:
        schema_version = _AnySchema.model_validate_json(content, strict=True).schema_version
        if schema_version > SCHEMA_VERSION:
            expected = f"{SCHEMA_VERSION}, the newest that this edgeproof reads (update it)"
            return None, [Difference(MANIFEST, "schema_version", expected, str(schema_version))]
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        return None, [Difference(MANIFEST, *violation) for violation in violations(error)]
    return manifest, [*_check_form(manifest, content), *_check_sum(contents, content)]


def _check_form(manifest: Manifest, content: bytes) -> Iterator[Difference]:
    if manifest_bytes(manifest) != content:
        yield Difference(MANIFEST, "form", "JSON as it is packed: sorted, indented, nothing else", "other text")


def _check_sum(contents: Contents, content: bytes) -> Iterator[Difference]:
    """Compare the manifest with the only sum of it that there is, the archive's own."""
    expected = next(entry.CRC for entry in contents.entries if entry.orig_filename == MANIFEST)
    if (got := zlib.crc32(content)) != expected:
        yield Difference(MANIFEST, "CRC-32", f"{expected:08x}, as the archive says", f"{got:08x}")


def _check_files(manifest: Manifest, contents: Contents) -> Iterator[Difference]:
    for name in sorted(manifest.files.keys() - contents.names):
        yield Difference(name, "presence", "a file that the manifest lists", "none")
    for name in sorted(contents.names - manifest.files.keys() - {MANIFEST}):
        yield Difference(shown(name), "presence", "no file that the manifest does not list", "one")
    for name in sorted(manifest.files.keys() & contents.files.keys()):
        facts, content = manifest.files[name], contents.files[name]
        if len(content) != facts.size_bytes:
            yield Difference(name, "size", f"{facts.size_bytes} bytes", f"{len(content)} bytes")
        if (sha256 := hashlib.sha256(content).hexdigest()) != facts.sha256:
            yield Difference(name, "sha256", facts.sha256, sha256)


def _check_labels(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Difference]:
    if LABELS in files and files[LABELS] != labels_bytes(manifest.interface):
        yield Difference(LABELS, "labels", "the manifest's, one a line", brief(files[LABELS]))


def _check_report(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Difference]:
    if REPORT not in files:
        return
    try:
        report = _ReportTables.model_validate_json(files[REPORT]).model_dump(mode="json")
    except ValidationError as error:
        yield from (Difference(REPORT, *violation) for violation in violations(error))
        return
    own = manifest.model_dump(mode="json")
    pairs = {name: (own[name], report.get(name)) for name in SHARED_WITH_REPORT}
    pairs["recipe"] = (manifest.name, report["recipe"])
    pairs["artifact.sha256"] = (manifest.files[manifest.model].sha256, report["artifact"]["sha256"])
    for aspect, (expected, got) in pairs.items():
        if expected != got:
            yield Difference(REPORT, aspect, f"the manifest's {brief(expected)}", brief(got))
