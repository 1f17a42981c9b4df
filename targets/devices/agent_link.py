"""A running agent on a device, seen from the host: requests, replies and bytes over one ssh session.

Rule: whatever breaks is ConnectionLost, and a fresh link may take up where this one ended; nothing waits for ever.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, Optional, Tuple

from targets.devices.openssh import OpenSsh
from targets.devices.stop import Stop
from targets.errors import ConnectionLost, DeviceError
from targets.runner import agent, channel, machine, supervisor, workplace

Reply = Dict[str, object]

MODULES: Tuple[ModuleType, ...] = (channel, supervisor, machine, workplace, agent)
"""What an agent consists of; each needs only those before it."""
GREETING_S = 60.0
"""What ssh and Python may take until the agent answers; an emulated processor takes seconds."""
STALL_S = 60.0
"""A connection that moves nothing for so long is lost."""
MOST_NOISE_BYTES = 1 << 16
"""What a login may print before the agent answers."""
BLOCK_BYTES = 1 << 18

BOOT = """\
import os,sys
if sys.version_info<(3,8): sys.exit("edgeproof-python "+sys.version.split()[0])
b=b""
while len(b)<{size}:
 c=os.read(0,{size}-len(b))
 if len(c)==0: sys.exit(3)
 b+=c
import json,types
p=json.loads(b.decode("utf-8"))
for n,s in p["modules"]:
 m=types.ModuleType(n)
 sys.modules[n]=m
 q,_,r=n.rpartition(".")
 if q: setattr(sys.modules[q],r,m)
 exec(compile(s,n,"exec"),m.__dict__)
m.main(p["token"])
"""
"""Runs on any Python, says which one it is, and reads the agent's sources from its input."""


class AgentLink:
    """One session with an agent of its own."""

    def __init__(self, ssh: OpenSsh, stop: Optional[Stop] = None) -> None:
        """Start an agent, which `stop` ends; raises DeviceError or ConnectionLost where there is none."""
        ssh.connect()
        self._ssh = ssh
        self._stop = stop or Stop()
        token = secrets.token_hex(16)
        payload = _pack_agent(token)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        self._process = subprocess.Popen(
            ssh.command(_boot_command(ssh.entry.python, len(payload))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=ssh.environment(),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the host's to handle: it cleans up over this session
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._writer, self._reader = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._writer, False)
        self._buffer = b""
        self._stop.add(self._process.kill)
        try:
            self.send_bytes(payload)
            self._await_greeting(b"edgeproof-agent " + token.encode() + b"\n")
        except BaseException:
            self.close()
            raise

    def call(self, operation: str, **fields: object) -> Reply:
        """Make a request and return its reply; raises DeviceError where the device fails at it."""
        self.send(operation, **fields)
        return self.receive()

    def send(self, operation: str, **fields: object) -> None:
        """Make a request."""
        self.send_bytes(json.dumps({"op": operation, **fields}).encode() + b"\n")

    def receive(self, timeout_s: float = STALL_S) -> Reply:
        """Return the next reply; raises ConnectionLost where none comes in time, and DeviceError as `call`."""
        reply = self.poll(timeout_s)
        if reply is None:
            raise ConnectionLost(
                f"{self._ssh.where}: expected an answer within {timeout_s:g} s; got none; see whether it hangs"
            )
        return reply

    def poll(self, timeout_s: float) -> Optional[Reply]:
        """Return the next reply, or None where none comes in time."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            if not select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            self._buffer += self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: Reply = json.loads(line)
        if reply["event"] == "failed":
            raise DeviceError(f"{self._ssh.where}: {explain_failure(reply)}")
        return reply

    def send_bytes(self, block: bytes) -> None:
        """Send bytes, as fast as they are taken."""
        view = memoryview(block)
        while view:
            if not select.select([], [self._writer], [], STALL_S)[1]:
                raise ConnectionLost(f"{self._ssh.where}: expected to send; nothing was taken for {STALL_S:g} s")
            try:
                view = view[os.write(self._writer, view) :]
            except OSError as error:
                raise self._explain_loss() from error

    def send_file(self, path: Path, offset: int) -> None:
        """Send a file from `offset` on."""
        with open(path, "rb") as file:
            file.seek(offset)
            for block in iter(lambda: file.read(BLOCK_BYTES), b""):
                self.send_bytes(block)

    def read_into(self, write: Callable[[bytes], object], size: int) -> None:
        """Hand over so many of the bytes that come, also those that came before a loss."""
        while size:
            if not self._buffer:
                if not select.select([self._reader], [], [], STALL_S)[0]:
                    raise ConnectionLost(f"{self._ssh.where}: expected {size} bytes more; got none for {STALL_S:g} s")
                self._buffer = self._read()
            block, self._buffer = self._buffer[:size], self._buffer[size:]
            write(block)
            size -= len(block)

    def close(self) -> None:
        """End the session; what was started on the device goes on."""
        self._stop.remove(self._process.kill)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _read(self) -> bytes:
        block = os.read(self._reader, BLOCK_BYTES)
        if not block:
            raise self._explain_loss()
        return block

    def _await_greeting(self, greeting: bytes) -> None:
        """Skip what the login prints until the agent says that it is here."""
        noise, deadline = b"", time.monotonic() + GREETING_S
        while greeting not in noise:
            if not select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._ssh.disconnect()
                raise ConnectionLost(
                    f"{self._ssh.where}: expected Python to start within {GREETING_S:g} s; see whether it hangs"
                )
            block = os.read(self._reader, BLOCK_BYTES)
            noise += block
            if not block:
                raise self._explain_start(noise)
            if len(noise) > MOST_NOISE_BYTES and greeting not in noise:
                raise DeviceError(
                    f"{self._ssh.where}: expected an agent; got endless output; see what its login prints"
                )
        self._buffer = noise.partition(greeting)[2]

    def _explain_loss(self) -> DeviceError:
        returncode, said = self._end()
        if returncode == 255 or not said:
            return ConnectionLost(f"{self._ssh.where}: expected the connection to last; got: {said or 'it was closed'}")
        return DeviceError(
            f"{self._ssh.where}: expected the agent to go on; got: {said}; this is a defect: please report it"
        )

    def _explain_start(self, noise: bytes) -> DeviceError:
        """Tell why no agent began: no Python, an old one, or no connection."""
        returncode, _ = self._end()
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace") + noise.decode("utf-8", "replace")
        python = self._ssh.entry.python
        where = f"{self._ssh.where}: python"
        advice = "install one (sudo apt install python3 python3-numpy), or name another in the inventory"
        if old := re.search(r"edgeproof-python ([\d.]+)", said):
            return DeviceError(f"{where}: expected {python} to be Python 3.8 or newer; got {old[1]}; {advice}")
        if returncode in (126, 127):
            return DeviceError(f"{where}: expected {python}, 3.8 or newer; got none of that name; {advice}")
        if returncode == 255:
            return self._ssh.explain(said)
        last = ([line for line in said.splitlines() if line.strip()] or ["nothing"])[-1]
        return DeviceError(
            f"{where}: expected {python} to start; got exit status {returncode}: {last.strip()}; try it: "
            f"ssh {self._ssh.address} {python} --version"
        )

    def _end(self) -> Tuple[int, str]:
        """Wait for ssh, and return its exit status and its last line."""
        try:
            returncode = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            returncode = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return returncode, lines[-1] if lines else ""


def explain_failure(reply: Reply) -> str:
    """Return in words what the device's system refused."""
    code, text, path = str(reply["code"]), str(reply["text"]), str(reply["path"])
    free = float(str(reply["free"])) / 1e6
    if code in ("ENOSPC", "EDQUOT"):
        room = f" ({free:.1f} MB are free)" if free >= 0 else ""
        return f"{path}: expected room on the device; got: {text}{room}; free some, or name another work_folder"
    if code in ("EROFS", "EACCES", "EPERM", "ENOTDIR", "ENOENT"):
        return f"{path}: expected a folder that can be written; got: {text}; name another work_folder in the inventory"
    return f"{path}: expected the device to keep its files; got: {text or code}; look at its disk and its system log"


def _boot_command(python: str, size: int) -> str:
    """Return the shell command that starts an agent; one line, right in sh, bash, zsh, fish and csh."""
    name = '"$HOME"/' + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)
    return f"exec {name} -c {shlex.quote(f'exec({json.dumps(BOOT.format(size=size))})')}"


def _pack_agent(token: str) -> bytes:
    packages = [["targets", ""], ["targets.runner", ""]]
    modules = [[module.__name__, Path(str(module.__file__)).read_text(encoding="utf-8")] for module in MODULES]
    return json.dumps({"token": token, "modules": packages + modules}).encode()
