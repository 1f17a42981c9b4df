"""What a platform's package is made of, and what it is. Rule: a verified release, and nothing of the machine.

A platform (`pipeline/release/platforms/`) turns a Payload into a Package, with `seal` for the one archive in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.release.bill import Library
from pipeline.release.golden import Golden, read_golden
from pipeline.release.manifest import GOLDEN, LABELS, README, REPORT_PAGE, Manifest
from pipeline.release.signing import Signer
from pipeline.release.verify import open_release

LEFT_OUT = (README, REPORT_PAGE)
"""Files of a release that are about the release as it was packed: a package has a README of its own."""


@dataclass(frozen=True)
class Payload:
    """A verified release in memory: all that a platform's package is made of."""

    manifest: Manifest
    files: Mapping[str, bytes]
    """Every file of the release by name, without manifest.json and attestation."""

    @property
    def model(self) -> bytes:
        """What the runtime loads."""
        return self.files[self.manifest.model]

    @property
    def golden(self) -> Golden:
        """What the model was asked on its device, and what it answered."""
        return read_golden(self.files)

    @property
    def for_wrappers(self) -> dict[str, bytes]:
        """What a wrapper reads at run time, by name beside the manifest: labels.txt, golden.json and its arrays."""
        return {name: content for name, content in self.files.items() if _is_for_wrappers(name)}

    @property
    def evidence(self) -> dict[str, bytes]:
        """What people and `edgeproof verify` read: report.json, bill of materials, model card, ..., by name."""
        placed = {*self.for_wrappers, self.manifest.model, *LEFT_OUT}
        return {name: content for name, content in self.files.items() if name not in placed}

    def placed(self, *, model: str, root: str, evidence: str) -> dict[str, bytes]:
        """Return what every package carries of the release, by path in its archive.

        Args:
            model: path of the model.
            root: folder of manifest, labels and golden answers: "" or ending with a slash.
            evidence: folder of everything else.
        """
        return {
            model: self.model,
            **{root + name: content for name, content in self.for_wrappers.items()},
            **{evidence + name: content for name, content in self.evidence.items()},
        }


@dataclass(frozen=True)
class Package:
    """What one platform gets."""

    platform: str
    files: Mapping[str, bytes]
    """The folder that is written, by relative path: e.g. the Maven tree."""
    archive: str
    """The one file of `files` that app teams get and `edgeproof verify` takes."""
    use: str
    """One line that adds it to an app."""
    limits: tuple[str, ...]
    """What was not executed or not measured, in words."""
    libraries: tuple[Library, ...]
    """What an app that adds it gets with it."""


class Platform(Protocol):
    """A kind of package: fields are what the recipe may say of it."""

    @property
    def kind(self) -> str:
        """The word that names it in a recipe and behind --for."""
        ...

    def refusal(self, name: str, version: str) -> str | None:
        """Return why a recipe's name or version cannot be packaged, as `expected ...; got ...; what to do`."""
        ...

    def package(self, payload: Payload, signer: Signer | None) -> Package:
        """Return the package: the same bytes for the same payload and key, wherever and whenever."""
        ...


def read_payload(path: Path) -> Payload:
    """Return a release that is as it was packed.

    Raises:
        EdgeproofError: it is not; with every difference.
    """
    opened = open_release(path)
    return Payload(opened.manifest, {name: opened.files[name] for name in opened.manifest.files})


def _is_for_wrappers(name: str) -> bool:
    return name in (LABELS, GOLDEN) or name.startswith("golden/")
