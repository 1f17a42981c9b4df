"""Lines are made from values by the grammar of the module's docstring; reading must give the values back."""

import contextlib
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import LogRefused
from targets.logs.tegrastats import Engine, TegrastatsLine, parse_line, parse_log

ORIN_JP72 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,off] EMC_FREQ 3%@3199 GR3D_FREQ 12%@[1300,1300] "
    "NVENC0 off APE 174 cpu@52.968C/52.968C VDD_GPU_SOC 5139mW/5139mW/5139mW VIN_SYS_5V0 5500mW/5500mW/5500mW"
)
NAMES = st.from_regex(r"[A-Z][A-Z0-9]{1,8}(_[A-Z0-9]{1,5})?", fullmatch=True).filter(
    lambda name: name not in ("RAM", "SWAP", "IRAM", "CPU", "MTS", "NC")
)


@dataclass
class Field:
    """A field as text, and what it means."""

    text: str
    means: dict[str, object] = field(default_factory=dict)


def rails(name: str, now: int, mean: int, form: str) -> Field:
    texts = {"JP4": f"{now}/{mean}", "JP5": f"{now}mW/{mean}mW", "JP7": f"{now}mW/{mean}mW/{now}mW"}
    return Field(f"{name} {texts[form]}", {"power_mw": {name: float(now)}, "mean_power_mw": {name: float(mean)}})


def temperature(name: str, milli: int, is_twice: bool) -> Field:
    value = f"{milli / 1000:g}"
    text = f"{name.lower()}@{value}C" + (f"/{value}C" if is_twice else "")
    return Field(text, {"temperatures_c": {name.lower(): float(value)}})


def engine(name: str, load: int, clocks: list[int], form: str) -> Field:
    listed = tuple(map(float, clocks))
    joined = ",".join(map(str, clocks))
    text, means = {
        "off": ("off", Engine(False)),
        "load": (f"{load}%", Engine(True, load)),
        "clock": (str(clocks[0]), Engine(True, None, listed[:1])),
        "both": (f"{load}%@{clocks[0]}", Engine(True, load, listed[:1])),
        "many": (f"{load}%@[{joined}]", Engine(True, load, listed)),
        "blind": (f"@[{joined}]", Engine(True, None, listed)),
    }[form]
    return Field(f"{name} {text}", {"engines": {name: means}})


CLOCKS = st.lists(st.integers(0, 3000), min_size=1, max_size=3)
FORMS = st.sampled_from(["off", "load", "clock", "both", "many", "blind"])
MILLI = st.integers(-40_000, 120_000)
MILLIWATTS = st.integers(0, 60_000)
FIELDS = st.one_of(
    st.builds(rails, NAMES, MILLIWATTS, MILLIWATTS, st.sampled_from(["JP4", "JP5", "JP7"])),
    st.builds(temperature, NAMES, MILLI, st.booleans()),
    st.builds(engine, NAMES, st.integers(0, 100), CLOCKS, FORMS),
    st.just(Field("MTS fg 1% bg 8%")),
    st.just(Field("CV0@-256C")),
    st.just(Field("NC 0mW/0mW")),
    st.just(Field("IRAM 0/252kB(lfb 252kB)")),
    st.just(Field("SWAP 4/1982MB (cached 0MB)", {"swap_used_kb": 4 * 1024, "swap_total_kb": 1982 * 1024})),
)


@given(st.integers(0, 64_000), st.lists(st.one_of(st.none(), st.integers(0, 100)), max_size=12), st.lists(FIELDS))
def test_every_line_of_the_grammar_gives_its_values_back(
    used: int, loads: list[int | None], fields: list[Field]
) -> None:
    named = {field.text.split("@")[0].split(" ")[0].lower(): field for field in fields}  # one of each name
    cores = ",".join("off" if load is None else f"{load}%@729" for load in loads)
    texts = [f"RAM {used}/64000MB (lfb 3x4MB)", f"CPU [{cores}]", *(each.text for each in named.values())]
    line = parse_line(" ".join(texts) + "\n")
    assert (line.ram_used_kb, line.largest_free_block_kb, line.unknown) == (used * 1024, 4096, ())
    assert [core and core.load_percent for core in line.cores] == loads
    expected: dict[str, object] = {}
    for each in named.values():
        for name, value in each.means.items():
            before = expected.get(name, {})
            expected[name] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value
    for name in ("power_mw", "mean_power_mw", "temperatures_c", "engines"):
        assert getattr(line, name) == expected.get(name, {})
    assert line.swap_used_kb == expected.get("swap_used_kb")


@given(st.text(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(LogRefused):
        assert isinstance(parse_line(text), TegrastatsLine)


@given(st.integers(0, len(ORIN_JP72)))
def test_a_line_that_is_cut_off_never_gives_a_power_that_was_not_read(length: int) -> None:
    whole = parse_line(ORIN_JP72)
    try:
        cut = parse_line(ORIN_JP72[:length])
    except LogRefused:
        assert length < ORIN_JP72.index("CPU")
        return
    assert cut.power_mw.items() <= whole.power_mw.items()


def test_jetpack_7_writes_three_values_a_rail_and_two_a_temperature() -> None:
    line = parse_line(ORIN_JP72)
    assert line.time == "07-25-2026 09:08:28"
    assert line.power_mw == {"VDD_GPU_SOC": 5139.0, "VIN_SYS_5V0": 5500.0}
    assert line.temperatures_c == {"cpu": 52.968}
    assert line.engines["GR3D_FREQ"] == Engine(True, 12.0, (1300.0, 1300.0))
    assert line.engines["NVENC0"] == Engine(False)
    assert line.cores[1] is None
    assert line.swap_used_kb is None


def test_a_log_is_refused_at_its_first_foreign_line() -> None:
    with pytest.raises(LogRefused, match=re.escape("expected a line with RAM used/total; got 'tegrastats: not found'")):
        parse_log(f"{ORIN_JP72}\ntegrastats: not found\n")
    with pytest.raises(LogRefused, match="got an empty log"):
        parse_log("\n")
