"""A device behind ssh: its end of one job, which goes on where a broken connection left it.

Rule: every step may be made again, and the job itself is started once. A device that does not come back in time ends
it by itself, and what is left there goes when it is used next.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Sequence, Type, TypeVar

from targets.devices import holder
from targets.devices.agent_link import AgentLink, Reply
from targets.devices.lines import Lines
from targets.devices.openssh import OpenSsh
from targets.devices.stop import Stop
from targets.devices.transport import Completed
from targets.errors import ConnectionLost, DeviceError

RECONNECT_S = 120.0
"""How long a broken connection is tried again: a restart of the device takes about half of it."""
LEASE_S = 180.0
"""How long a job runs on, and a job's folder stays, after its host was last heard of."""
LOCK_WAIT_S = 3600.0
"""How long another host's work on the device is waited for."""
BEAT_S = 8.0
GRACE_S = 60.0
"""What the device may take beyond a job's time to end it."""
ATTEMPTS = 3
"""Of sending one file whose digest does not arrive."""

Answer = TypeVar("Answer")


class Ssh:
    """One job's folder on a device, and the process in it."""

    def __init__(
        self,
        ssh: OpenSsh,
        say: Callable[[str], None] = lambda line: None,
        *,
        stop: Optional[Stop] = None,
        answered: Optional[threading.Event] = None,
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        """Prepare a job on a device, which is waited for like one that is under way where it has `answered` before."""
        self._ssh = ssh
        self._stop = stop or Stop()
        self._answered = answered or threading.Event()
        self._owner = holder.describe_myself()
        self._say = say
        self._reconnect_s = reconnect_s
        self._job = secrets.token_hex(8)
        self._link: Optional[AgentLink] = None
        self._is_started = False

    def __enter__(self) -> Ssh:
        try:
            self._link = self._reconnect() if self._answered.is_set() else self._open()
        except ConnectionLost:
            if self._stop.is_set:
                self._leave()  # it may have been let in just before
                self._stop.raise_if_set()
            raise
        self._answered.set()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self._drop()  # it may be in the middle of a reply
        if not isinstance(error, ConnectionLost):  # else nobody is there to clean up
            self._leave()

    def _leave(self) -> None:
        """Have the device end the job where it still runs, and remove its folder."""
        try:
            if self._link is None:
                self._link = self._greet(None)  # also after a stop: what runs there must end
            self._link.call("close", job=self._job)
        except DeviceError as left:
            self._say(f"{self._ssh.name}: the job's folder stays until the device is used next: {left}")
        finally:
            self._drop()

    def push(self, local: Path, remote_name: str, *, is_kept: bool = False) -> None:
        """Send a file, from where an earlier attempt ended; its digest is compared on the device."""
        with open(local, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        request = {"job": self._job, "name": remote_name, "sha256": sha256, "is_kept": is_kept}
        size = local.stat().st_size

        def send(link: AgentLink) -> Reply:
            reply = link.call("push", size=size, **request)
            if reply["event"] != "send":
                return reply
            link.send_file(local, int(str(reply["offset"])))
            return link.receive()

        for _ in range(ATTEMPTS):
            reply = self._insist(send)
            if reply["event"] == "stored":
                return
        raise DeviceError(
            f"{self._ssh.where}: {remote_name}: expected sha256 {sha256} after sending it "
            f"{ATTEMPTS} times; got {reply['sha256']}; its disk or memory may be failing"
        )

    def run(
        self, arguments: Sequence[str], timeout_s: float, on_line: Optional[Callable[[str], None]] = None
    ) -> Completed:
        """Start the device's Python with `arguments`, detached from the connection, and follow it to its end."""
        lines = Lines(on_line)

        def start(link: AgentLink) -> None:
            if self._is_started:
                return  # it had begun before the connection broke, and its answer was lost
            link.call("start", job=self._job, arguments=list(arguments), timeout_s=timeout_s, lease_s=LEASE_S)
            self._is_started = True

        self._insist(start)
        limit_s = time.monotonic() + timeout_s + GRACE_S
        end = self._insist(lambda link: self._follow(link, lines, limit_s))
        if end is None:
            return Completed(1, lines.last(), is_timed_out=True)
        if end.get("is_lost"):
            return Completed(1, lines.last(), failure=_explain_vanishing(end))
        reason = end.get("reason")
        failure = f"no result: {end['failure']}" if "failure" in end else None
        if reason == "unattended":
            failure = f"an end by the device, which had not heard of its host for {LEASE_S:g} s; run it again"
        return Completed(
            int(str(end["returncode"])),
            lines.last(),
            is_timed_out=reason == "timed out",
            failure=failure,
            oom_kills=int(str(end.get("oom_kills", 0))),
            peak_bytes=int(str(end.get("peak_bytes", 0))),
        )

    def pull(self, remote_name: str, local: Path) -> bool:
        """Fetch a file, from where an earlier attempt ended, and compare its digest; False where there is none."""
        part = local.with_name(local.name + ".part")
        part.unlink(missing_ok=True)

        def fetch(link: AgentLink) -> Optional[str]:
            offset = part.stat().st_size if part.exists() else 0
            reply = link.call("pull", job=self._job, name=remote_name, offset=offset)
            if reply["event"] == "absent":
                return None
            with open(part, "ab") as file:
                link.read_into(file.write, int(str(reply["size"])))
            return str(reply["sha256"])

        try:
            expected = self._insist(fetch)
            if expected is None:
                return False
            with open(part, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                part.unlink()
                raise DeviceError(
                    f"{remote_name}: expected sha256 {expected} from the device; got {found}; run it again"
                )
            os.replace(part, local)
        except OSError as error:
            raise DeviceError(f"{local}: expected to write {remote_name} there; got {error.strerror}") from error
        return True

    def _follow(self, link: AgentLink, lines: Lines, limit_s: float) -> Optional[Reply]:
        """Return how the job ended; None where the device itself does not end it in time."""
        link.send("follow", job=self._job, offset=lines.num_bytes)
        beaten = time.monotonic()
        while time.monotonic() < limit_s:
            reply = link.poll(BEAT_S)
            if reply is not None and reply["event"] == "ended":
                return reply
            if reply is not None:
                link.read_into(lines.write, int(str(reply["size"])))
            if time.monotonic() - beaten >= BEAT_S:
                link.send("beat")
                beaten = time.monotonic()
        return None

    def _insist(self, step: Callable[[AgentLink], Answer]) -> Answer:
        """Carry out a step, over a fresh connection each time that one breaks, until none can be had for too long."""
        while True:
            link = self._link or self._reconnect()
            try:
                return step(link)
            except ConnectionLost as lost:
                self._drop()
                self._stop.raise_if_set()
                self._say(f"{lost}; connecting again")

    def _reconnect(self) -> AgentLink:
        deadline, pause_s = time.monotonic() + self._reconnect_s, 0.5
        while True:
            try:
                self._link = self._open()
                return self._link
            except ConnectionLost as lost:
                self._stop.raise_if_set()
                if time.monotonic() + pause_s > deadline:
                    raise ConnectionLost(
                        f"{lost}; tried for {self._reconnect_s:g} s after the connection broke: run the same command "
                        "again once the device answers; what it still runs for this one ends by itself"
                    ) from lost
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    def _greet(self, stop: Optional[Stop]) -> AgentLink:
        """Return a link to a new agent, whose work folder is in order."""
        link = AgentLink(self._ssh, stop)
        try:
            said = link.call("hello", work=self._ssh.entry.work_folder, lease_s=LEASE_S)
            if not said["has_numpy"]:
                raise DeviceError(
                    f"{self._ssh.where}: expected NumPy for its Python {said['python']}; got "
                    f"none; install it there: {self._ssh.entry.python} -m pip install numpy (or: sudo apt install "
                    "python3-numpy)"
                )
        except BaseException:
            link.close()
            raise
        return link

    def _open(self) -> AgentLink:
        """Return a link that has the device for this job, waiting for others; or that finds the job there again."""
        self._stop.raise_if_set()
        link = self._greet(self._stop)
        try:
            link.send("open", job=self._job, owner=self._owner)
            reply = self._await_turn(link)
            if self._is_started and not reply["is_started"]:
                raise DeviceError(
                    f"{self._ssh.where}: expected the job that was started there; got none; "
                    "its work folder was emptied meanwhile, or another one is there now; run it again"
                )
            self._is_started = bool(reply["is_started"])
        except BaseException:
            link.close()
            raise
        return link

    def _await_turn(self, link: AgentLink) -> Reply:
        """Wait for whoever has the device, and end what a process of this machine left when it died."""
        deadline, told = time.monotonic() + LOCK_WAIT_S, ""
        while time.monotonic() < deadline:
            reply = link.poll(BEAT_S)
            if reply is None:
                link.send("beat")
            elif reply["event"] == "open":
                return reply
            else:
                owner = holder.owner_of(reply)
                told = holder.in_words(owner)
                if holder.is_dead(owner):
                    link.send("evict")
                else:
                    self._say(f"{self._ssh.name}: waiting for {told}")
        raise DeviceError(
            f"{self._ssh.where}: expected it to be free within {LOCK_WAIT_S / 60:g} min; "
            f"still held by {told}; try again later"
        )

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _explain_vanishing(end: Reply) -> str:
    if end.get("was_rebooted"):
        return "a restart of the device in the middle of it; run the same command again: finished stages are kept"
    free = float(str(end.get("free", -1)))
    if 0 <= free < 1e6:
        return "no trace of its end: the device's disk is full; free some, then run the same command again"
    return (
        "no trace of its end: the device lost power, or all its processes were killed; run the same command again: "
        "finished stages are kept"
    )
