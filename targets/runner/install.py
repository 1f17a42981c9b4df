"""Install a release on the device: verified, tried on what it answered before, then switched to; and the way back.

Rule: `current` never points to what was not verified and tried on this device just before. Devices carry this file:
Python 3.8, standard library and NumPy only.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Dict, Optional

import numpy as np

from targets.errors import DeviceError
from targets.runner.inference import infer_samples
from targets.runner.job import Installation, Job, name_array
from targets.runner.releases import (
    CURRENT,
    INCOMING,
    MANIFEST,
    current_of,
    history_of,
    holding,
    prune,
    put_in_place,
    replaced_by,
    switch_to,
    unpack,
    verify,
    versions_of,
)
from targets.target import Arrays

RELEASE_FILE = "release.zip"
SMOKE = "smoke"
"""Folder beside the files of a release: what it was asked, and what it must answer."""
SMOKE_JOB = "job.json"


@dataclass(frozen=True)
class Smoke:
    """How a model's answers compare with those that were recorded."""

    samples: int
    is_equal: bool
    """To the last bit."""
    largest_difference: float
    """As a share of the largest recorded value."""


def install(job: Job, folder: Path) -> Dict[str, object]:
    """Unpack, verify and try the pushed release, then make it current; what was current stays so until then.

    Raises:
        DeviceError: digests differ, no room, another install runs, or the model answers otherwise than recorded.
        ModelRefused: the runtime refuses the model.
    """
    asked = _asked(job)
    home = _home(asked)
    with holding(home):
        incoming = home / (INCOMING + job.nonce)
        try:
            unpack(folder / RELEASE_FILE, asked.sha256, incoming)
            _record_smoke(job, folder, incoming / SMOKE)
            smoke = _try_out(incoming, asked.version)
            put_in_place(incoming, home / asked.version)
            switch = switch_to(home, asked.version, "install")
        except OSError as error:
            raise DeviceError(
                f"{error.filename or home}: expected to install {asked.version}; got {error.strerror}; what was "
                "current still is; free some room, or allow writing there"
            ) from error
        finally:
            shutil.rmtree(str(incoming), ignore_errors=True)
        prune(home, asked.keep)
        return {"switch": asdict(switch), "smoke": asdict(smoke), "path": str(home / CURRENT)}


def rollback(job: Job, folder: Path) -> Dict[str, object]:
    """Make an earlier release current again, after verifying and trying it.

    Raises:
        DeviceError: there is none, it is damaged, or it no longer answers as recorded.
        ModelRefused: the runtime refuses the model.
    """
    asked = _asked(job)
    home = _home(asked)
    with holding(home):
        version = asked.version or _version_before(home)
        if version not in versions_of(home):
            listed = ", ".join(versions_of(home)) or "no release at all"
            raise DeviceError(f"{home}: expected one of {listed}; got {version!r}; name one that is installed")
        verify(home / version)
        smoke = _try_out(home / version, version)
        switch = switch_to(home, version, "rollback")
        return {"switch": asdict(switch), "smoke": asdict(smoke), "path": str(home / CURRENT)}


def list_releases(job: Job, folder: Path) -> Dict[str, object]:
    """Return what is installed: of each name its versions, the current one, and its history."""
    root = Path(_asked(job).root).expanduser()
    homes = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    found = [
        {
            "name": home.name,
            "current": current_of(home),
            "versions": versions_of(home),
            "history": [asdict(switch) for switch in history_of(home)],
        }
        for home in homes
    ]
    return {"releases": found}


def _asked(job: Job) -> Installation:
    assert job.release is not None, job.action
    return job.release


def _home(asked: Installation) -> Path:
    return Path(asked.root).expanduser() / asked.name


def _version_before(home: Path) -> str:
    """Return what the current release replaced."""
    stack = replaced_by(home)
    current: Optional[str] = current_of(home)
    earlier = stack[: stack.index(current)] if current in stack else stack
    if not earlier:
        got = f"only {current}" if current else "none installed"
        raise DeviceError(f"{home}: expected an earlier release to go back to; got {got}; deploy one first")
    return earlier[-1]


def _record_smoke(job: Job, folder: Path, smoke: Path) -> None:
    """Keep what was recorded beside the release, so that a way back can be tried too."""
    smoke.mkdir()
    names = [name_array("feed", index) for index in range(len(job.feeds))]
    names += [name_array("output", index) for index in range(len(_asked(job).outputs))]
    for name in names:
        shutil.copyfile(str(folder / name), str(smoke / name))
    (smoke / SMOKE_JOB).write_text(replace(job, nonce="").to_json(), encoding="utf-8")


def _try_out(folder: Path, version: str) -> Smoke:
    """Infer on the recorded inputs, and compare."""
    smoke = folder / SMOKE
    try:
        job = Job.from_json((smoke / SMOKE_JOB).read_text(encoding="utf-8"))
        model = str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["model"])
        feeds = {name: np.load(str(smoke / name_array("feed", i))) for i, name in enumerate(job.feeds)}
        recorded = {name: np.load(str(smoke / name_array("output", i))) for i, name in enumerate(_asked(job).outputs)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{version}/{SMOKE}: expected what was recorded; got {error}; deploy it again") from error
    found = infer_samples(job.target.open(folder / model, job.options), feeds, job.processing)
    return compare_answers(version, recorded, found, _asked(job).tolerance)


def compare_answers(version: str, recorded: Arrays, found: Arrays, tolerance: float) -> Smoke:
    """Compare each output with the recorded one.

    Args:
        version: what an error is about.
        tolerance: largest difference, as a share of the largest recorded absolute value of that output.

    Raises:
        DeviceError: an output is missing, of another shape, not finite where the recorded is, or too far away.
    """
    largest, is_equal = 0.0, True
    for name, expected in recorded.items():
        where = f"{version}: smoke test: output {name!r}"
        got = found.get(name)
        if got is None or got.shape != expected.shape:
            text = "no such output" if got is None else f"shape {got.shape}"
            raise DeviceError(f"{where}: expected shape {expected.shape}; got {text}; what was current still is")
        scale = float(np.abs(expected.astype(np.float64)).max(initial=0.0)) or 1.0
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0) / scale
        if not difference <= tolerance:  # NaN is none
            raise DeviceError(
                f"{where}: expected the recorded answers within {tolerance:.2%} of the largest; got {difference:.2%}; "
                "what was current still is; see whether runtime or driver changed since the measurement"
            )
        largest, is_equal = max(largest, float(difference)), is_equal and np.array_equal(got, expected)
    return Smoke(max((len(array) for array in recorded.values()), default=0), is_equal, largest)
