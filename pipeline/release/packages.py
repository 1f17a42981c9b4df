"""Packages for apps: made by a platform from a verified release, verified again, and written as a whole.

Rule: from the release alone, so that the same archive and key give the same bytes, wherever and whenever.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import sync
from pipeline.errors import UsageError
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms import AnyPlatform
from pipeline.release.signing import SigningKey
from pipeline.release.verify import verify_bytes
from targets.errors import EdgeproofError

RUNTIME = "onnxruntime"
"""What packages load models with: kind of the target whose releases can be packaged."""


@dataclass(frozen=True)
class Overhead:
    """What a package adds to the bare model."""

    model_bytes: int
    archive_bytes: int

    @property
    def added_bytes(self) -> int:
        """Of the archive that app teams get."""
        return self.archive_bytes - self.model_bytes


def make_package(platform: AnyPlatform, payload: Payload, key: SigningKey | None = None) -> Package:
    """Return a platform's package, the archive of which was verified once more.

    Raises:
        EdgeproofError: the release is a package itself, is of another runtime, or cannot be packaged for the platform.
    """
    manifest = payload.manifest
    where = f"{manifest.name} {manifest.version} of {manifest.deployment}"
    if manifest.platform != "any":
        raise EdgeproofError(
            f"{where}: expected the release itself; got the package for {manifest.platform}; give the release's archive"
        )
    if manifest.runtime.target != RUNTIME:
        raise EdgeproofError(
            f"{where}: expected a release of {RUNTIME}, which packages load models with; got one of "
            f"{manifest.runtime.target}; package a deployment of {RUNTIME}"
        )
    if refusal := platform.refusal(manifest.name, manifest.version):
        raise EdgeproofError(f"{where}: {platform.kind}: {refusal}")
    package = platform.package(payload, key)
    verification = verify_bytes(package.files[package.archive], key.public if key else None)
    assert verification.ok, [str(difference) for difference in verification.differences]
    return package


def overhead(package: Package, payload: Payload) -> Overhead:
    """Return what the package's archive adds to the bare model."""
    return Overhead(len(payload.model), len(package.files[package.archive]))


def write_package(package: Package, folder: Path, *, is_ours: bool) -> None:
    """Write a package's files to `folder`, which never holds a part of them.

    Args:
        package: what is written.
        folder: it is replaced where it is ours, and must be absent or empty where not.
        is_ours: whether nobody else keeps anything there.

    Raises:
        UsageError: there is something in a folder that is not ours.
        OSError: it cannot be written.
    """
    if not is_ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new or an empty folder; got one with files; name another with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, content in sorted(package.files.items()):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        _replace(folder, partial)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(folder: Path, partial: Path) -> None:
    earlier = folder.with_name(f".{folder.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if folder.exists():
        folder.rename(earlier)
    partial.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
