"""The inventory as values: how each device is reached, what is expected of it, and groups of devices.

Rule: what a file says is validated where it is read (pipeline.inventory); these are the fields of its tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Dict, Iterable, Literal, Mapping, Optional, Tuple

from targets.errors import DeviceError

LOCAL = "local"
"""The device that needs no entry: this machine."""


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """One device: `[devices.NAME]`."""

    __pydantic_config__: ClassVar[Dict[str, object]] = {
        "extra": "forbid",
        "strict": True,
        "use_attribute_docstrings": True,
    }

    transport: Literal["ssh", "local"] = "ssh"
    """How it is reached: `ssh`, by this machine's OpenSSH; or `local`, this machine itself."""
    host: Optional[str] = None
    """Its address, its name, or an alias of your ssh_config."""
    user: Optional[str] = None
    """Who logs in; as ssh_config says if left out."""
    port: Optional[int] = None
    """Port of its ssh server; as ssh_config says if left out, else 22."""
    key: Optional[str] = None
    """Private key file; your agent and ssh_config if left out. Relative paths start at the inventory's folder."""
    known_hosts: Optional[str] = None
    """File of known host keys; yours if left out. An unknown or changed host key is always refused."""
    jump: Optional[str] = None
    """Hosts to go through, `user@host:port`, with commas between them."""
    python: str = "python3"
    """Its Python, 3.8 or newer, with NumPy and the runtime."""
    work_folder: str = "~/.edgeproof"
    """Where everything of ours lies on it: jobs while they run, models and the runner until they were not needed for a
    week, and the releases that were installed."""
    expect: Mapping[str, str] = field(default_factory=dict)
    """Facts that must hold before anything runs there: `arch`, `cpu`, `os`, `l4t`, ...; each the beginning of what the
    device says."""
    power_modes: Tuple[str, ...] = ()
    """Power modes to measure in; any if left out."""
    emulated: bool = False
    """Whether it is emulated: then its times mean nothing, and no latency is ever decided."""
    sensor_root: str = "/"
    """Where its /sys and /proc are looked for; another folder than `/` is for rehearsals with recorded files."""

    def __post_init__(self) -> None:
        if self.transport == "ssh" and not self.host:
            raise ValueError('host: missing: address of the device; for example host = "192.168.1.20"')
        if self.transport == "local" and self.host:
            raise ValueError('host: expected none where transport = "local"; leave one of the two out')
        if not self.work_folder.startswith(("/", "~/")) or self.work_folder.rstrip("/") in ("", "~"):
            raise ValueError(f'work_folder: expected a folder of its own, from / or ~/ on; got "{self.work_folder}"')
        for name in ("host", "user", "jump"):
            value = getattr(self, name)
            if value is not None and (value.startswith("-") or any(character.isspace() for character in value)):
                raise ValueError(f"{name}: expected a name without spaces, and no option; got {value!r}")
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"port: expected a number from 1 to 65535; got {self.port}")

    @property
    def is_particular(self) -> bool:
        """Whether it expects anything of the device."""
        return bool(self.expect or self.power_modes)


THIS_MACHINE = DeviceEntry(transport="local")


@dataclass(frozen=True)
class Inventory:
    """All devices that are known, beside `local`."""

    devices: Mapping[str, DeviceEntry] = field(default_factory=dict)
    groups: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)
    files: Tuple[Path, ...] = ()
    """Where it was read from."""

    def find(self, name: str) -> DeviceEntry:
        """Return a device's entry; raises DeviceError where there is none, and says how to add one."""
        if name in self.devices:
            return self.devices[name]
        if name == LOCAL:
            return THIS_MACHINE
        known = (LOCAL, *self.devices)
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        read = f"in {', '.join(map(str, self.files))}" if self.files else "no inventory was found"
        raise DeviceError(
            f"device {name!r}: expected one of {', '.join(known)}; got {name!r}{hint}; {read}: add it with "
            f"`edgeproof devices add {name} USER@HOST`, or name the inventory with --devices FILE"
        )

    def expand(self, names: Iterable[str]) -> Tuple[str, ...]:
        """Return devices by name, each group as its members, each device once."""
        listed = [member for name in names for member in self.groups.get(name, (name,))]
        return tuple(dict.fromkeys(listed))


LOCAL_ALONE = Inventory()
