"""`edgeproof rollback`: what a device has installed, and the way back to an earlier release."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipeline.errors import UsageError
from pipeline.install import installed_words
from pipeline.inventory import load_inventory
from pipeline.run import work_folder
from pipeline.schema import nearest
from pipeline.verbs.output import console_for_people, write_json
from targets.devices.device import Device, open_device
from targets.devices.install import OnDisk, list_installed, roll_back


def run_rollback(
    device_name: str, release: str | None, *, version: str, devices: Path | None, build: Path, as_json: bool
) -> int:
    """Make an earlier release current again on a device, and say which."""
    device = open_device(device_name, work_folder(build), load_inventory(devices))
    installed = roll_back(device, choose_release(device, release), version)
    if as_json:
        write_json(asdict(installed))
    else:
        console_for_people(as_json=False).print(Text(installed_words(installed)), soft_wrap=True)
    return 0


def run_list(device_name: str, devices: Path | None, *, build: Path, as_json: bool) -> int:
    """Print what a device has installed, and how it came to be current."""
    found = list_installed(open_device(device_name, work_folder(build), load_inventory(devices)))
    if as_json:
        write_json([asdict(each) for each in found])
        return 0
    console = console_for_people(as_json=False)
    if not found:
        console.print(Text(f"{device_name}: nothing is installed; `edgeproof deploy` installs what it releases"))
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("release", "version", "state", "since"):
        table.add_column(column, overflow="fold")
    for each in found:
        for version in each.versions:
            table.add_row(each.name, version, "current" if version == each.current else "", _since(each, version))
    console.print(table)
    return 0


def choose_release(device: Device, name: str | None) -> str:
    """Return the release that is meant: the only one on the device where none is named.

    Raises:
        UsageError: the device has no release of that name, several, or none.
    """
    names = tuple(each.name for each in list_installed(device))
    if name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    listed = ", ".join(names) or "no release at all"
    got = f"{name}{nearest(name, names)}" if name else "none named"
    raise UsageError(f"RELEASE: expected one that is installed on {device.name}: {listed}; got {got}")


def _since(each: OnDisk, version: str) -> str:
    """Return when a version became current for the last time, and how."""
    switch = next((switch for switch in reversed(each.history) if switch.version == version), None)
    if switch is None:
        return ""
    return f"{datetime.fromtimestamp(switch.time, UTC):%Y-%m-%d %H:%M} UTC, by {switch.action}"
