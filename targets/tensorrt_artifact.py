"""TensorRT's artifact: one file, a line of JSON that says what the engine is tied to, and the engine behind it.

Rule: an engine is never given to TensorRT before its key and its digest were compared; wrong bytes crash the process.
Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

from targets.errors import ModelRefused

MAGIC = b"edgeproof-engine 1\n"
REBUILD = (
    "engines are tied to the device that built them: deploy to this one (edgeproof deploy), which builds the engine "
    "anew from the ONNX file and measures it again"
)


@dataclass(frozen=True)
class EngineKey:
    """What an engine is tied to, and how it was built."""

    tensorrt: str
    """Version of the builder."""
    architecture: str
    """Of the GPU: its compute capability, 8.7 for Orin."""
    gpu: str
    """Its name."""
    l4t: str
    """Version of Jetson Linux; `none` on other machines."""
    flags: Dict[str, str]
    """What the builder was told."""


@dataclass(frozen=True)
class Engine:
    """An engine, as bytes, with its key."""

    key: EngineKey
    content: bytes


def write_artifact(path: Path, engine: Engine) -> None:
    """Write an engine behind its header."""
    header = {
        "key": vars(engine.key),
        "sha256": hashlib.sha256(engine.content).hexdigest(),
        "size_bytes": len(engine.content),
    }
    line = json.dumps(header, sort_keys=True).encode("ascii")
    path.write_bytes(MAGIC + line + b"\n" + engine.content)


def read_artifact(path: Path) -> Optional[Engine]:
    """Return the engine of a file; None where the file is of another kind.

    Raises:
        ModelRefused: the file is damaged.
    """
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        return None
    line, _, engine = content[len(MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        key, digest, size_bytes = EngineKey(**header["key"]), header["sha256"], header["size_bytes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelRefused(
            f"{path.name}: expected the header of an engine; got something else ({type(error).__name__}); copy the "
            "file again"
        ) from error
    if len(engine) != size_bytes or hashlib.sha256(engine).hexdigest() != digest:
        raise ModelRefused(
            f"{path.name}: expected an engine of {size_bytes} bytes with sha256 {digest}; got {len(engine)} others: "
            "the file is damaged; copy it again"
        )
    return Engine(key, engine)


def require_same(path: Path, built: EngineKey, here: EngineKey) -> None:
    """Raise ModelRefused where an engine was built elsewhere, or otherwise than it is asked for; name every difference.

    The GPU's name does not count: boards with one architecture run each other's engines, if not as fast.
    """
    words = {"tensorrt": "TensorRT", "architecture": "GPU architecture", "l4t": "L4T"}
    differences: List[str] = [
        f"{word} {getattr(built, name)} (here {getattr(here, name)})"
        for name, word in words.items()
        if getattr(built, name) != getattr(here, name)
    ]
    differences += [
        "{} = {} (asked for: {})".format(name, built.flags.get(name, "not said"), here.flags.get(name, "not said"))
        for name in sorted({**built.flags, **here.flags})
        if built.flags.get(name) != here.flags.get(name)
    ]
    if differences:
        raise ModelRefused(
            "{}: expected an engine that was built on this device; got one built with {}; {}".format(
                path.name, ", ".join(differences), REBUILD
            )
        )
