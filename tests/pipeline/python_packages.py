"""Wheels and plain archives of releases, unpacked, and the Python packages in them."""

import importlib
import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from pipeline.release.payload import Package, Payload


def unpack(content: bytes, folder: Path) -> Path:
    """Unpack a zip archive or a wheel, and return the folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return folder


@contextmanager
def imported(package: Package, folder: Path, module: str) -> Iterator[ModuleType]:
    """Import the package of a wheel out of a folder, and forget it afterwards."""
    sys.path.insert(0, str(unpack(package.files[package.archive], folder)))
    try:
        yield importlib.import_module(module)
    finally:
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            del sys.modules[name]


def golden_images(payload: Payload) -> np.ndarray:
    """Return the golden inputs, uint8 NHWC."""
    golden = payload.golden
    return np.frombuffer(payload.files[golden.inputs.file], np.uint8).reshape(golden.inputs.shape)
