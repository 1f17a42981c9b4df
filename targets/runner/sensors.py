"""What a device's sensors said while a model was timed, as values that cross to the host.

Rule: devices carry this file: Python 3.8, standard library only. What could not be read is absent with its reason in
`unavailable`, or None at one moment; never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Literal, Mapping, Optional, Tuple, get_args

Quantity = Literal[
    "clock",
    "temperature",
    "power",
    "energy",
    "cooling",
    "throttling",
    "pressure",
    "load",
    "other_load",
    "steal",
    "swapping",
]
QUANTITIES: Tuple[str, ...] = get_args(Quantity)

UNITS: Dict[str, str] = {
    "clock": "MHz",
    "temperature": "C",
    "power": "mW",
    "energy": "uJ",
    "cooling": "steps",
    "throttling": "events",
    "pressure": "us",
    "load": "processes",
    "other_load": "s",
    "steal": "s",
    "swapping": "pages",
}
"""Of the values of each quantity."""

COUNTERS: Tuple[str, ...] = ("energy", "throttling", "pressure", "other_load", "steal", "swapping")
"""Quantities that only grow, from wherever they are: what counts is `Channel.increase`.

`throttling`: events of heat or current; `pressure`: time in which some task waited for a processor; `other_load`:
processor time of all other processes; `steal`: processor time that other virtual machines had. Of the levels,
`cooling` tells how far a clock is held back: above zero it is throttled now.
"""


@dataclass(frozen=True)
class Channel:
    """One sensor over time."""

    quantity: Quantity
    name: str
    """The sensor's own: a rail, a thermal zone, a clock's policy."""
    values: Tuple[Optional[float], ...]
    """In `UNITS[quantity]`, one for each of the trace's times; None where a reading failed."""
    limit: Optional[float] = None
    """The most that its own tables name: a clock's highest as it is set, a zone's lowest temperature that throttles."""

    @property
    def known(self) -> Tuple[float, ...]:
        """Return the readings that succeeded."""
        return tuple(value for value in self.values if value is not None)

    @property
    def increase(self) -> float:
        """Return by how much a counter grew, restarts of its counting left out."""
        return sum(max(0.0, after - before) for before, after in zip(self.known[:-1], self.known[1:]))


@dataclass(frozen=True)
class Trace:
    """All sensors of a device over one measurement."""

    times_s: Tuple[float, ...] = ()
    """Of each reading, since the first timed inference began; negative before it."""
    channels: Tuple[Channel, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """What is set, at the start: `power_mode`, `governor.policy0`, `max_mhz.policy0`, `min_mhz.gpu`, ..."""
    settings_after: Mapping[str, str] = field(default_factory=dict)
    """The same at the end; what differs was changed meanwhile."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Why a quantity or a setting has no value, by its name."""

    def of(self, quantity: Quantity) -> Tuple[Channel, ...]:
        """Return the channels of a quantity; none where `unavailable` says why."""
        return tuple(channel for channel in self.channels if channel.quantity == quantity)

    @property
    def seconds(self) -> float:
        """Return the time from the first reading to the last."""
        return self.times_s[-1] - self.times_s[0] if self.times_s else 0.0

    @property
    def changed(self) -> Dict[str, Tuple[str, str]]:
        """Return what was set otherwise at the end: before and after, by name."""
        both = sorted(set(self.settings) & set(self.settings_after))
        pairs = {name: (self.settings[name], self.settings_after[name]) for name in both}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def dump_trace(trace: Trace) -> Dict[str, object]:
    """Return a trace as JSON values."""
    channels = [
        {"quantity": each.quantity, "name": each.name, "values": list(each.values), "limit": each.limit}
        for each in trace.channels
    ]
    return {
        "times_s": list(trace.times_s),
        "channels": channels,
        "settings": dict(trace.settings),
        "settings_after": dict(trace.settings_after),
        "unavailable": dict(trace.unavailable),
    }


def load_trace(data: object) -> Trace:
    """Return the trace that `dump_trace` wrote; an empty one where there is none."""
    if not isinstance(data, dict):
        return Trace(unavailable=dict.fromkeys(QUANTITIES, "the device sent no trace"))
    channels: List[Channel] = [
        Channel(each["quantity"], each["name"], tuple(each["values"]), each["limit"]) for each in data["channels"]
    ]
    return Trace(
        times_s=tuple(data["times_s"]),
        channels=tuple(channels),
        settings=data["settings"],
        settings_after=data["settings_after"],
        unavailable=data["unavailable"],
    )
