"""A job that outlives the connection that started it: launched once, watched to its end, and found again.

    started.json    written before the job starts: while it is there, the job is never started again
    alive           locked by the job and its supervisor: what the kernel says, also after a crash or a power cut
    processes.json  who they are, to stop them
    attended        when the host was last heard of; a job that nobody attends for `lease_s` is ended
    job.log         what the job wrote
    ended.json      how it ended

Rule: Python 3.8, standard library only, nothing of this project: it reaches the device as source text.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Dict, List, Optional, Tuple

STARTED, ALIVE, PROCESSES, ATTENDED, LOG, ENDED = (
    *("started.json", "alive", "processes.json"),
    *("attended", "job.log", "ended.json"),
)
TICK_S = 1.0
STOP_S = 5.0
"""What a stopped job may take to vanish."""


@dataclass(frozen=True)
class Command:
    """What is started, and when it is ended."""

    arguments: Tuple[str, ...]
    timeout_s: float
    lease_s: float


def launch(folder: Path, command: Command, lock: int) -> bool:
    """Start the job, detached from this process; False where it was started before.

    It inherits the open file `lock`, so that the lock on it lasts as long as the job does.
    """
    try:
        started = os.open(str(folder / STARTED), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    with open(started, "w", encoding="utf-8") as file:
        json.dump({"boot": read_boot()}, file)
    attend(folder)
    alive = os.open(str(folder / ALIVE), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:  # not the session's leader: no terminal can become its own
                _supervise(folder, command, (lock, alive))
        finally:
            os._exit(0)
    os.close(alive)
    os.waitpid(child, 0)
    return True


def is_started(folder: Path) -> bool:
    """Tell whether the job was ever started."""
    return (folder / STARTED).exists()


def is_alive(folder: Path) -> bool:
    """Tell whether the job or its supervisor still runs."""
    try:
        file = os.open(str(folder / ALIVE), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def read_end(folder: Path) -> Optional[Dict[str, object]]:
    """Return how the job ended; None while it runs, or where it vanished without a trace."""
    return _read_json(folder / ENDED)


def was_rebooted(folder: Path) -> bool:
    """Tell whether the system was started anew since the job was."""
    return (_read_json(folder / STARTED) or {}).get("boot") != read_boot()


def attend(folder: Path) -> None:
    """Note that the host was heard of."""
    _write_whole(folder / ATTENDED, str(time.monotonic()))


def unattended_s(folder: Path) -> float:
    """Return the seconds since then, by the clock that no one sets; infinite where that is not known."""
    try:
        return time.monotonic() - float((folder / ATTENDED).read_text())
    except (OSError, ValueError):
        return float("inf")


def stop(folder: Path) -> None:
    """End the job and whatever it started, and wait until it is gone."""
    processes = _read_json(folder / PROCESSES) or {}
    deadline = time.monotonic() + STOP_S
    is_asked = False
    while is_alive(folder) and time.monotonic() < deadline:
        if not is_asked and _is_same(processes, "supervisor"):
            os.kill(int(str(processes["supervisor"])), signal.SIGTERM)
            is_asked = True
        elif not _is_same(processes, "supervisor") and _is_same(processes, "job"):
            os.killpg(int(str(processes["job"])), signal.SIGKILL)
        time.sleep(0.02)
        processes = processes or _read_json(folder / PROCESSES) or {}


def read_boot() -> str:
    """Return what is another after each start of the system; empty where it does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _supervise(folder: Path, command: Command, kept: Tuple[int, int]) -> None:
    """Start the job in a session of its own, wait for it, and write how it ended."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    oom_kills = _count_oom_kills()
    try:
        with open(str(folder / LOG), "ab") as log:
            process = subprocess.Popen(
                command.arguments,
                cwd=str(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=kept,
            )
        ids = {"supervisor": os.getpid(), "job": process.pid}
        ticks = {f"{role}_ticks": _read_ticks(pid) for role, pid in ids.items()}
        _write_whole(folder / PROCESSES, json.dumps({**ids, **ticks}))
    except OSError as error:
        _write_whole(folder / ENDED, json.dumps({"returncode": 126, "failure": str(error)}))
        return
    reasons = _watch(folder, command, process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _kill_group(process.pid)  # what it left behind
    returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    end = {
        "returncode": returncode,
        "reason": reasons[0] if reasons else "",
        "oom_kills": _count_oom_kills() - oom_kills,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    _write_whole(folder / ENDED, json.dumps(end))


def _watch(folder: Path, command: Command, process: int) -> List[str]:
    """Let the kernel's timer end the job; return the list that will hold why it was ended."""
    reasons: List[str] = []
    deadline = time.monotonic() + command.timeout_s

    def end(reason: str) -> None:
        reasons.append(reason)
        _kill_group(process)

    def tick(number: int, frame: Optional[FrameType]) -> None:
        if time.monotonic() >= deadline:
            end("timed out")
        elif unattended_s(folder) > command.lease_s:
            end("unattended")

    signal.signal(signal.SIGTERM, lambda number, frame: end("stopped"))
    signal.signal(signal.SIGALRM, tick)
    interval_s = min(TICK_S, command.timeout_s)
    signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)
    return reasons


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # ended meanwhile
        os.killpg(process, signal.SIGKILL)


def _count_oom_kills() -> int:
    """Return how many processes the kernel has ended for want of memory since it started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _read_ticks(process: int) -> str:
    """Return when a process was started: a number used again is another process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_same(processes: Dict[str, object], role: str) -> bool:
    ticks = processes.get(f"{role}_ticks")
    return bool(ticks) and _read_ticks(int(str(processes[role]))) == ticks


def _read_json(path: Path) -> Optional[Dict[str, object]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(str(partial), str(path))
