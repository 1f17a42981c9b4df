"""`edgeproof devices`: which devices there are, adding one, and whether a deploy to them would work."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.errors import UsageError
from pipeline.inventory import FILE, add_device, choose_devices, load_inventory
from pipeline.report.wording import byte_words, second_words
from pipeline.verbs.output import console_for_people, write_json
from targets.devices import holder
from targets.devices.device import Device, open_device
from targets.devices.inventory import LOCAL, DeviceEntry, Inventory
from targets.devices.openssh import OpenSsh
from targets.devices.survey import RUNTIMES, clear_over, find_runtimes
from targets.errors import DeviceError

MOST_AT_ONCE = 64
LEAST_FREE_BYTES = 200 << 20
"""Room for the runner, a model, and what a job writes."""
SHOWN = (
    *("arch", "os", "kernel", "board", "l4t", "jetpack", "python", "numpy", "trtexec", "power_mode", "cpu"),
    *("work_folder", "free_bytes", "uptime_s"),
)
"""Facts that the table shows, in its order, where a device has them."""
_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


@dataclass(frozen=True, kw_only=True)
class AddRequest:
    """The command line of `devices add`, as typed."""

    name: str
    address: str
    port: int | None = None
    key: str | None = None
    known_hosts: str | None = None
    jump: str | None = None
    python: str | None = None
    work_folder: str | None = None
    devices: Path | None = None


@dataclass(frozen=True)
class Findings:
    """What was found out about one device."""

    name: str
    address: str
    is_reachable: bool
    facts: dict[str, object] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)
    """Versions of the runtimes that work there."""
    sensors: dict[str, object] = field(default_factory=dict)
    """What they say now, or why they are unavailable."""
    problems: tuple[str, ...] = ()
    """What would stop a deploy, and how to mend it."""
    notes: tuple[str, ...] = ()


def run_list(devices: Path | None, *, as_json: bool) -> int:
    """Print what the inventory holds."""
    inventory = load_inventory(devices)
    if as_json:
        write_json(_list_as_json(inventory))
        return 0
    console = console_for_people(as_json=False)
    table = _table("device", "transport", "address", "python", "work folder", "groups")
    for name, entry in ((LOCAL, inventory.find(LOCAL)), *inventory.devices.items()):
        groups = ", ".join(group for group, members in inventory.groups.items() if name in members)
        is_ssh = entry.transport == "ssh"
        cells = (address_of(entry), entry.python, entry.work_folder) if is_ssh else ("this machine", "", "")
        table.add_row(name, entry.transport, *cells, groups)
    console.print(table)
    read = ", ".join(map(str, inventory.files)) or f"no {FILE}, neither here nor of the user"
    console.print(Text(f"inventory: {read}"), soft_wrap=True)
    return 0


def run_add(request: AddRequest) -> int:
    """Append a device to the inventory, and say how to go on."""
    user, at, host = request.address.rpartition("@")
    if not host or (at and not user):
        raise UsageError(f"ADDRESS: expected USER@HOST, or HOST; got {request.address!r}")
    typed: dict[str, JsonValue] = {
        "host": host,
        "user": user or None,
        "port": request.port,
        "key": request.key,
        "known_hosts": request.known_hosts,
        "jump": request.jump,
        "python": request.python,
        "work_folder": request.work_folder,
    }
    path = request.devices or Path(FILE)
    add_device(path, request.name, {key: value for key, value in typed.items() if value is not None})
    check = f"edgeproof devices check {request.name}" + (f" --devices {path}" if request.devices else "")
    text = f"{path}: {request.name} added; see whether it is ready: {check}"
    console_for_people(as_json=False).print(Text(text), soft_wrap=True)
    return 0


def run_check(names: Sequence[str], devices: Path | None, *, as_json: bool) -> int:
    """Connect to devices, all at once, and print what is there and what would stop a deploy; 4 where anything would."""
    inventory = load_inventory(devices)
    chosen = choose_devices(names, inventory, "NAME") or (*inventory.devices,) or (LOCAL,)
    console = console_for_people(as_json=as_json)
    with (
        console.status(f"asking {len(chosen)} device(s)"),
        ThreadPoolExecutor(min(MOST_AT_ONCE, len(chosen))) as pool,
    ):
        found = list(pool.map(lambda name: examine(open_device(name, Path("build/work"), inventory)), chosen))
    if as_json:
        write_json([_as_json(each) for each in found])
    else:
        for each in found:
            _show(console, each)
    return 4 if any(each.problems for each in found) else 0


def run_clean(name: str, devices: Path | None) -> int:
    """Remove from a device what is kept there between jobs."""
    entry = load_inventory(devices).find(name)
    if entry.transport == LOCAL:
        raise UsageError(f"NAME: expected a device behind ssh; got {name}, this machine, where nothing is kept")
    clear_over(OpenSsh(name, entry))
    text = f"{name}: runner, models and left jobs are gone from {entry.work_folder}; releases that were installed stay"
    console_for_people(as_json=False).print(Text(text), soft_wrap=True)
    return 0


def examine(device: Device) -> Findings:
    """Ask a device what it is and has, then each runtime that is there whether it works."""
    address = address_of(device.entry)
    try:
        facts = device.survey(tuple(RUNTIMES))
    except DeviceError as error:
        return Findings(device.name, address, is_reachable=False, problems=(str(error),))
    present = find_runtimes(facts)
    facts.pop("runtimes")
    runtimes: dict[str, str] = {}
    sensors: dict[str, object] = {}
    problems: list[str] = []
    owner = facts.pop("holder", None)
    if owner is not None:
        return Findings(device.name, address, is_reachable=True, facts=facts, notes=(_busy(owner),))
    if "numpy" not in facts:
        problems.append(f"numpy: expected it for {facts['python_path']}; got none: {_install(device, facts, 'numpy')}")
    for target in present if not problems else ():
        try:
            probed = device.probe(target)
        except DeviceError as error:
            problems.append(str(error))
            continue
        runtimes[target.kind] = probed.identity["runtime_version"]
        facts, sensors = {**probed.identity, **facts}, dict(probed.context)
    if not present and not problems:
        problems.append(f"runtimes: expected at least one; got none: {_install(device, facts, next(iter(RUNTIMES)))}")
    free = facts.get("free_bytes")
    if isinstance(free, int) and free < LEAST_FREE_BYTES:
        problems.append(f"disk: expected {byte_words(LEAST_FREE_BYTES)} free; got {byte_words(free)}: free some there")
    return Findings(
        device.name,
        address,
        is_reachable=True,
        facts=facts,
        runtimes=runtimes,
        sensors=sensors,
        problems=(*problems, *(() if runtimes else device.find_problems(facts))),
    )


def address_of(entry: DeviceEntry) -> str:
    """Return where a device is, for people."""
    if entry.transport == LOCAL:
        return "this machine"
    port = f":{entry.port}" if entry.port else ""
    jump = f" through {entry.jump}" if entry.jump else ""
    return f"{entry.user}@{entry.host}{port}{jump}" if entry.user else f"{entry.host}{port}{jump}"


def _busy(owner: object) -> str:
    words = holder.in_words(holder.owner_of({"holder": owner}))
    return f"busy: {words}; runtimes and sensors are asked when it is free"


def _install(device: Device, facts: dict[str, object], package: str) -> str:
    where = "" if device.entry.transport == LOCAL else f"ssh {address_of(device.entry)} "
    return f"{where}{facts['python_path']} -m pip install {package}"


def _show(console: Console, found: Findings) -> None:
    state = "ready" if not found.problems and not found.notes else "busy" if found.notes else "not ready"
    reached = "" if found.is_reachable else ", not reachable"
    console.print(Text(f"{found.name} ({found.address}): {state}{reached}"), soft_wrap=True)
    table = _table("", "")
    for name in SHOWN:
        if name in found.facts:
            table.add_row(
                f"  {name.removesuffix('_bytes').removesuffix('_s').replace('_', ' ')}", _worded(name, found.facts)
            )
    if found.runtimes:
        table.add_row("  runtimes", ", ".join(f"{kind} {version}" for kind, version in found.runtimes.items()))
    for name, said in _flat(found.sensors):
        table.add_row(f"  {name}", said)
    console.print(table)
    for label, lines in (("would stop a deploy", found.problems), ("note", found.notes)):
        for line in lines:
            console.print(Text(f"  {label}: {line}"), soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _worded(name: str, facts: dict[str, object]) -> str:
    value = facts[name]
    if name == "free_bytes":
        return byte_words(float(str(value)))
    return second_words(float(str(value))) if name == "uptime_s" else str(value)


def _flat(said: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield what sensors said, nested ones as `settings.governor`; what the facts told is left out."""
    for name, value in said.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif name not in SHOWN:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _list_as_json(inventory: Inventory) -> JsonValue:
    devices = {LOCAL: inventory.find(LOCAL), **inventory.devices}
    said: dict[str, object] = {
        "files": [str(path) for path in inventory.files],
        "devices": {name: {"address": address_of(entry), **asdict(entry)} for name, entry in devices.items()},
        "groups": inventory.groups,
    }
    found: JsonValue = _JSON.dump_python(said, mode="json")
    return found


def _as_json(found: Findings) -> JsonValue:
    said = {"is_ready": not found.problems and not found.notes, **asdict(found)}
    value: JsonValue = _JSON.dump_python(said, mode="json")
    return value
