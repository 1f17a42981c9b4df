"""The system's OpenSSH: one shared connection to a device, its options, and its complaints in words.

Rule: users' own ssh_config, agents, jump hosts and security keys work, because it is their ssh; host keys are strict.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple, Type

from targets.devices.inventory import DeviceEntry
from targets.errors import ConnectionLost, DeviceError

CONNECT_S = 10
PERSIST_S = 60
"""How long a connection that nobody uses stays open: for the next job, and the next command."""
ALIVE_S, ALIVE_COUNT = 5, 3
"""A peer that leaves so many questions in a row unanswered, asked after so many seconds each, is gone."""
BUSY = "kex_exchange_identification|Connection closed by|Connection reset by"
"""What a server that has too many strangers at its door says, at random (MaxStartups)."""
BUSY_ATTEMPTS = 8
LONGEST_SOCKET = 90
"""Characters of a socket's path; systems allow 104 or 108, and ssh adds some while it connects."""

Complaint = Tuple[str, Type[DeviceError], str, str]
COMPLAINTS: Tuple[Complaint, ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        DeviceError,
        "the host key that was known before; got another one: another device answers there, or it was set up anew",
        "find out which; if it was set up anew, remove the old key: ssh-keygen -R '{key_name}'{known_hosts_file}, then "
        "connect once by hand: {by_hand}",
    ),
    (
        "host key is known for|Host key verification failed",
        DeviceError,
        "a host key that is known; got one never seen before",
        "connect once by hand, and compare the fingerprint: {by_hand}",
    ),
    (
        "UNPROTECTED PRIVATE KEY FILE|bad permissions",
        DeviceError,
        "a private key that nobody else can read; got one that others can",
        "run: chmod 600 {key}",
    ),
    (
        "Permission denied|Too many authentication failures|No more authentication methods",
        DeviceError,
        "to be let in by {key}; got: permission denied",
        "put the public key on the device: ssh-copy-id {copy_options}, or name another key or user in the inventory; "
        "a key with a passphrase must be in ssh-agent",
    ),
    (
        "Could not resolve hostname|Name or service not known|nodename nor servname",
        ConnectionLost,
        "a host that is known by name; got: no such host",
        "correct host in the inventory, or use its IP address; a name on the local network may need .local",
    ),
    (
        "Connection refused",
        ConnectionLost,
        "an ssh server; got: connection refused",
        "start sshd there (sudo systemctl enable --now ssh), or correct port in the inventory",
    ),
    (
        "timed out|No route to host|Network is unreachable|Host is down",
        ConnectionLost,
        "an answer within {connect_s} s; got none",
        "see whether it is switched on and in the same network: ping {host}",
    ),
    (
        "kex_exchange_identification|Connection closed|Connection reset|banner|Broken pipe|lost connection",
        ConnectionLost,
        "an ssh server that talks; got: {last}",
        "see whether that port is sshd's, and what it logs: journalctl -u ssh",
    ),
)
"""What ssh writes, what that was instead of, and what to do."""


@dataclass(frozen=True)
class OpenSsh:
    """How to reach one device by the `ssh` of this machine."""

    name: str
    entry: DeviceEntry

    @property
    def address(self) -> str:
        """Return user, host and port, as far as the inventory names them."""
        port = f":{self.entry.port}" if self.entry.port else ""
        return f"{self._destination}{port}"

    @property
    def where(self) -> str:
        """Return how errors begin."""
        return f"device {self.name!r} ({self.address})"

    def command(self, remote: str) -> List[str]:
        """Return the command line that runs a shell command over the shared connection, or where it broke, its own."""
        return [*self._base("-o", "ControlMaster=no"), self._destination, remote]

    def connect(self) -> None:
        """Have the shared connection.

        Raises:
            ConnectionLost: nothing answers there at the moment.
            DeviceError: it answers, but will not do, or this machine has no ssh.
        """
        if shutil.which("ssh") is None:
            raise DeviceError("ssh: expected the command on this machine; got none; install OpenSSH's client")
        self._require_key()
        with _holding(self._socket.with_suffix(".lock")):
            if self._is_connected():
                return
            self._socket.unlink(missing_ok=True)
            said = self._start_connection()
            for attempt in range(BUSY_ATTEMPTS):
                if said is None or not re.search(BUSY, said):
                    break
                time.sleep(random.uniform(0.2, 0.6) * (attempt + 1))  # many came at once; not so again
                said = self._start_connection()
            if said is not None:
                raise self.explain(said)

    def _start_connection(self) -> Optional[str]:
        """Leave a connection in the background; return what ssh complains of where there is none."""
        persist = ("-o", "ControlMaster=yes", "-o", f"ControlPersist={PERSIST_S}")
        with tempfile.TemporaryFile() as said:  # no pipe: the connection stays in the background and keeps it open
            done = subprocess.run(
                [*self._base(*persist), "-f", "-N", self._destination],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=self.environment(),
                start_new_session=True,  # Ctrl-C must leave the way to the device open, to clean up there
                check=False,
            )
            said.seek(0)
            return None if done.returncode == 0 else said.read().decode("utf-8", "replace")

    def disconnect(self) -> None:
        """End the shared connection, where there is one."""
        subprocess.run(
            [*self._base("-o", "ControlMaster=no"), "-O", "exit", self._destination],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )

    def environment(self) -> Dict[str, str]:
        """Return the environment in which ssh complains in the words that COMPLAINTS lists."""
        return {**os.environ, "LC_ALL": "C"}

    def explain(self, said: str) -> DeviceError:
        """Return what ssh wrote as an error in words: what was expected, what came, what to do."""
        lines = [line.strip() for line in said.splitlines() if line.strip(" @")]
        last = lines[-1] if lines else "nothing"
        for pattern, kind, words, advice in COMPLAINTS:
            if re.search(pattern, said):
                text = f"{self.where}: expected {words}; {advice}"
                return kind(self._fill(text, last))
        return ConnectionLost(f"{self.where}: expected a connection; ssh says: {last}; try by hand: {self._by_hand()}")

    def _fill(self, text: str, last: str) -> str:
        entry = self.entry
        host = entry.host if entry.port in (None, 22) else f"[{entry.host}]:{entry.port}"
        copy = " ".join([*(["-i", entry.key + ".pub"] if entry.key else []), *self._port(), self._destination])
        return text.format(
            key=entry.key or "a key of yours",
            key_name=host,
            known_hosts_file=f" -f {entry.known_hosts}" if entry.known_hosts else "",
            by_hand=self._by_hand(),
            copy_options=copy,
            connect_s=CONNECT_S,
            host=entry.host,
            last=last,
        )

    def _by_hand(self) -> str:
        known = ["-o", f'UserKnownHostsFile="{self.entry.known_hosts}"'] if self.entry.known_hosts else []
        return " ".join(["ssh", *self._identity(), *known, *self._port(), self._destination])

    @property
    def _destination(self) -> str:
        return f"{self.entry.user}@{self.entry.host}" if self.entry.user else str(self.entry.host)

    def _port(self) -> List[str]:
        return ["-p", str(self.entry.port)] if self.entry.port else []

    def _identity(self) -> List[str]:
        jump = ["-J", self.entry.jump] if self.entry.jump else []
        return [*(["-i", self.entry.key, "-o", "IdentitiesOnly=yes"] if self.entry.key else []), *jump]

    def _base(self, *control: str) -> List[str]:
        known = ["-o", f'UserKnownHostsFile="{self.entry.known_hosts}"'] if self.entry.known_hosts else []
        options = (
            *("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "RequestTTY=no"),
            *("ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no"),
            *(f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_COUNT}"),
            f"ControlPath={self._socket}",
        )
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", *control, *flags, *known, *self._identity(), *self._port()]

    @property
    def _socket(self) -> Path:
        """The shared connection's: another one where any option differs, so that none is ever misled."""
        entry = self.entry
        parts = (self.name, entry.host, entry.user, entry.port, entry.key, entry.known_hosts, entry.jump)
        return _control_folder() / hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _is_connected(self) -> bool:
        if not self._socket.exists():
            return False
        check = [*self._base("-o", "ControlMaster=no"), "-O", "check", self._destination]
        return subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

    def _require_key(self) -> None:
        if self.entry.key and not Path(self.entry.key).is_file():
            raise DeviceError(
                f"device {self.name!r}: key: expected a private key file; got nothing at {self.entry.key}; "
                "make one: ssh-keygen -t ed25519 -f " + self.entry.key
            )


def _control_folder() -> Path:
    """Return a folder that belongs to this user alone, for sockets whose paths must be short."""
    named: Optional[str] = os.environ.get("XDG_RUNTIME_DIR")
    for parent in (named, tempfile.gettempdir(), "/tmp"):
        if not parent or len(parent) > LONGEST_SOCKET - 40:
            continue
        folder = Path(parent) / f"edgeproof-ssh-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077:
            return folder
    raise DeviceError(
        "ssh: expected a folder for its sockets in XDG_RUNTIME_DIR or /tmp that belongs to this user alone; got none; "
        "set TMPDIR to a short path that does"
    )


@contextmanager
def _holding(path: Path) -> Iterator[None]:
    """Let one process and thread at a time make the connection."""
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
