"""The bill of materials of a release: CycloneDX 1.6 for machine learning, JSON. Rule: made from the manifest alone.

The same manifest gives the same bytes: time and serial number follow from it. What the library (cyclonedx-python-lib
11) has no class for, the model card, is in bill_model_card.py and is put in as JSON.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from pydantic import JsonValue

from pipeline.release.archive import parse_time
from pipeline.release.bill_model_card import DATA, model_card
from pipeline.release.licences import DISTRIBUTIONS
from pipeline.release.manifest import Manifest, canonical_json

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

BILL = "bom.cdx.json"
MODEL, TEACHER = "model", "teacher"
"""With DATA what components refer to each other by."""
SERIAL_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom-1.6.schema.json")
"""Namespace of serial numbers, which are digests of what they number."""


@dataclass(frozen=True)
class Library:
    """Software that a package needs beside the model."""

    name: str
    version: str
    """One version, or the range that the package asks for."""
    purl: str
    """Package URL without a version: pkg:maven/com.microsoft.onnxruntime/onnxruntime-android."""
    licence: str | None


def make_bill(manifest: Manifest, libraries: Sequence[Library] | None = None) -> bytes:
    """Return bom.cdx.json of a release; or of a platform's package, which has libraries of its own.

    Args:
        manifest: of whose files only the model's need be listed yet.
        libraries: what a package depends on; the runtime that the release was measured with if left out.
    """
    from cyclonedx.output.json import JsonV1Dot6

    bom = _components(manifest, [_runtime(manifest)] if libraries is None else libraries)
    table: dict[str, JsonValue] = json.loads(JsonV1Dot6(bom).output_as_string())
    described = table["metadata"]
    assert isinstance(described, dict)
    component = described["component"]
    assert isinstance(component, dict)
    component["modelCard"] = model_card(manifest)
    del table["serialNumber"]
    number = uuid.uuid5(SERIAL_NAMES, canonical_json(table).decode())
    return canonical_json({**table, "serialNumber": f"urn:uuid:{number}"})


def _components(manifest: Manifest, libraries: Sequence[Library]) -> "Bom":
    """Return the model with what it was made from, what it runs on, and what depends on what."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    model, data = _model(manifest), _data(manifest)
    teachers = [_teacher(manifest, index) for index in range(len(manifest.card.teachers))]
    needed = [_library(each) for each in libraries]
    tool = Component(name="edgeproof", version=metadata.version("edgeproof"), type=ComponentType.APPLICATION)
    about = BomMetaData(
        component=model, timestamp=parse_time(manifest.created_at), tools=ToolRepository(components=(tool,))
    )
    bom = Bom(components=(data, *teachers, *needed), metadata=about, serial_number=SERIAL_NAMES)
    bom.register_dependency(model, needed)
    for teacher in teachers:
        bom.register_dependency(teacher, (data,))
    return bom


def _model(manifest: Manifest) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    said = {
        "deployment": manifest.deployment,
        "platform": manifest.platform,
        "precision": manifest.precision,
        "verdict": manifest.verdict.value,
        "runtime": f"{manifest.runtime.target} {manifest.runtime.version}",
        "device": manifest.runtime.device,
        "latency protocol": manifest.latency.protocol if manifest.latency else "not measured",
        **{f"lineage:{name}": digest for name, digest in manifest.lineage.items()},
    }
    return Component(
        name=manifest.name,
        version=manifest.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL,
        description=manifest.card.description,
        licenses=_licences(manifest.licences.model),
        hashes=_sha256(manifest.files[manifest.model].sha256),
        properties=_properties({**said, **_said_licence(manifest.licences.model)}),
    )


def _data(manifest: Manifest) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    facts = manifest.card.data
    counts = f"{facts.train_images} training, {facts.validation_images} validation and {facts.test_images} test images"
    digest = {"digest": manifest.lineage.get("data", "unknown")}  # of content in a canonical form: no file's
    return Component(
        name=facts.name,
        type=ComponentType.DATA,
        bom_ref=DATA,
        description=f"{counts}, {facts.classes} classes",
        licenses=_licences(manifest.licences.data),
        properties=_properties({**digest, **_said_licence(manifest.licences.data)}),
    )


def _teacher(manifest: Manifest, index: int) -> "Component":
    """Return a teacher's weights; the lineage has the digest of the first one's."""
    from cyclonedx.model.component import Component, ComponentType

    teacher, is_first = manifest.card.teachers[index], index == 0
    return Component(
        name=teacher.architecture,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=TEACHER if is_first else f"{TEACHER} {index + 1}",
        description=f"weights of the teacher, {teacher.origin}",
        licenses=_licences(manifest.licences.teacher),
        hashes=_sha256(manifest.lineage.get("teacher") if is_first else None),
        properties=_properties(_said_licence(manifest.licences.teacher)),
    )


def _runtime(manifest: Manifest) -> Library:
    name = DISTRIBUTIONS.get(manifest.runtime.target, manifest.runtime.target)
    licence = manifest.licences.dependencies.get(name)
    return Library(name, manifest.runtime.version, f"pkg:pypi/{name}", licence)


def _library(library: Library) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    is_one = library.version.replace(".", "").isalnum()
    asked = {} if is_one else {"versions": library.version}
    purl = PackageURL.from_string(f"{library.purl}@{library.version}" if is_one else library.purl)
    return Component(
        name=library.name,
        group=purl.namespace,
        version=library.version if is_one else None,
        type=ComponentType.LIBRARY,
        bom_ref=library.purl,
        purl=purl,
        licenses=_licences(library.licence),
        properties=_properties({**asked, **_said_licence(library.licence)}),
    )


def _licences(text: str | None) -> "tuple[License, ...]":
    """Return a licence: one of SPDX's or an expression where it is that, else a name; none where nobody said."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    return () if text is None else (LicenseFactory().make_from_string(text),)


def _said_licence(text: str | None) -> dict[str, str]:
    """Return what there is to say where nobody said a licence: CycloneDX has no word for it."""
    return {"licence": "unknown"} if text is None else {}


def _sha256(digest: str | None) -> "tuple[HashType, ...]":
    from cyclonedx.model import HashAlgorithm, HashType

    return () if digest is None else (HashType(alg=HashAlgorithm.SHA_256, content=digest),)


def _properties(said: dict[str, str]) -> "tuple[Property, ...]":
    from cyclonedx.model import Property

    return tuple(Property(name=f"edgeproof:{name}", value=value) for name, value in said.items())
