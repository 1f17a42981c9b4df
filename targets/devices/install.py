"""The host's side of releases on a device: install, go back, list. Rule: the device verifies, tries and switches."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Literal, Mapping, Optional, Tuple

import numpy as np

from targets.devices.device import Device, Task, narrow
from targets.devices.outcome import Result
from targets.null import Null
from targets.processing import Processing
from targets.runner.install import RELEASE_FILE, Smoke
from targets.runner.job import Installation, name_array
from targets.runner.releases import Switch
from targets.target import RunOptions, Target


@dataclass(frozen=True)
class Archive:
    """A packaged release on this machine."""

    path: Path
    sha256: str
    name: str
    """Under which one release is current on a device."""
    version: str

    @property
    def folder(self) -> str:
        """Return what its folder on a device is called: no two releases share it."""
        return f"{self.version}-{self.sha256[:12]}"


@dataclass(frozen=True)
class Recording:
    """What a model was asked, and what it answered where it was measured."""

    feeds: Mapping[str, np.ndarray]
    """uint8 images (N, H, W, C) under the input's name, with `processing`; else the input's own values."""
    outputs: Mapping[str, np.ndarray]
    processing: Optional[Processing] = None
    tolerance: float = 0.0
    """How far an answer may be from the recorded one, as a share of that output's largest."""


@dataclass(frozen=True)
class Installed:
    """A release that is current on a device."""

    device: str
    path: str
    """The link to it, on the device."""
    switch: Switch
    smoke: Smoke


@dataclass(frozen=True)
class OnDisk:
    """What a device has under one name."""

    name: str
    current: Optional[str]
    versions: Tuple[str, ...]
    history: Tuple[Switch, ...] = field(default=())


def install_release(
    device: Device, target: Target, options: RunOptions, archive: Archive, recording: Recording
) -> Installed:
    """Install a release on a device and switch to it, after its model answered there as recorded.

    Raises:
        DeviceError: digests, room, permissions, or other answers than recorded: what was current still is.
        ModelRefused: the runtime refuses the model; the same holds.
    """
    with tempfile.TemporaryDirectory(prefix="recorded-") as name:
        recorded: Dict[str, Path] = {}
        for index, array in enumerate(recording.outputs.values()):
            recorded[name_array("output", index)] = Path(name) / name_array("output", index)
            np.save(recorded[name_array("output", index)], array)
        task = Task(
            "install",
            narrow(target),
            options,
            device.job_timeout_s,
            str(archive.path),
            push={RELEASE_FILE: archive.path, **recorded},
            feeds=recording.feeds,
            processing=recording.processing,
            release=Installation(
                device.releases,
                archive.name,
                archive.folder,
                archive.sha256,
                tuple(recording.outputs),
                recording.tolerance,
            ),
        )
        return _read_installed(device, device.perform(task)[0])


def roll_back(device: Device, name: str, version: str = "") -> Installed:
    """Make an earlier release current again; without a version, what the current one replaced.

    Raises:
        DeviceError: there is none, it is damaged, or no longer answers as recorded: what was current still is.
    """
    asked = Installation(device.releases, name, version)
    return _read_installed(device, device.perform(_about_releases(device, "rollback", asked))[0])


def list_installed(device: Device) -> List[OnDisk]:
    """Return what a device has installed, in order of names."""
    task = _about_releases(device, "list_releases", Installation(device.releases))
    found = device.perform(task)[0]["releases"]
    assert isinstance(found, list)
    return [
        OnDisk(
            each["name"],
            each["current"],
            tuple(each["versions"]),
            tuple(Switch(**switch) for switch in each["history"]),
        )
        for each in found
    ]


def _about_releases(device: Device, action: Literal["rollback", "list_releases"], asked: Installation) -> Task:
    """Return a job that needs no runtime of its own: a release names the one that it is tried with."""
    where = f"device {device.name!r}"
    return Task(action, Null(), RunOptions(), device.job_timeout_s, where, release=asked)


def _read_installed(device: Device, result: Result) -> Installed:
    switch, smoke = result["switch"], result["smoke"]
    assert isinstance(switch, dict)
    assert isinstance(smoke, dict)
    return Installed(device.name, str(result["path"]), Switch(**switch), Smoke(**smoke))
