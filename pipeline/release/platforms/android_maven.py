"""A folder that Gradle and Maven take as a repository. Rule: laid out as https://maven.apache.org/repositories/layout.html.

Every file has its checksums beside it. They tell accidents, not tampering: Gradle takes a changed file from a folder
without a word, which is why the wrapper checks for itself.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

CHECKSUMS = ("md5", "sha1", "sha256", "sha512")


@dataclass(frozen=True)
class Coordinates:
    """What names an artifact: GROUP:ARTIFACT:VERSION."""

    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def folder(self) -> str:
        """Folder of all versions, with a slash at its end."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/"

    def file(self, ending: str) -> str:
        """Return the path of a file of this version, as `.aar` or `-sources.jar` ends it."""
        return f"{self.folder}{self.version}/{self.artifact}-{self.version}{ending}"


def maven_tree(coordinates: Coordinates, contents: Mapping[str, bytes], created_at: datetime) -> dict[str, bytes]:
    """Return the repository's files by path, checksums included.

    Args:
        coordinates: of the artifact.
        contents: files of the version by how they end: `.aar`, `.pom`, `-sources.jar`.
        created_at: UTC, of the release.
    """
    files = {coordinates.file(ending): content for ending, content in contents.items()}
    files[f"{coordinates.folder}maven-metadata.xml"] = _metadata(coordinates, created_at)
    sums = {
        f"{path}.{name}": hashlib.new(name, content, usedforsecurity=False).hexdigest().encode()
        for path, content in files.items()
        for name in CHECKSUMS
    }
    return files | sums


def _metadata(coordinates: Coordinates, created_at: datetime) -> bytes:
    """Return the list of versions, of which this release knows its own; a real repository keeps a list of its own."""
    version = coordinates.version
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<metadata>
  <groupId>{coordinates.group}</groupId>
  <artifactId>{coordinates.artifact}</artifactId>
  <versioning>
    <latest>{version}</latest>
    <release>{version}</release>
    <versions>
      <version>{version}</version>
    </versions>
    <lastUpdated>{created_at:%Y%m%d%H%M%S}</lastUpdated>
  </versioning>
</metadata>
""".encode()
