"""What jetson_release (jetson-stats) prints of a board. Rule: what it calls missing is absent, not a version.

Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional

from targets.errors import LogRefused

LINE = re.compile(r"^\s*-?\s*([\w ./]+?)(?:\[(\d+)\])?\s*:\s*(.*\S)\s*$")
LIBRARIES = ("CUDA", "cuDNN", "TensorRT", "VPI", "Vulkan", "OpenCV")
ABSENT = re.compile(r"missing|not installed|n/a|none", re.IGNORECASE)


@dataclass(frozen=True)
class JetsonRelease:
    """A board as jetson_release describes it."""

    libraries: Mapping[str, str] = field(default_factory=dict)
    """Versions by name; those that are not installed are absent."""
    model: Optional[str] = None
    module: Optional[str] = None
    l4t: Optional[str] = None
    jetpack: Optional[str] = None
    """None where the board's packages do not tell."""
    power_mode: Optional[str] = None
    distribution: Optional[str] = None


def parse_jetson_release(text: str) -> JetsonRelease:
    """Read its text; raises LogRefused where it names neither L4T nor a library."""
    fields: Dict[str, str] = {}
    for line in text.splitlines():
        found = LINE.match(line)
        if found is not None and not ABSENT.search(found.group(3)):
            fields.setdefault(found.group(1).strip().lower(), found.group(3))
    libraries = {name: fields[name.lower()].split(" ")[0] for name in LIBRARIES if name.lower() in fields}
    if not libraries and "l4t" not in fields:
        raise LogRefused("jetson_release: expected L4T or versions of CUDA and TensorRT; got neither")
    return JetsonRelease(
        libraries,
        model=fields.get("model"),
        module=fields.get("module"),
        l4t=fields.get("l4t"),
        jetpack=fields.get("jetpack"),
        power_mode=fields.get("nv power mode"),
        distribution=fields.get("distribution"),
    )
