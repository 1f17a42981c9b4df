"""What a device is, before any job: asked over its connection, and compared with what the inventory expects.

Rule: nothing here raises for what is found; a difference is a sentence that says what to do.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Type

from targets import TARGETS, AnyTarget
from targets.devices import holder
from targets.devices.agent_link import AgentLink
from targets.devices.inventory import DeviceEntry
from targets.devices.openssh import OpenSsh
from targets.errors import DeviceError

Survey = Callable[[Sequence[str]], Dict[str, object]]
"""Takes names of modules, and returns facts; `runtimes` holds the versions of those modules that are there."""
LEASE_S = 180.0

RUNTIMES: Dict[str, Type[AnyTarget]] = {"onnx" if target.kind == "null" else target.kind: target for target in TARGETS}
"""Targets by the Python module that says whether they are there."""


def describe_over(ssh: OpenSsh, modules: Sequence[str]) -> Dict[str, object]:
    """Return what a device says of itself, its work folder, and who works there; raises DeviceError as a job would."""
    link = AgentLink(ssh)
    try:
        said = link.call("hello", work=ssh.entry.work_folder, lease_s=LEASE_S)
        facts = link.call("describe", modules=list(modules))
    finally:
        link.close()
    facts.pop("event")
    return {**facts, "work_folder": said["work"], "free_bytes": said["free"], "holder": said["holder"]}


def clear_over(ssh: OpenSsh) -> None:
    """Remove what is kept on a device between jobs; releases stay. Raises DeviceError where somebody works there."""
    link = AgentLink(ssh)
    try:
        link.call("hello", work=ssh.entry.work_folder, lease_s=LEASE_S)
        reply = link.call("clear", owner=holder.describe_myself())
    finally:
        link.close()
    if reply["event"] == "held":
        words = holder.in_words(holder.owner_of(reply))
        raise DeviceError(f"{ssh.where}: expected nobody at work there; got {words}; try again later")


def find_runtimes(facts: Mapping[str, object]) -> List[AnyTarget]:
    """Return the targets whose runtimes a device seems to have; whether they work, a probe tells."""
    modules = facts["runtimes"]
    assert isinstance(modules, dict)
    has_trtexec = "trtexec" in facts  # JetPack's, also where its Python module is not installed
    return [target() for name, target in RUNTIMES.items() if name in modules or (name == "tensorrt" and has_trtexec)]


def find_mismatches(entry: DeviceEntry, facts: Mapping[str, object]) -> Iterator[str]:
    """Yield how a device differs from its entry."""
    for name, expected in entry.expect.items():
        found = facts.get(name)
        if found is None or not str(found).startswith(expected):
            said = "nothing of that name" if found is None else f'"{found}"'
            yield (
                f'expect.{name}: expected "{expected}", or what begins so; got {said}; see whether it is the device '
                "that you mean, or correct the inventory"
            )
    mode = facts.get("power_mode")
    if entry.power_modes and mode not in entry.power_modes:
        listed = ", ".join(entry.power_modes)
        said = "none that it tells of" if mode is None else str(mode)
        yield f"power_modes: expected one of {listed}; got {said}; set it there: sudo nvpmodel -m NUMBER"
