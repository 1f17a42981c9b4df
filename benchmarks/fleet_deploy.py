"""One deploy to many devices behind ssh: time, memory and CPU of this machine as their number grows.

Run: PYTHONPATH=. .venv/bin/python benchmarks/fleet_deploy.py [--devices 10 20 35 50]
The devices are work folders of one loopback sshd, each reached over a connection of its own; they run the reference
evaluator on this machine's cores, so wall time is theirs, not the fleet's. The student is trained once, before. Memory
and CPU of `host` are those of the deploying process and what it waits for; `ssh` are its connections in the background.
The table goes to build/bench/fleet_deploy.json too; 1 where a device was not deployed to, or anything was left behind.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.fleet_yard import Yard, find_left, names, watching_ssh
from benchmarks.loopback_ssh import NEEDS_SSHD, Sshd, find_sshd, wait_until

OUT = Path("build/bench/fleet_deploy.json")


@dataclass(frozen=True)
class Row:
    """One deploy."""

    devices: int
    wall_s: float
    host_cpu_s: float
    host_rss_mb: float
    """Peak of the deploying process."""
    ssh_pss_mb: float
    """Peak of all connections together, shared pages counted once."""
    released: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Interruption:
    """One Ctrl-C."""

    devices: int
    seconds: float
    """Until all devices were left and the process had ended."""
    problems: tuple[str, ...]


def deploy(yard: Yard, number: int) -> Row:
    """Deploy to so many devices, and look at what came of it."""
    said = yard.folder / f"said{number}.txt"
    started, peak, before = time.monotonic(), [0.0], set(yard.list_scratch())
    with said.open("w") as errors, watching_ssh(yard, peak):
        process = subprocess.Popen(
            yard.command(f"fleet{number}"), stdout=subprocess.PIPE, stderr=errors, text=True, env=yard.environment()
        )
        assert process.stdout is not None
        text = process.stdout.read()
        _, _, used = os.wait4(process.pid, 0)
        process.stdout.close()
    wall_s = time.monotonic() - started
    problems = (
        list(find_problems(yard, text, number, before)) if text else [f"no result; see {said.read_text()[-2000:]}"]
    )
    return Row(
        devices=number,
        wall_s=wall_s,
        host_cpu_s=used.ru_utime + used.ru_stime,
        host_rss_mb=used.ru_maxrss * 1024 / 1e6,
        ssh_pss_mb=peak[0],
        released=sum(row["state"] == "released" for row in json.loads(text)["devices"]) if text else 0,
        problems=tuple(problems),
    )


def interrupt(yard: Yard, number: int) -> Interruption:
    """Press Ctrl-C while a quarter of so many devices infer, and look at what is left."""
    before = set(yard.list_scratch())
    with (yard.folder / "interrupted.txt").open("w") as errors:
        process = subprocess.Popen(
            yard.command(f"fleet{number}"), stdout=subprocess.DEVNULL, stderr=errors, env=yard.environment()
        )
        wait_until(lambda: sum(yard.is_busy(name) for name in names(number)) > number // 4, timeout_s=600)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        code = process.wait()
    problems = [] if code == 130 else [f"expected exit code 130; got {code}"]
    problems += find_left(yard, number, before)
    return Interruption(number, time.monotonic() - started, tuple(problems))


def find_problems(yard: Yard, text: str, number: int, before: set[str]) -> Iterator[str]:
    """Yield what is not as it should be, on every device and on this machine, whose scratch held `before`."""
    rows = {row["device"]: row for row in json.loads(text)["devices"]}
    for name in names(number):
        row, home = rows[name], yard.home(name)
        report = yard.build / "tiny" / "edge" / "devices" / name / "report.json"
        if row["verdict"] not in ("pass", "undecided") or row["state"] != "released":
            yield f"{name}: {row['state']}: {row['message']}"
            continue
        if json.loads(report.read_text())["device"] != name:
            yield f"{name}: its report is another's"
        if os.readlink(home / "releases" / "tiny-edge" / "current") != row["installed"]:
            yield f"{name}: {row['installed']} is not current there"
    yield from find_left(yard, number, before)


def slope(rows: list[Row], name: str) -> float:
    """Return by how much a figure grows a device, by least squares."""
    if len(rows) < 2:
        return float("nan")
    return float(np.polyfit([row.devices for row in rows], [getattr(row, name) for row in rows], 1)[0])


def show(rows: list[Row], first_s: float) -> None:
    """Print the table."""
    load = os.getloadavg()[0]
    print(f"trained once, with the first device: {first_s:.1f} s; {os.cpu_count()} cores, load {load:.1f} at the end")
    print("devices   wall s   host CPU s   host RSS MB   ssh PSS MB   released")
    for row in rows:
        print(
            f"{row.devices:7d} {row.wall_s:8.1f} {row.host_cpu_s:12.1f} {row.host_rss_mb:13.1f} {row.ssh_pss_mb:12.1f}"
            f" {row.released:10d}"
        )
        for problem in row.problems:
            print(f"        {problem}")
    print(
        f"each device more: {slope(rows, 'wall_s'):.2f} s, {slope(rows, 'host_cpu_s'):.2f} s of CPU, "
        f"{slope(rows, 'host_rss_mb'):.2f} MB of the host, {slope(rows, 'ssh_pss_mb'):.2f} MB of ssh"
    )


def main() -> int:
    """Deploy to more and more devices, print and keep the table; 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 20, 35, 50])
    numbers = sorted(parser.parse_args().devices)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background has it ignored, and hands that on
    if find_sshd() is None:
        sys.exit(f"skipped: {NEEDS_SSHD}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        yard = Yard(Path(folder), Sshd(Path(folder) / "sshd").prepare().start())
        try:
            yard.write(numbers)
            started = time.monotonic()
            first = subprocess.run(
                yard.command("board00"), capture_output=True, text=True, env=yard.environment(), check=False
            )
            first_s = time.monotonic() - started
            if first.returncode not in (0, 5):
                sys.exit(first.stderr)
            rows = []
            for number in numbers:
                rows.append(deploy(yard, number))
                print(f"{number} devices: {rows[-1].released} released, {rows[-1].host_rss_mb:.1f} MB", flush=True)
            ctrl_c = interrupt(yard, numbers[-1])
        finally:
            yard.sshd.stop()
    show(rows, first_s)
    left = "; ".join(ctrl_c.problems) or "nothing"
    print(f"Ctrl-C while {ctrl_c.devices} devices work: ended after {ctrl_c.seconds:.1f} s; left behind: {left}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"first_s": first_s, "rows": [asdict(row) for row in rows], "ctrl_c": asdict(ctrl_c)}, indent=2)
        + "\n"
    )
    return 1 if ctrl_c.problems or any(row.problems for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
