"""The agent: what answers a host on a device. It starts anew with each connection, from source text on its input.

A request is one line of JSON, and so is a reply; where a line says so, bytes follow it. Every request may be made again
after a broken connection: what was done is not done twice.

Rule: Python 3.8, standard library only, nothing of this project but its neighbours: all reach the device as
source text, before anything is pushed.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Optional

from targets.runner import machine, supervisor
from targets.runner.channel import BLOCK_BYTES, Channel, Request
from targets.runner.workplace import Holder, Workplace, digest, plain

OPEN_POLL_S = 0.2
LEAST_POLL_S, MOST_POLL_S = 0.02, 0.5
"""How often a job is looked at: less and less, as nothing should run beside what is timed."""


class Agent:
    """Answers one host."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._place: Optional[Workplace] = None
        self._answers: Dict[str, Callable[[Request], None]] = {
            "hello": self._greet,
            "describe": self._describe,
            "open": self._open,
            "push": self._push,
            "start": self._start,
            "follow": self._follow,
            "pull": self._pull,
            "close": self._close,
            "clear": self._clear,
            "beat": lambda request: None,
            "evict": lambda request: None,  # who had the device has just left
        }
        self._next: Optional[Request] = None

    def serve(self) -> None:
        """Answer until the host is gone; what fails on the device's side is a reply."""
        while True:
            request, self._next = self._next or self._channel.read_request(), None
            try:
                self._answers[str(request["op"])](request)
            except OSError as error:
                code = errno.errorcode.get(error.errno or 0, "")
                text = error.strerror or str(error)
                self._channel.send("failed", code=code, text=text, path=str(error.filename or ""), free=self._free())

    @property
    def _work(self) -> Workplace:
        assert self._place is not None, "hello comes first"
        return self._place

    def _free(self) -> int:
        try:
            return self._work.free_bytes()
        except (OSError, AssertionError):
            return -1

    def _greet(self, request: Request) -> None:
        self._place = Workplace(str(request["work"]), float(str(request["lease_s"])))
        self._place.prepare()
        holder = self._place.read_holder() if self._place.is_held() else None
        self._channel.send(
            "hello",
            work=str(self._place.root),
            free=self._place.free_bytes(),
            python=sys.version.split()[0],
            has_numpy=_has_numpy(),
            holder=holder,
        )

    def _describe(self, request: Request) -> None:
        modules = request["modules"]
        assert isinstance(modules, list)
        self._channel.send("described", **machine.describe(modules))

    def _open(self, request: Request) -> None:
        """Take the device for a job, waiting for whoever has it; a job that was started has it already."""
        job = str(request["job"])
        folder = self._work.locate_job(job)
        if supervisor.is_started(folder):
            supervisor.attend(folder)
            self._channel.send("open", is_started=True)
            return
        holder: Holder = {"job": job, "owner": request["owner"]}
        told: Optional[Holder] = None
        while not self._work.acquire(holder):
            found = self._work.read_holder()
            if found != told:
                told = found
                self._channel.send("held", holder=found)
            heard = self._hear(OPEN_POLL_S)
            if heard == "evict":
                self._work.remove(str(found["job"]))
            elif heard and heard != "beat":
                return
        folder.mkdir(mode=0o700, exist_ok=True)
        supervisor.attend(folder)
        self._channel.send("open", is_started=False)

    def _push(self, request: Request) -> None:
        """Take a file in under another name, compare its digest as it lies on the disk, and put it in its place."""
        sha256, size = str(request["sha256"]), int(str(request["size"]))
        place = self._work.locate_job(str(request["job"])) / plain(str(request["name"]))
        kept = self._work.locate_kept(sha256) if request["is_kept"] else place
        if kept.is_file() and digest(kept) == sha256:
            os.utime(str(kept))
            _link(kept, place)
            self._channel.send("stored", received=0)
            return
        self._work.require_room(size - _size(kept.with_name(kept.name + ".part")))
        part = kept.with_name(kept.name + ".part")
        offset = min(_size(part), size)
        self._channel.send("send", offset=offset)
        self._receive(part, offset, size)
        found = digest(part)
        if found != sha256:
            part.unlink()
            self._channel.send("damaged", sha256=found)
            return
        os.replace(str(part), str(kept))
        _link(kept, place)
        self._channel.send("stored", received=size - offset)

    def _receive(self, part: Path, offset: int, size: int) -> None:
        """Append what comes; where that fails, hear the host out, give the room back, and raise."""
        failure: Optional[OSError] = None
        with open(str(part), "ab") as file:
            file.truncate(offset)
            for block in self._channel.read_bytes(size - offset):
                try:
                    if failure is None:
                        file.write(block)
                        file.flush()
                except OSError as error:
                    failure = error
                    failure.filename = str(part)
                    file.truncate(0)
        if failure is not None:
            part.unlink()
            raise failure

    def _start(self, request: Request) -> None:
        """Start the job, or find it started; the lock on the device is the job's from here on."""
        folder = self._work.locate_job(str(request["job"]))
        arguments = request["arguments"]
        assert isinstance(arguments, list)
        command = supervisor.Command(
            (sys.executable, *arguments), float(str(request["timeout_s"])), float(str(request["lease_s"]))
        )
        is_new = False if supervisor.is_started(folder) else supervisor.launch(folder, command, self._work.lock)
        self._channel.send("started", is_new=is_new)

    def _follow(self, request: Request) -> None:
        """Send what the job writes, from `offset` on, until it has ended; any other request than a beat ends this."""
        folder = self._work.locate_job(str(request["job"]))
        offset = int(str(request["offset"]))
        began = time.monotonic()
        while True:
            is_alive = supervisor.is_alive(folder)  # before the rest is read: afterwards nothing is added
            offset = self._send_log(folder / supervisor.LOG, offset)
            if not is_alive:
                end = supervisor.read_end(folder)
                if end is None:
                    end = {"is_lost": True, "was_rebooted": supervisor.was_rebooted(folder), "free": self._free()}
                self._channel.send("ended", **end)
                return
            heard = self._hear(min(MOST_POLL_S, LEAST_POLL_S + (time.monotonic() - began) / 20))
            if heard == "beat":
                supervisor.attend(folder)
            elif heard and heard != "evict":
                return

    def _hear(self, timeout_s: float) -> str:
        """Return what the host asks while it waits, or nothing; what is more than a word is answered next."""
        if not self._channel.has_input(timeout_s):
            return ""
        request = self._channel.read_request()
        operation = str(request["op"])
        if operation not in ("beat", "evict"):
            self._next = request
        return operation

    def _send_log(self, log: Path, offset: int) -> int:
        while _size(log) > offset:
            with open(str(log), "rb") as file:
                file.seek(offset)
                block = file.read(BLOCK_BYTES)
            self._channel.send("log", size=len(block))
            self._channel.send_bytes(block)
            offset += len(block)
        return offset

    def _pull(self, request: Request) -> None:
        path = self._work.locate_job(str(request["job"])) / plain(str(request["name"]))
        if not path.is_file():
            self._channel.send("absent")
            return
        offset = int(str(request["offset"]))
        self._channel.send("file", size=_size(path) - offset, sha256=digest(path))
        with open(str(path), "rb") as file:
            file.seek(offset)
            for block in iter(lambda: file.read(BLOCK_BYTES), b""):
                self._channel.send_bytes(block)

    def _close(self, request: Request) -> None:
        """End the job where it still runs, remove its folder, and leave the device to others."""
        self._work.remove(str(request["job"]))
        self._work.release()
        self._channel.send("closed")

    def _clear(self, request: Request) -> None:
        """Remove what is kept on the device, where nobody works there."""
        if not self._work.acquire({"job": "", "owner": request["owner"]}):
            self._channel.send("held", holder=self._work.read_holder())
            return
        self._work.clear()
        self._work.release()
        self._channel.send("cleared")


def main(token: str) -> None:
    """Say that the agent is here, whatever the login wrote before, and answer the host."""
    os.write(1, b"edgeproof-agent " + token.encode() + b"\n")
    try:
        Agent(Channel(0, 1)).serve()
    except EOFError:
        return


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _link(kept: Path, place: Path) -> None:
    if kept == place:
        return
    if place.exists():
        place.unlink()
    try:
        os.link(str(kept), str(place))
    except OSError:  # not every file system has links
        shutil.copyfile(str(kept), str(place))


def _has_numpy() -> bool:
    return any((Path(entry or ".") / "numpy").is_dir() for entry in sys.path)
