"""The runner as one zip application, built on demand from the sources of the floors that it carries.

Rule: the same sources give the same bytes, on any host: fixed times, sorted names, nothing compressed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Iterator, Tuple

import calibration
import targets

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""

ENTRY = "import sys\nfrom targets.runner.main import main\nsys.exit(main(sys.argv[1:]))\n"


def list_carried() -> Iterator[Tuple[str, Path]]:
    """Yield the name in the bundle and the file of every module that devices carry: all but `targets/devices`."""
    for package in (calibration, targets):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            if not name.startswith("targets/devices/"):
                yield name, path


@lru_cache(maxsize=1)
def build_runner() -> bytes:
    """Return the zip application's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
        bundle.writestr(_describe("__main__.py"), ENTRY)
        for name, path in list_carried():
            bundle.writestr(_describe(name), path.read_bytes())
    return buffer.getvalue()


def name_runner(content: bytes) -> str:
    """Return the file name on a device: it holds the digest, so that versions never mix."""
    return f"runner-{hashlib.sha256(content).hexdigest()}.pyz"


def _describe(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix, whatever the host
    info.external_attr = 0o644 << 16
    return info
