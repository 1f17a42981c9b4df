"""A job: what the host asks of a device, as one JSON file in a folder of its own.

Rule: everything that crosses is declared here; devices carry this file (Python 3.8). The answer is `result.json`,
written last, and counts only with the job's nonce.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Literal, Mapping, Optional, Tuple

from targets import TARGETS, AnyTarget
from targets.processing import Processing
from targets.target import RunOptions

Action = Literal["probe", "compile", "inspect", "infer", "profile", "compare", "install", "rollback", "list_releases"]

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
MODEL_FILE = "model.onnx"
ARTIFACT_FILE = "artifact"
PROGRESS = "edgeproof-progress"
"""First word of a line on stderr; two numbers follow: samples done, samples in all."""


@dataclass(frozen=True)
class ProfileRequest:
    """What to sample, and how much of it."""

    scope: Literal["model", "end_to_end"] = "model"
    """`model`: inference alone; `end_to_end`: from uint8 image to labels and scores, which needs `processing`."""
    num_samples: int = 512
    max_seconds: float = 60.0
    """Sampling stops here at the latest, also short of `num_samples`; at least one sample is taken."""
    shapes: Mapping[str, Tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs whose dimensions the model leaves open; an open dimension is 1 otherwise."""
    processing: Optional[Processing] = None
    seed: int = 0
    """Of the inputs' values."""
    mode: Literal["burst", "sustained", "cold_start", "throughput"] = "burst"
    """`cold_start`: one sample, from the start of the process to the end of its first inference; `throughput`: each
    inference while `streams` infer at once; else one inference after the other, once they are steady."""
    streams: int = 1
    start_below_c: Optional[float] = None
    """Wait until the device is cooler than so many degrees."""
    cool_down_seconds: float = 0.0
    """How long at most."""
    energy_seconds: float = 0.0
    """How long to rest, and then to infer, reading power, where the device has a sensor of it; 0: not at all."""


@dataclass(frozen=True)
class Installation:
    """A release, where it goes on the device, and what its model must answer there."""

    root: str
    """Folder of all releases on the device; `~` is the user's home."""
    name: str = ""
    """Of the release: one is current under each name."""
    version: str = ""
    """Folder of the release; for a `rollback` the one to go to, or empty: what the current one replaced."""
    sha256: str = ""
    """Of the archive."""
    outputs: Tuple[str, ...] = ()
    """Names of the outputs whose recorded values are in output_0.npy, output_1.npy, ..."""
    tolerance: float = 0.0
    """How far an answer may be from the recorded one, as a share of that output's largest."""
    keep: int = 3
    """Versions that stay installed, the current one included."""


@dataclass(frozen=True)
class Job:
    """One action on one model."""

    nonce: str
    action: Action
    target: AnyTarget
    options: RunOptions
    limit_s: float
    """The device ends the job after this time by itself, also where its host is gone."""
    feeds: Tuple[str, ...] = ()
    """Names of the inputs whose values are in feed_0.npy, feed_1.npy, ..."""
    processing: Optional[Processing] = None
    """How to preprocess the images that `feeds` holds, for `infer`."""
    request: ProfileRequest = field(default_factory=ProfileRequest)
    entrants: Tuple[RunOptions, ...] = ()
    """How each artifact of a `compare` runs: artifact_0, artifact_1, ..."""
    rounds: int = 1
    """How often a `compare` times them all, one after the other."""
    sensor_root: str = "/"
    """Where the device's /sys and /proc are, for its sensors alone."""
    release: Optional[Installation] = None
    """What to `install`, `rollback` or list."""

    def to_json(self) -> str:
        """Return the job file's text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        request = data["request"]
        request["shapes"] = {name: tuple(shape) for name, shape in request["shapes"].items()}
        request["processing"] = _read_processing(request["processing"])
        return cls(
            nonce=data["nonce"],
            action=data["action"],
            target=read_target(data["target"]),
            options=RunOptions(**data["options"]),
            limit_s=data["limit_s"],
            feeds=tuple(data["feeds"]),
            processing=_read_processing(data["processing"]),
            request=ProfileRequest(**request),
            entrants=tuple(RunOptions(**options) for options in data["entrants"]),
            rounds=data["rounds"],
            sensor_root=data["sensor_root"],
            release=_read_installation(data["release"]),
        )


def read_target(data: Dict[str, object]) -> AnyTarget:
    """Return the target whose fields these are."""
    target = next(target for target in TARGETS if target.kind == data["kind"])
    return target(**data)  # type: ignore[arg-type]  # the host wrote the fields of the same class


def name_array(role: Literal["feed", "output", "samples"], index: int) -> str:
    """Return the file of an array: names of tensors may hold any character."""
    return f"{role}_{index}.npy"


def name_entrant(index: int) -> str:
    """Return the file of an artifact that is compared with others."""
    return f"{ARTIFACT_FILE}_{index}"


def _read_installation(data: Optional[Dict[str, Any]]) -> Optional[Installation]:
    return None if data is None else Installation(**{**data, "outputs": tuple(data["outputs"])})


def _read_processing(data: Optional[Dict[str, object]]) -> Optional[Processing]:
    return None if data is None else Processing.from_json(json.dumps(data))
