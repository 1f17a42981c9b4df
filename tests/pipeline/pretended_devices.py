"""Devices that work in this process, each with a folder of its own, and can be told to fail at one action."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from targets.devices.device import Device
from targets.devices.inventory import DeviceEntry, Inventory
from targets.devices.stop import Stop
from targets.devices.transport import Completed
from targets.errors import DeviceError
from targets.runner.install import RELEASE_FILE
from targets.runner.job import JOB_FILE, RESULT_FILE, Job
from targets.runner.main import ACTIONS

LOST = "expected the job to finish; got no trace of its end: the device lost power"
FULL = "expected room on the device; got: No space left on device (0.1 MB are free)"
SILENT = "expected an answer within 10 s; got none"


@dataclass
class Faults:
    """What goes wrong, by the device's name."""

    loses_power_at: dict[str, str] = field(default_factory=dict)
    """Action in the middle of which it is gone."""
    is_full: tuple[str, ...] = ()
    """Has no room for a release."""
    answers_wrong: tuple[str, ...] = ()
    is_silent: tuple[str, ...] = ()
    """Does not answer at all."""


@dataclass
class Bench:
    """Opens devices under one folder, and lists every action that was begun, in order: (device, action)."""

    folder: Path
    faults: Faults
    begun: list[tuple[str, str]] = field(default_factory=list)

    def open_one(self, name: str, work: Path, inventory: Inventory, say: Callable[[str], None], stop: Stop) -> Device:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        entry = DeviceEntry(host=name)
        return Device(name, partial(Pretended, self, name, home), releases=str(home / "releases"), entry=entry)


class Pretended:
    """A transport whose device is this process."""

    def __init__(self, bench: Bench, name: str, home: Path) -> None:
        self._bench, self._name, self._home = bench, name, home
        self._job: Job | None = None

    def __enter__(self) -> "Pretended":
        if self._name in self._bench.faults.is_silent:
            raise DeviceError(f"device {self._name!r}: {SILENT}")
        self._folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._home))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder)

    def push(self, local: Path, remote_name: str, *, is_kept: bool = False) -> None:
        if remote_name == RELEASE_FILE and self._name in self._bench.faults.is_full:
            raise DeviceError(f"device {self._name!r}: {FULL}")
        shutil.copyfile(local, self._folder / remote_name)

    def run(
        self, arguments: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:
        job = self._job = Job.from_json((self._folder / JOB_FILE).read_text())
        self._bench.begun.append((self._name, job.action))
        if self._bench.faults.loses_power_at.get(self._name) == job.action:
            raise DeviceError(f"device {self._name!r}: {LOST}")
        result = ACTIONS[job.action](job, self._folder)
        (self._folder / RESULT_FILE).write_text(json.dumps({"nonce": job.nonce, **result}))
        return Completed(0, ())

    def pull(self, remote_name: str, local: Path) -> bool:
        source = self._folder / remote_name
        if not source.exists():
            return False
        shutil.copyfile(source, local)
        if remote_name.startswith("output") and self._name in self._bench.faults.answers_wrong:
            np.save(local, np.zeros_like(np.load(local)))
        return True
