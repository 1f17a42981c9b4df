"""Lines of tegrastats, JetPack 4 to 7. Rule: what a field means is told by its form, since names differ by board.

Devices carry this file: Python 3.8, standard library only. Fields of the line, in any order after RAM:

    RAM 1698/7854MB (lfb 1044x4MB)    SWAP 278/8192MB (cached 23MB)    IRAM 0/252kB(lfb 252kB)
    CPU [0%@1303,off]                 GR3D_FREQ 63%@[621]              EMC_FREQ 0%    NVENC off    APE 150
    MTS fg 1% bg 8%                   tj@46.9C  tj@50C/50C  CV0@-256C  VDD_IN 4915mW/4915mW  POM_5V_IN 1023/928
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Match, Optional, Tuple

from targets.errors import LogRefused

NUMBER = r"-?\d+(?:\.\d+)?"
GATED_C = -256.0
"""What a zone says whose part of the chip is switched off."""
NOT_CONNECTED = "NC"
"""The name of a rail that nothing hangs on."""

TIME = re.compile(r"\s*(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d)\s+")
MEMORY = re.compile(
    r"(RAM|SWAP|IRAM) (\d+)/(\d+)(kB|MB|GB) ?\((?:lfb (?:(\d+)x)?(\d+)(kB|MB|GB)|cached (\d+)(kB|MB|GB))\)"
)
CORES = re.compile(r"CPU \[([^\]]*)\]")
CORE = re.compile(rf"({NUMBER})%(?:@(\d+))?")
MTS = re.compile(r"MTS fg \d+% bg \d+%")
TEMPERATURE = re.compile(rf"([\w.-]+)@({NUMBER})C(?:/{NUMBER}C)*")
RAIL = re.compile(rf"(\w+) ({NUMBER})(?:mW)?/({NUMBER})(?:mW)?(?:/{NUMBER}(?:mW)?)?(?!\w|/)")
ENGINE = re.compile(r"(\w+) (?:(off)|(?:(\d+)%)?@\[([\d,]*)\]|(\d+)%(?:@(\d+))?|(\d+))(?![\w/%@])")
KB = {"kB": 1, "MB": 1024, "GB": 1024**2}


@dataclass(frozen=True)
class Core:
    """One processor core that is on."""

    load_percent: float
    clock_mhz: Optional[float]


@dataclass(frozen=True)
class Engine:
    """A clock or an accelerator: GR3D_FREQ is the graphics processor, EMC_FREQ the memory's controller."""

    is_on: bool
    load_percent: Optional[float] = None
    """Some boards tell it to root alone."""
    clocks_mhz: Tuple[float, ...] = ()


@dataclass(frozen=True)
class TegrastatsLine:
    """What one line says; a field that the board does not have is absent."""

    ram_used_kb: int
    ram_total_kb: int
    time: Optional[str] = None
    largest_free_block_kb: Optional[int] = None
    swap_used_kb: Optional[int] = None
    swap_total_kb: Optional[int] = None
    cores: Tuple[Optional[Core], ...] = ()
    """None for a core that is off."""
    engines: Dict[str, Engine] = field(default_factory=dict)
    temperatures_c: Dict[str, float] = field(default_factory=dict)
    """Without zones that are switched off."""
    power_mw: Dict[str, float] = field(default_factory=dict)
    """Of each rail, now; rails without a load are left out."""
    mean_power_mw: Dict[str, float] = field(default_factory=dict)
    """Since tegrastats began."""
    unknown: Tuple[str, ...] = ()
    """Words that no rule above reads."""


def parse_line(line: str) -> TegrastatsLine:
    """Read one line; raises LogRefused where it does not tell of the memory, as every line does."""
    rest = line.strip("\0\r\n ")
    time = TIME.match(rest)
    found = _Found(rest[time.end() :] if time else rest)
    if "RAM" not in found.memory:
        raise LogRefused(f"tegrastats: expected a line with RAM used/total; got {line.strip()[:60]!r}")
    ram, swap = found.memory["RAM"], found.memory.get("SWAP")
    return TegrastatsLine(
        ram_used_kb=ram[0],
        ram_total_kb=ram[1],
        time=time.group(1) if time else None,
        largest_free_block_kb=ram[2],
        swap_used_kb=swap[0] if swap else None,
        swap_total_kb=swap[1] if swap else None,
        cores=found.cores,
        engines=found.engines,
        temperatures_c=found.temperatures_c,
        power_mw=found.power_mw,
        mean_power_mw=found.mean_power_mw,
        unknown=tuple(found.unknown),
    )


def parse_log(text: str) -> List[TegrastatsLine]:
    """Read a whole log; raises LogRefused at its first line that is not one of tegrastats, and where there is none."""
    lines = [parse_line(line) for line in text.splitlines() if line.strip()]
    if not lines:
        raise LogRefused("tegrastats: expected lines with RAM used/total; got an empty log")
    return lines


class _Found:
    """What the fields of a line say, read one after the other."""

    def __init__(self, text: str) -> None:
        self.memory: Dict[str, Tuple[int, int, Optional[int]]] = {}
        self.cores: Tuple[Optional[Core], ...] = ()
        self.engines: Dict[str, Engine] = {}
        self.temperatures_c: Dict[str, float] = {}
        self.power_mw: Dict[str, float] = {}
        self.mean_power_mw: Dict[str, float] = {}
        self.unknown: List[str] = []
        rules = (
            (MEMORY, self._add_memory),
            (CORES, self._add_cores),
            (MTS, lambda match: None),
            (TEMPERATURE, self._add_temperature),
            (RAIL, self._add_rail),
            (ENGINE, self._add_engine),
        )
        position = 0
        while position < len(text):
            for rule, add in rules:
                match = rule.match(text, position)
                if match is not None and text[match.end() : match.end() + 1] in ("", " "):
                    add(match)
                    position = match.end()
                    break
            else:
                word = text[position:].split(" ", 1)[0]
                self.unknown += [word] if word else []
                position += len(word)
            position += len(text[position:]) - len(text[position:].lstrip(" "))

    def _add_memory(self, match: Match[str]) -> None:
        name, used, total, unit, _, block, block_unit, _, _ = match.groups()
        free_kb = int(block) * KB[block_unit] if block else None
        self.memory[name] = (int(used) * KB[unit], int(total) * KB[unit], free_kb)

    def _add_cores(self, match: Match[str]) -> None:
        entries = [entry.strip() for entry in match.group(1).split(",")] if match.group(1).strip() else []
        cores = [CORE.fullmatch(entry) for entry in entries]
        self.cores = tuple(
            None if core is None else Core(float(core.group(1)), float(core.group(2)) if core.group(2) else None)
            for core in cores
        )
        self.unknown += [entry for entry, core in zip(entries, cores) if core is None and entry != "off"]

    def _add_temperature(self, match: Match[str]) -> None:
        if float(match.group(2)) > GATED_C:
            self.temperatures_c[match.group(1)] = float(match.group(2))

    def _add_rail(self, match: Match[str]) -> None:
        if match.group(1) != NOT_CONNECTED:
            self.power_mw[match.group(1)] = float(match.group(2))
            self.mean_power_mw[match.group(1)] = float(match.group(3))

    def _add_engine(self, match: Match[str]) -> None:
        name, off, load_of_many, clocks, load, clock, bare = match.groups()
        percent = load_of_many or load
        listed = clocks.split(",") if clocks else [each for each in (clock, bare) if each]
        self.engines[name] = Engine(
            is_on=off is None,
            load_percent=float(percent) if percent else None,
            clocks_mhz=tuple(float(each) for each in listed if each),
        )
