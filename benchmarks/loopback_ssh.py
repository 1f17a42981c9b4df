"""A real ssh server on this machine, and a wire before it that can be cut, held, and counted."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from targets.devices.inventory import DeviceEntry

NEEDS_SSHD = "needs sshd: install openssh-server"


def find_sshd() -> str | None:
    """Return the server's program, where it is installed."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_key(path: Path) -> Path:
    """Write a new key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@dataclass
class Sshd:
    """sshd with keys and configuration of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def entry(self) -> DeviceEntry:
        """The inventory's entry that reaches it."""
        return DeviceEntry(
            host="127.0.0.1",
            user=pwd.getpwuid(os.getuid()).pw_name,
            port=self.port,
            key=str(self.folder / "key"),
            known_hosts=str(self.folder / "known_hosts"),
            python=sys.executable,
            work_folder=str(self.folder / "device"),
        )

    @property
    def work(self) -> Path:
        """The work folder of that entry."""
        return self.folder / "device"

    def prepare(self) -> "Sshd":
        """Write its keys and configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("key", "host"):
            if not (self.folder / name).exists():
                make_key(self.folder / name)
        self.know(self.port)
        (self.folder / "authorized").write_text((self.folder / "key.pub").read_text())
        lines = (
            *self.options,  # sshd takes the first of two
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            "PidFile none",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "StrictModes no",
            "MaxStartups 100",
        )
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        return self

    def know(self, *ports: int) -> None:
        """Make this server's host key known on these ports."""
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text("".join(f"[127.0.0.1]:{port} {key}\n" for port in ports))

    def start(self) -> "Sshd":
        """Start it, and wait until it answers."""
        server = find_sshd()
        assert server is not None, NEEDS_SSHD
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [server, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "sshd.log")]
        self.process = subprocess.Popen(command, start_new_session=True)
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def sessions(self) -> list[int]:
        """List the server's processes that serve connections."""
        assert self.process is not None
        found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        children: dict[int, list[int]] = {}
        for line in found.splitlines():
            pid, parent = map(int, line.split())
            children.setdefault(parent, []).append(pid)
        first = children.get(self.process.pid, [])
        return [*first, *(pid for each in first for pid in children.get(each, []))]

    def stop(self) -> None:
        """End the server and every connection, as a power cut does; what runs detached is not its own."""
        if self.process is None:
            return
        for pid in [*self.sessions(), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Wire:
    """A TCP connection's way to the server: it counts, and can be cut after some bytes, held still, or closed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent_bytes = 0
        self.cut_after: int | None = None
        self.bytes_a_second: int | None = None
        self.is_held = threading.Event()
        self.is_closed = False
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection that there is; new ones go through."""
        pairs, self._pairs = self._pairs, []
        for each in pairs:
            with suppress(OSError):  # it had ended
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """Break all connections, and take no more."""
        self.is_closed = True
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if self.is_closed:
                    return
                client.close()
                continue
            self._pairs += [client, server]
            for source, sink, is_sending in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, is_sending), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_sending: bool) -> None:
        try:
            while block := source.recv(1 << 15):
                while self.is_held.is_set():
                    time.sleep(0.01)
                sink.sendall(block)
                if is_sending:
                    self._count(len(block))
        except OSError:
            return
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        self.sent_bytes += size
        if self.bytes_a_second:
            time.sleep(size / self.bytes_a_second)
        if self.cut_after is not None and self.sent_bytes >= self.cut_after:
            self.cut_after = None
            self.cut()


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for something to come true; raises AssertionError where it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
