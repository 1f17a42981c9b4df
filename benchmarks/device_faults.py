"""What becomes of a deploy's jobs when devices, cables and hosts fail: each fault provoked for real on a loopback sshd.

Run: PYTHONPATH=. .venv/bin/python benchmarks/device_faults.py [--only NAME ...]
The table goes to build/bench/device_faults.json too. Needs sshd; root for the small disk and the memory limit.
`recovered` is the time from the end of the fault (or from its being mended) to the end of a whole job; `lost` counts
bytes of that job's input, output and log that did not arrive.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.fault_lab import SIZE, Lab, Outcome, judge, memory_group, small_disk, tiny_model, watch
from benchmarks.loopback_ssh import NEEDS_SSHD, Sshd, Wire, find_sshd, free_port, make_key
from targets import Null, OnnxRuntime
from targets.devices.device import ProfileRequest
from targets.errors import DeviceError
from targets.target import RunOptions

OUT = Path("build/bench/device_faults.json")


def refused(name: str, done: str, provoke: Callable[[], object], mended: Callable[[], int]) -> Outcome:
    """Return the message of a fault, and how long a job takes once it is mended."""
    outcome = Outcome(name, done)
    try:
        provoke()
    except DeviceError as error:
        outcome.message, outcome.exit_code = str(error), error.exit_code
    started = time.monotonic()
    outcome.lost_bytes = mended()
    outcome.recovered_s = time.monotonic() - started
    return outcome


def survived(name: str, done: str, lab: Lab, work: Callable[[list[float]], int]) -> Outcome:
    """Return what was said while a job went through a fault; the list takes the time when the fault ended."""
    lab.said.clear()
    ended: list[float] = []
    outcome = Outcome(name, done)
    outcome.lost_bytes = work(ended)
    outcome.recovered_s = time.monotonic() - ended[0]
    outcome.message = lab.said[0] if lab.said else "(none: the job went on)"
    return outcome


def first_contact(lab: Lab) -> Iterator[Outcome]:
    """Faults that are seen before anything is done."""
    entry = lab.entry

    def mended() -> int:
        return lab.copy()

    def with_(**changes: object) -> Callable[[], object]:
        return lambda: lab.copy(replace(entry, **changes))  # type: ignore[arg-type]  # fields by name

    yield refused("unknown host", "a host name that nobody has", with_(host="no-such-board.invalid"), mended)
    yield refused("no ssh server", "a port where nothing listens", with_(port=free_port()), mended)
    empty = lab.folder / "empty_known_hosts"
    empty.write_text("")
    yield refused("unknown host key", "known_hosts emptied", with_(known_hosts=str(empty)), mended)
    other = make_key(lab.folder / "other_host").with_suffix(".pub").read_text().split()
    changed = lab.folder / "changed_known_hosts"
    changed.write_text(f"[127.0.0.1]:{entry.port} {other[0]} {other[1]}\n")
    yield refused("changed host key", "the server has another key", with_(known_hosts=str(changed)), mended)
    stranger = make_key(lab.folder / "stranger")
    yield refused("refused key", "a key that is not authorized", with_(key=str(stranger)), mended)
    yield refused("no python", "python = /opt/python3.12", with_(python="/opt/python3.12"), mended)
    old = lab.folder / "python3.6"
    pretend = "import sys; sys.version_info = (3, 6, 9); sys.version = '3.6.9'; exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    yield refused("old python", "an interpreter that says 3.6.9", with_(python=str(old)), mended)
    bare = lab.folder / "bare" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(lab.folder / "bare")], check=True)
    yield refused("no NumPy", "a bare virtual environment", with_(python=str(bare)), mended)
    (site,) = (lab.folder / "bare" / "lib").glob("python3*/site-packages")
    (site / "numpy").symlink_to(Path(np.__file__).parent)
    board = lab.open(replace(entry, python=str(bare)))
    yield refused("missing runtime", "the same with NumPy alone", lambda: board.probe(OnnxRuntime()), mended)
    in_the_way = lab.folder / "file"
    in_the_way.write_text("")
    yield refused("no work folder", "a file is in its way", with_(work_folder=f"{in_the_way}/work"), mended)
    with small_disk(lab.folder) as disk:
        full = replace(entry, work_folder=str(disk))
        yield refused("full disk", "2 MB for a disk of 1.5 MB", lambda: lab.copy(full), mended)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        sealed = replace(entry, work_folder=str(disk / "work"))
        yield refused("read-only folder", "its file system remounted read-only", lambda: lab.copy(sealed), mended)


def in_the_middle(lab: Lab) -> Iterator[Outcome]:
    """Faults of the connection while a job is under way: all are survived."""

    def upload(ended: list[float]) -> int:
        lab.wire.cut_after = lab.wire.sent_bytes + SIZE // 2
        watch(lambda: lab.wire.cut_after is None, lambda: ended.append(time.monotonic()))
        return lab.copy()

    yield survived("lost in an upload", "connection cut after half of the bytes", lab, upload)

    def run(ended: list[float], hurt: Callable[[], None]) -> int:
        def on_line(line: str) -> None:
            if line == "5\n":
                hurt()
                ended.append(time.monotonic())

        return lab.copy(on_line=on_line)

    yield survived("lost in a job", "connection cut at line 5 of 20", lab, lambda ended: run(ended, lab.wire.cut))
    model = tiny_model(lab.folder / "tiny.onnx")

    def compiling(ended: list[float]) -> int:
        watch(lambda: lab.job_folder() is not None, lab.wire.cut, note(ended))
        lab.open().compile_model(Null(), model, lab.folder / "compiled", RunOptions())
        return 0 if (lab.folder / "compiled").read_bytes() == model.read_bytes() else model.stat().st_size

    yield survived("lost in a compile", "connection cut when the compiler had started", lab, compiling)

    def profiling(ended: list[float]) -> int:
        watch(lambda: lab.job_folder() is not None, lab.wire.cut, note(ended))
        request = ProfileRequest(num_samples=100, max_seconds=60)
        block = lab.open().profile(Null(latency_ms=5), model, RunOptions(), request)
        return (100 - block.samples_ns.size) * 8

    yield survived("lost in a profile", "connection cut when the profile had started", lab, profiling)

    def restart() -> None:
        lab.sshd.stop()
        threading.Timer(3, lab.sshd.start).start()

    yield survived("ssh server gone", "sshd killed, started again after 3 s", lab, lambda ended: run(ended, restart))

    def freeze() -> None:
        lab.wire.is_held.set()
        threading.Timer(25, lab.wire.is_held.clear).start()

    yield survived("frozen connection", "no byte passes for 25 s", lab, lambda ended: run(ended, freeze))


def jobs_that_fail(lab: Lab) -> Iterator[Outcome]:
    """Faults of the job and the device under it."""

    def mended() -> int:
        return lab.copy()

    def power_cut(line: str) -> None:
        if line == "5\n":
            lab.sshd.stop()
            lab.kill_job()
            time.sleep(1)
            lab.sshd.start()

    yield refused(
        "power cut", "all its processes killed, sshd back after 1 s", lambda: lab.copy(on_line=power_cut), mended
    )
    hanging = replace(lab.open(), job_timeout_s=2.0)
    model = tiny_model(lab.folder / "tiny.onnx")
    request = ProfileRequest(max_seconds=0.1)
    yield refused(
        "a job that hangs",
        "an inference that takes a minute, 2 s allowed",
        lambda: hanging.profile(Null(latency_ms=60_000), model, RunOptions(), request),
        mended,
    )
    yield refused(
        "killed job", "SIGKILL to the job", lambda: run_program(lab, "import os; os.kill(os.getpid(), 9)"), mended
    )
    group = memory_group()
    if group is not None:
        eat = f"open('{group}/cgroup.procs', 'w').write('0'); x = b'x' * 300_000_000"
        yield refused("out of memory", "300 MB in a group limited to 100 MB", lambda: run_program(lab, eat), mended)
        group.rmdir()

    def second_host(ended: list[float]) -> int:
        holding, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with lab.connect(lab.sshd.entry):
                holding.set()
                leave.wait(30)

        first = threading.Thread(target=hold)
        first.start()
        holding.wait(30)
        watch(lambda: bool(lab.said), note(ended), leave.set)
        lost = lab.copy()
        first.join()
        return lost

    yield survived("two hosts at once", "another job has the device", lab, second_host)

    def dead_host(ended: list[float]) -> int:
        code = "from benchmarks.fault_lab import hang; hang()"
        entry = json.dumps(asdict(lab.entry))
        host = subprocess.Popen([sys.executable, "-c", code, entry], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert host.stdout is not None
        host.stdout.readline()
        host.kill()
        host.wait()
        host.stdout.close()
        ended.append(time.monotonic())
        return lab.copy()

    yield survived("host killed", "kill -9 of the host in the middle of its job", lab, dead_host)

    def damaged(ended: list[float]) -> int:
        model.write_bytes(model.read_bytes())
        lab.open().compile_model(Null(), model, lab.folder / "compiled", RunOptions())
        for kept in (lab.sshd.work / "files").iterdir():
            kept.write_bytes(b"\0" * kept.stat().st_size)
        ended.append(time.monotonic())
        lab.open().compile_model(Null(), model, lab.folder / "compiled", RunOptions())
        return 0 if (lab.folder / "compiled").read_bytes() == model.read_bytes() else model.stat().st_size

    yield survived("damaged files", "all that is kept on the device overwritten by zeros", lab, damaged)


def note(ended: list[float]) -> Callable[[], None]:
    """Return what writes down the time."""
    return lambda: ended.append(time.monotonic())


def run_program(lab: Lab, program: str) -> None:
    """Run a program as a job."""
    with lab.connect() as device:
        judge(device.run(["-c", program], 60))


def show(outcome: Outcome) -> None:
    """Print one row."""
    message = re.sub(r"\s+", " ", outcome.message)
    print(f"{outcome.name}: {outcome.done}")
    print(f"  {message}")
    print(f"  exit code {outcome.exit_code}, recovered in {outcome.recovered_s:.1f} s, {outcome.lost_bytes} bytes lost")


def main() -> int:
    """Provoke every fault, print and keep the table; 1 where bytes were lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("contact", "middle", "jobs"), nargs="*")
    chosen = parser.parse_args().only or ["contact", "middle", "jobs"]
    if find_sshd() is None:
        sys.exit(f"skipped: {NEEDS_SSHD}")
    outcomes = []
    groups = {"contact": first_contact, "middle": in_the_middle, "jobs": jobs_that_fail}
    with tempfile.TemporaryDirectory() as name:
        sshd = Sshd(Path(name) / "board").prepare().start()
        wire = Wire(sshd.port)
        sshd.know(sshd.port, wire.port)
        lab = Lab(Path(name), sshd, wire)
        try:
            lab.copy()
            for group in chosen:
                for outcome in groups[group](lab):
                    show(outcome)
                    outcomes.append(outcome)
        finally:
            wire.close()
            sshd.stop()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    lost = sum(outcome.lost_bytes for outcome in outcomes)
    print(f"{len(outcomes)} faults, {lost} bytes lost; {OUT}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
