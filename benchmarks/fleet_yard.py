"""Many devices on this machine, each a work folder behind one sshd; what they are deployed to, and what they leave."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loopback_ssh import Sshd

RECIPE = """
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"

[task]
kind = "classification"
data = { kind = "digits", test = { share = 0.05 } }
normalization = { mean = [0.3], std = [0.37] }

[teacher]
model = { kind = "resnet", depth = 8, width = 4 }
training = { epochs = 2 }

[student]
model = { kind = "resnet", depth = 8, width = 4 }

[distillation]
training = { epochs = 2 }
losses = [{ kind = "kd" }]

[quantization]
training = { epochs = 1, learning_rate = 0.001 }
losses = [{ kind = "kd", temperature = 1.0 }]
calibration = { samples = 64 }

[[deployments]]
name = "edge"
target = { kind = "null" }
budget = { latency = { max_ms = 60_000.0, percentile = 50 }, parity = { min_agreement = 0.9 } }
profile = { min_samples = 64, processes = 1, max_seconds = 20 }
"""
SAMPLED_EVERY_S = 0.5


@dataclass(frozen=True)
class Yard:
    """Devices of one sshd, and where they are deployed from."""

    folder: Path
    sshd: Sshd

    @property
    def inventory(self) -> Path:
        """The file that lists them, with a group for each number of them."""
        return self.folder / "devices.toml"

    @property
    def build(self) -> Path:
        """The build folder."""
        return self.folder / "build"

    def home(self, name: str) -> Path:
        """Return a device's work folder."""
        return self.folder / "boards" / name

    def is_busy(self, name: str) -> bool:
        """Tell whether a job runs on a device."""
        return any((self.home(name) / "jobs").glob("*/processes.json"))

    def write(self, numbers: list[int]) -> None:
        """Write recipe and inventory."""
        (self.folder / "tiny.toml").write_text(RECIPE)
        entry = self.sshd.entry
        fields = {**{name: getattr(entry, name) for name in ("host", "user", "port", "key", "known_hosts", "python")}}
        tables = []
        for name in names(max(numbers)):
            lines = {**fields, "work_folder": str(self.home(name))}
            body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
            tables.append(f"[devices.{name}]\n{body}\n")
        groups = "\n".join(f"fleet{number} = {json.dumps(names(number))}" for number in numbers)
        self.inventory.write_text("\n".join(tables) + f"\n[groups]\n{groups}\n")

    def command(self, device: str) -> list[str]:
        """Return the command line that deploys to a device or a group."""
        options = ("--devices", str(self.inventory), "--build", str(self.build), "--accept-undecided", "--json")
        recipe = str(self.folder / "tiny.toml")
        return [sys.executable, "-m", "pipeline", "deploy", recipe, "--device", device, *options]

    def environment(self) -> dict[str, str]:
        """Return one whose temporary files and connections are this yard's own."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TMPDIR": str(scratch)}

    def list_scratch(self) -> list[str]:
        """Return what lies among temporary files, and where jobs on this machine work."""
        folders = (self.folder / "scratch", self.build / "work")
        return [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]


def names(number: int) -> list[str]:
    """Return the names of so many devices."""
    return [f"board{index:02d}" for index in range(number)]


def find_left(yard: Yard, number: int, before: set[str]) -> Iterator[str]:
    """Yield what lies or runs where nothing should: on devices, and on this machine beyond `before`."""
    for name in names(number):
        home = yard.home(name)
        left = {path.name for path in home.iterdir()} - {"lock", "holder.json", "files", "jobs", "releases"}
        left |= {path.name for path in (home / "jobs").iterdir()}
        left |= {path.name for path in (home / "releases" / "tiny-edge").glob(".incoming*")}
        if left:
            yield f"{name}: left behind: {', '.join(sorted(left))}"
    if left := set(yard.list_scratch()) - before:
        yield f"this machine: left behind: {', '.join(sorted(left))}"
    if running := [words for words in processes() if str(yard.folder / "boards") in words]:
        yield f"still running: {'; '.join(running)}"


def processes() -> Iterator[str]:
    """Yield the command line and the folder of every process that can be seen."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            yield f"{words} in {os.readlink(path / 'cwd')}"
        except OSError:
            continue  # it has ended


@contextmanager
def watching_ssh(yard: Yard, peak: list[float]) -> Iterator[None]:
    """Note the most memory that the connections had together, in MB."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLED_EVERY_S):
            peak[0] = max(peak[0], ssh_pss_mb(str(yard.sshd.folder)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def ssh_pss_mb(mark: str) -> float:
    """Return the memory of all ssh clients whose command line names this folder."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if words[0] != b"ssh" or not any(mark.encode() in word for word in words):
                continue
            lines = (path / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, IndexError):
            continue  # it has ended
    return total * 1024 / 1e6
