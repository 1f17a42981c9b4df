"""A process that sleeps until it is asked: lines of JSON in, lines of JSON out. Peers take turns as such processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Value = float | int | bool | str


class Worker:
    """One warm process; only while it answers is it busy.

    Args:
        name: who it is, for messages.
        command: the program and its arguments.
        threads: of its OpenMP, whose other settings stay at their defaults.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self._name = name
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_", "GOMP_"))}
        environment = {**inherited, "OMP_NUM_THREADS": str(threads), "KINETO_LOG_LEVEL": "99"}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Value) -> Mapping[str, float]:
        """Send one request and wait for its answer; ends the program where the process died.

        Where Linux tells, the answer says how many processor cores others kept busy meanwhile: `others_cores`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = _Clocks.read(self._process.pid)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._name}: expected an answer to {request}; it ended with {self._process.wait()}, see above")
        answer: dict[str, float] = json.loads(line)
        return {**answer, "others_cores": before.others_until(_Clocks.read(self._process.pid))}

    def close(self) -> None:
        """Close its input, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@dataclass(frozen=True)
class _Clocks:
    """Seconds of the wall, of all processors at work, and of one process with its ended children."""

    wall: float
    busy: float
    own: float

    @classmethod
    def read(cls, pid: int) -> "_Clocks":
        """Read /proc; all processors are idle where there is none."""
        machine, process = Path("/proc/stat"), Path(f"/proc/{pid}/stat")
        if not machine.is_file():
            return cls(time.monotonic(), 0.0, 0.0)
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, machine.read_text().split()[1:9])
        own = sum(map(int, process.read_text().rpartition(")")[2].split()[11:15]))
        tick = os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), (user + nice + system + irq + softirq + steal) / tick, own / tick)

    def others_until(self, later: "_Clocks") -> float:
        """Return the cores that others kept busy on average."""
        return max(0.0, (later.busy - self.busy) - (later.own - self.own)) / (later.wall - self.wall)


def python_worker(name: str, python: Path | str, file: Path, arguments: Mapping[str, str], threads: int) -> Worker:
    """Return a worker that runs a Python file with `--name value` arguments."""
    options = [part for key, value in arguments.items() for part in (f"--{key}", value)]
    return Worker(name, [str(python), str(file), *options, "--threads", str(threads)], threads)
