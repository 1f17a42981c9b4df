"""Say exactly what differs in a release or a package from what was packed. Rule: offline, in memory, never unpacked.

What no signature covers can be rebuilt by whoever changes it: this finds every accident and every change that is
not a new release in itself. The checks go from the archive inwards, and end with the whole archive laid out again
from its own files and compared byte by byte, so that no byte goes unchecked.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.release.archive import MAX_BYTES, parse_time
from pipeline.release.attestation import ATTESTATION, check_attestation, key_id_of
from pipeline.release.bill_check import check_bill
from pipeline.release.golden import check_golden
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
from pipeline.release.packing import ARCHIVE, Contents, Difference, check_bytes, check_times, shown
from pipeline.release.signing import PublicKey
from pipeline.release.tarball import GZIP, read_tgz
from pipeline.release.text import brief, violations
from pipeline.release.wheel import record_bytes, record_of
from pipeline.release.zipped import read_zip
from targets.errors import EdgeproofError


@dataclass(frozen=True)
class Verification:
    """What was found in an archive."""

    differences: tuple[Difference, ...]
    manifest: Manifest | None
    """None where it could not be read; to be believed only where there is no difference."""
    signed_by: str | None = None
    """Id of the key that the archive claims to be signed with."""
    is_trusted: bool = False
    """Whether it is signed with the key that was given."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By path in the archive."""

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was packed."""
        return not self.differences


@dataclass(frozen=True)
class OpenRelease:
    """A verified release or package in memory: the very bytes that were verified."""

    manifest: Manifest
    files: Mapping[str, bytes]
    """By path in the archive, with manifest and attestation."""

    @property
    def model(self) -> bytes:
        """What the runtime loads."""
        return self.files[self.manifest.model]


def verify_release(path: Path, key: PublicKey | None = None) -> Verification:
    """Compare every byte of a release, AAR, wheel, npm archive or other package with what its manifest promises.

    With `key`, an archive that is not signed by it differs too.

    Raises EdgeproofError where there is no file that can be read; whatever a file holds is an answer.
    """
    return verify_bytes(_read(path), key)


def open_release(path: Path) -> OpenRelease:
    """Return manifest and files of a release or package; raises EdgeproofError with every difference."""
    verification = verify_release(path)
    manifest = verification.manifest
    if manifest is None or not verification.ok:
        listed = "\n".join(f"  {difference}" for difference in verification.differences)
        raise EdgeproofError(f"{path}: expected a release as it was packed; got, instead:\n{listed}\nget it again")
    return OpenRelease(manifest=manifest, files=verification.files)


def verify_bytes(raw: bytes, key: PublicKey | None = None) -> Verification:
    """Compare every byte of an archive with what its manifest promises."""
    contents = read_tgz(raw) if raw.startswith(GZIP) else read_zip(raw)
    place = _find_manifest(contents)
    if isinstance(place, Difference):
        return Verification((*contents.differences, *(() if contents.differences else (place,))), None)
    manifest, wrong = _read_manifest(contents, place)
    differences = [*contents.differences, *wrong]
    if manifest is None:
        return Verification(tuple(differences), None)
    created_at = parse_time(manifest.created_at)
    for found in (
        _check_files(manifest, contents),
        _check_labels(manifest, contents.files),
        _check_report(manifest, contents.files),
        check_golden(manifest.interface, contents.files, manifest.root),
        check_bill(manifest, contents.files),
        _check_record(contents.files),
        check_attestation(manifest, contents.files, key),
        check_times(contents, created_at),
    ):
        differences += found
    differences += () if differences else check_bytes(contents, created_at, raw)
    attestation = contents.files.get(manifest.root + ATTESTATION)
    return Verification(
        tuple(differences),
        manifest,
        signed_by=key_id_of(attestation) if attestation is not None else None,
        is_trusted=key is not None and not differences,
        files=contents.files,
    )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise EdgeproofError(
                f"{path}: expected a release or package (.zip, .aar, .whl, .tgz); got {found}; give the path of its "
                "archive"
            )
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return stream.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise EdgeproofError(f"{path}: expected a release that can be read; got: {error.strerror}") from error


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


def _find_manifest(contents: Contents) -> str | Difference:
    """Return the path of the one manifest."""
    found = sorted(name for name in contents.names if name.rpartition("/")[2] == MANIFEST)
    if len(found) > 1:
        return Difference(ARCHIVE, "manifest", f"one {MANIFEST}", ", ".join(map(shown, found)))
    if not found or found[0] not in contents.files:
        return Difference(MANIFEST, "presence", "a manifest", "none that can be read")
    return found[0]


def _read_manifest(contents: Contents, name: str) -> tuple[Manifest | None, list[Difference]]:
    content = contents.files[name]
    try:
        schema_version = _AnySchema.model_validate_json(content, strict=True).schema_version
        if schema_version > SCHEMA_VERSION:
            expected = f"{SCHEMA_VERSION}, the newest that this edgeproof reads (update it)"
            return None, [Difference(name, "schema_version", expected, str(schema_version))]
        if schema_version < SCHEMA_VERSION:
            expected = f"{SCHEMA_VERSION} (an earlier edgeproof packed this: verify it with that one, or deploy again)"
            return None, [Difference(name, "schema_version", expected, str(schema_version))]
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        return None, [Difference(name, *violation) for violation in violations(error)]
    return manifest, [*_check_form(name, manifest, content), *_check_sum(contents, name)]


def _check_form(name: str, manifest: Manifest, content: bytes) -> Iterator[Difference]:
    if manifest_bytes(manifest) != content:
        yield Difference(name, "form", "JSON as it is packed: sorted, indented, nothing else", "other text")
    if manifest.root + MANIFEST != name:
        yield Difference(name, "root", f"{manifest.root + MANIFEST}, where the manifest says that it lies", name)


def _check_sum(contents: Contents, name: str) -> Iterator[Difference]:
    """Compare the manifest with the only sum of it that there is, the archive's own."""
    expected, got = contents.sums.get(name), zlib.crc32(contents.files[name])
    if expected is not None and got != expected:
        yield Difference(name, "CRC-32", f"{expected:08x}, as the archive says", f"{got:08x}")


def _check_files(manifest: Manifest, contents: Contents) -> Iterator[Difference]:
    unlisted = {manifest.root + MANIFEST, manifest.root + ATTESTATION, record_of(contents.names)}
    for name in sorted(manifest.files.keys() - contents.names):
        yield Difference(name, "presence", "a file that the manifest lists", "none")
    for name in sorted(contents.names - manifest.files.keys() - unlisted):
        yield Difference(shown(name), "presence", "no file that the manifest does not list", "one")
    for name in sorted(manifest.files.keys() & contents.files.keys()):
        facts, content = manifest.files[name], contents.files[name]
        if len(content) != facts.size_bytes:
            yield Difference(name, "size", f"{facts.size_bytes} bytes", f"{len(content)} bytes")
        if (sha256 := hashlib.sha256(content).hexdigest()) != facts.sha256:
            yield Difference(name, "sha256", facts.sha256, sha256)


def _check_labels(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Difference]:
    name = manifest.root + LABELS
    if name in files and files[name] != labels_bytes(manifest.interface):
        yield Difference(name, "labels", "the manifest's, one a line", brief(files[name]))


def _check_record(files: Mapping[str, bytes]) -> Iterator[Difference]:
    """Derive a wheel's RECORD again."""
    record = record_of(files)
    if record is None:
        return
    expected = record_bytes({name: content for name, content in files.items() if name != record}, record)
    if (got := files.get(record)) != expected:
        lines = zip(expected.splitlines(), (got or b"").splitlines(), strict=False)
        line = next((brief(b) for a, b in lines if a != b), "another number of lines" if got else "none")
        yield Difference(record, "contents", "the digest and size of every other file", line)


def _check_report(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Difference]:
    name = manifest.evidence + REPORT
    if name not in files:
        return
    try:
        report = _ReportTables.model_validate_json(files[name]).model_dump(mode="json")
    except ValidationError as error:
        yield from (Difference(name, *violation) for violation in violations(error))
        return
    own = manifest.model_dump(mode="json")
    pairs = {each: (own[each], report.get(each)) for each in SHARED_WITH_REPORT}
    pairs["recipe"] = (manifest.name, report["recipe"])
    pairs["licence"] = (manifest.licences.model, report.get("licence"))
    pairs["artifact.sha256"] = (manifest.files[manifest.model].sha256, report["artifact"]["sha256"])
    for aspect, (expected, got) in pairs.items():
        if expected != got:
            yield Difference(name, aspect, f"the manifest's {brief(expected)}", brief(got))
