"""A bill of materials held against the manifest beside it. Rule: what it says, not how a library wrote it."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import BaseModel, Field, JsonValue, ValidationError

from pipeline.release.archive import parse_time
from pipeline.release.bill import BILL, MODEL, TEACHER
from pipeline.release.bill_model_card import DATA
from pipeline.release.licences import same_licence
from pipeline.release.manifest import Manifest
from pipeline.release.packing import Difference
from pipeline.release.text import brief, violations


def check_bill(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Difference]:
    """Compare: is it a bill of this model, of this time, and does it name the licences that the manifest names?

    Args:
        manifest: of the archive.
        files: of the archive, by path.
    """
    place = manifest.evidence + BILL
    if place not in files:
        yield Difference(place, "presence", "a bill of materials", "none")
        return
    try:
        bill = _Bill.model_validate_json(files[place])
    except ValidationError as error:
        yield from (Difference(place, *violation) for violation in violations(error))
        return
    about = bill.metadata.component
    pairs: dict[str, tuple[object, object]] = {
        "format": (("CycloneDX", "1.6"), (bill.format, bill.spec_version)),
        "name": (manifest.name, about.name),
        "version": (manifest.version, about.version),
        "sha256 of the model": (manifest.files[manifest.model].sha256, about.sha256()),
        "time": (parse_time(manifest.created_at), _time(bill.metadata.timestamp)),
    }
    for aspect, (expected, got) in pairs.items():
        if expected != got:
            yield Difference(place, aspect, f"the manifest's {brief(str(expected))}", brief(str(got)))
    found = {each.ref: each.licence() for each in (about, *bill.components)}
    licences = manifest.licences
    for ref, licence in ((MODEL, licences.model), (TEACHER, licences.teacher), (DATA, licences.data)):
        if not same_licence(licence, got := found.get(ref)):
            yield Difference(place, f"licence of {ref}", f"the manifest's {brief(licence)}", brief(got))


class _Hash(BaseModel):
    alg: str
    content: str


class _Licence(BaseModel):
    """A licence as CycloneDX has it: id or name of one, or an expression."""

    license: dict[str, JsonValue] = {}
    expression: str | None = None


class _Component(BaseModel):
    ref: str = Field(alias="bom-ref")
    name: str
    version: str | None = None
    hashes: tuple[_Hash, ...] = ()
    licenses: tuple[_Licence, ...] = ()

    def sha256(self) -> str | None:
        return next((each.content for each in self.hashes if each.alg == "SHA-256"), None)

    def licence(self) -> str | None:
        for each in self.licenses:
            text = each.expression or each.license.get("id") or each.license.get("name")
            return str(text)
        return None


class _Metadata(BaseModel):
    timestamp: str
    component: _Component


class _Bill(BaseModel):
    """What is compared of a bill; the rest is the library's and the schema's."""

    format: str = Field(alias="bomFormat")
    spec_version: str = Field(alias="specVersion")
    metadata: _Metadata
    components: tuple[_Component, ...] = ()


def _time(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except ValueError:
        return None
