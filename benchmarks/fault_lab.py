"""A device on this machine, and everything to hurt it with; what benchmarks/device_faults.py provokes its faults on."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks.loopback_ssh import Sshd, Wire, wait_until
from targets import Null
from targets.devices.device import Device, open_device
from targets.devices.inventory import DeviceEntry, Inventory
from targets.devices.openssh import OpenSsh
from targets.devices.outcome import read_outcome
from targets.devices.ssh import Ssh
from targets.devices.transport import Completed
from targets.runner.job import Job
from targets.target import RunOptions

CGROUPS = Path("/sys/fs/cgroup")
SIZE = 2_000_000
COPY = """
import time
data = open('in', 'rb').read()
for i in range(20):
    print(i, flush=True)
    time.sleep(0.05)
open('out', 'wb').write(data)
"""
LINES = tuple(map(str, range(20)))
JOB = Job("nonce", "profile", Null(), RunOptions(), 60.0)


@dataclass
class Outcome:
    """One row of the table."""

    name: str
    done: str
    """What was done."""
    message: str = ""
    exit_code: int = 0
    recovered_s: float = 0.0
    lost_bytes: int = 0


@dataclass
class Lab:
    """A device on this machine, and everything to hurt it with."""

    folder: Path
    sshd: Sshd
    wire: Wire
    said: list[str] = field(default_factory=list)

    @property
    def entry(self) -> DeviceEntry:
        """The device, reached over the wire."""
        return replace(self.sshd.entry, port=self.wire.port)

    def connect(self, entry: DeviceEntry | None = None) -> Ssh:
        """Return a transport for one job."""
        return Ssh(OpenSsh("board", entry or self.entry), self.said.append, reconnect_s=60)

    def open(self, entry: DeviceEntry | None = None) -> Device:
        """Return the device as a chain sees it."""
        return open_device("board", self.folder, Inventory({"board": entry or self.entry}), self.said.append)

    def copy(self, entry: DeviceEntry | None = None, *, on_line: Callable[[str], None] | None = None) -> int:
        """Send a file, have the device copy it, and fetch it; return how many bytes did not arrive."""
        source, back = self.folder / "in", self.folder / "out"
        source.write_bytes(os.urandom(SIZE))
        back.unlink(missing_ok=True)
        with self.connect(entry) as device:
            device.push(source, "in")
            completed = device.run(["-c", COPY], 120, on_line)
            judge(completed)
            device.pull("out", back)
        missing = sum(len(line) + 1 for line in LINES if line not in completed.output)
        if back.read_bytes() == source.read_bytes():
            return missing
        return missing + SIZE

    def job_folder(self) -> Path | None:
        """Return the folder of the job that runs, once it does."""
        found = [path.parent for path in (self.sshd.work / "jobs").glob("*/processes.json")]
        return found[0] if found else None

    def kill_job(self) -> None:
        """End the job and its supervisor as a power cut does."""
        wait_until(lambda: self.job_folder() is not None)
        folder = self.job_folder()
        assert folder is not None
        processes = json.loads((folder / "processes.json").read_text())
        for role in ("supervisor", "job"):
            with suppress(ProcessLookupError):
                os.kill(processes[role], signal.SIGKILL)


def judge(completed: Completed) -> None:
    """Raise what a job's end means for its user."""
    if completed.returncode or completed.failure or completed.is_timed_out:
        read_outcome("", completed, JOB, "the model: on board", 60)


def hang() -> None:
    """Be a host whose job runs when it is killed; its entry is the only argument."""
    entry = DeviceEntry(**json.loads(sys.argv[1]))
    program = "print('up', flush=True); import time; time.sleep(120)"
    with Ssh(OpenSsh("board", entry)) as device:
        device.run(["-c", program], 120, lambda line: print("up", flush=True))


def watch(holds: Callable[[], bool], *acts: Callable[[], object]) -> None:
    """Act as soon as something is true."""

    def wait() -> None:
        wait_until(holds)
        for act in acts:
            act()

    threading.Thread(target=wait, daemon=True).start()


def tiny_model(path: Path) -> Path:
    """Write a model of one node."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 1.5 MB."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def memory_group() -> Path | None:
    """Return a control group of 100 MB; None where none can be made."""
    for parent, limit in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        if not (parent / "cgroup.procs").exists():
            continue
        group = parent / f"edgeproof-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text("100000000")
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        return group
    print("out of memory: not provoked here: it takes a control group with a memory limit, and root")
    return None
