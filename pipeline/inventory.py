"""The inventory's file: `devices.toml` of the project, of the user, or the one named; read strictly, added to in place.

Rule: what is wrong is told at once, with its place, what was expected, what came and what to do.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, JsonValue, ValidationError, model_validator

from pipeline.errors import UsageError
from pipeline.explain import explain
from pipeline.parts import RecipePart
from pipeline.schema import nearest, schema_of, toml
from targets.devices.inventory import LOCAL, DeviceEntry, Inventory

FILE = "devices.toml"
_NAME_WORDS = 'letters, digits, ".", "_" and "-", beginning with a letter or a digit, at most 64'
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class InventoryFile(RecipePart):
    """Devices by name, and groups of them."""

    devices: dict[str, DeviceEntry] = Field(default={}, examples=[{"jetson": {"host": "192.168.1.20"}}])
    """How each device is reached."""
    groups: dict[str, tuple[str, ...]] = Field(default={}, examples=[{"line": ["jetson"]}])
    """Names that stand for several devices."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "InventoryFile":
        if LOCAL in self.devices:
            raise ValueError(f"devices.{LOCAL}: expected another name; {LOCAL} is this machine, and needs no entry")
        known = (LOCAL, *self.devices)
        for name in (*self.devices, *self.groups):
            if not re.fullmatch(_NAME, name):
                raise ValueError(f"{name}: expected {_NAME_WORDS} as a name; rename it")
        for group, members in self.groups.items():
            if group in known:
                raise ValueError(f"groups.{group}: expected another name than a device's; rename one of the two")
            for member in members:
                if member not in known:
                    got = f"{toml(member)}{nearest(member, known)}"
                    raise ValueError(f"groups.{group}: expected devices: {', '.join(known)}; got {got}")
        return self


def user_file() -> Path:
    """Return where the user's own inventory is looked for."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "edgeproof" / FILE


def load_inventory(named: Path | None = None, folder: Path | None = None) -> Inventory:
    """Return the devices of the file that was named, or of `devices.toml` here and of the user's, where they are.

    A device of the project hides one of the same name of the user.

    Raises:
        UsageError: the named file is missing, or a file is wrong; everything that is, one line each.
    """
    if named is not None:
        if not named.is_file():
            found = "a folder" if named.is_dir() else "nothing there"
            raise UsageError(
                f"--devices {named}: expected an inventory (a TOML file); got {found}; "
                f"`edgeproof devices add NAME USER@HOST --devices {named}` begins one"
            )
        return _read(named)
    project = (folder or Path.cwd()) / FILE
    merged = Inventory()
    for path in (user_file(), project):
        if path.is_file():
            found_here = _read(path)
            merged = Inventory(
                {**merged.devices, **found_here.devices},
                {**merged.groups, **found_here.groups},
                (*merged.files, path),
            )
    return merged


def choose_devices(words: Sequence[str], inventory: Inventory, argument: str) -> tuple[str, ...]:
    """Return the devices that names, groups and patterns (`cam*`) stand for: each once, in the order of the words.

    Raises:
        UsageError: a word stands for none; `argument` is where it was typed.
    """
    known = (LOCAL, *inventory.devices, *inventory.groups)
    chosen: list[str] = []
    for word in words:
        found = [name for name in inventory.devices if fnmatchcase(name, word)] if is_pattern(word) else [word]
        if not found or not {*found} <= {*known}:
            got = f"{word}{nearest(word, known)}"
            raise UsageError(f"{argument}: expected devices or groups: {', '.join(known)}; got {got}")
        chosen += found
    return inventory.expand(chosen)


def is_pattern(word: str) -> bool:
    """Tell whether a word is no name, but a pattern of names."""
    return any(sign in word for sign in "*?[")


def add_device(path: Path, name: str, fields: Mapping[str, JsonValue]) -> None:
    """Append a device to an inventory's file, which begins to be where it is not; what stands there stays as it is.

    Raises:
        UsageError: the file has a device of that name, or would be wrong with it; then nothing is written.
    """
    before = path.read_text("utf-8") if path.is_file() else ""
    if path.is_file() and name in _read(path).devices:
        raise UsageError(f"{path}: expected a name of its own; got {name}, which is there: choose another, or edit it")
    if not re.fullmatch(_NAME, name):
        raise UsageError(f"NAME: expected {_NAME_WORDS}; got {name!r}")
    table = "".join(f"{key} = {toml(value)}\n" for key, value in fields.items())
    text = f"{before}{'' if not before or before.endswith(chr(10)) else chr(10)}{chr(10) if before else ''}"
    text += f"[devices.{toml(name) if '.' in name else name}]\n{table}"
    _parse(text, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: expected a file that can be written; got: {error.strerror}") from error


def _read(path: Path) -> Inventory:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected TOML in UTF-8 that can be read; got: {error}") from error
    return _parse(text, path)


def _parse(text: str, path: Path) -> Inventory:
    try:
        data: JsonValue = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    try:
        read = InventoryFile.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), data, schema_of(InventoryFile))
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems)) from error
    folder = path.absolute().parent
    return Inventory({name: _resolve(entry, folder) for name, entry in read.devices.items()}, read.groups, (path,))


def _resolve(entry: DeviceEntry, folder: Path) -> DeviceEntry:
    """Return the entry with its files found from the inventory's folder."""
    key, known_hosts = (value and str(folder / Path(value).expanduser()) for value in (entry.key, entry.known_hosts))
    return replace(entry, key=key, known_hosts=known_hosts)
