"""What makes a measurement doubtful, each with its evidence and what to do. Rule: a doubt names the words it forbids.

Others that use the processor only slow a model down: what passes in spite of them passes, but nothing fails because of
them, unless even its fastest inferences are too slow. A clock, a temperature or a mode that changes makes it another
device: neither word holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.measuring.dependence import Blocks, bulk_effect
from pipeline.measuring.modes import find_modes
from pipeline.measuring.verdict import Verdict
from targets.runner.sensors import Channel, Quantity, Trace

FlagName = Literal[
    "emulated",
    "clock_change",
    "throttling",
    "temperature_drift",
    "settings_changed",
    "too_warm",
    "cpu_pressure",
    "other_load",
    "steal",
    "swapping",
    "autocorrelated",
    "bimodal",
    "warm_up",
]
BOTH = (Verdict.PASS, Verdict.FAIL)
SLOWED = (Verdict.FAIL,)
"""What only slows forbids."""

CLOCK_CHANGE = 0.05
TEMPERATURE_RISE_C = 10.0
PRESSURE = 0.1
"""Part of the time in which some task waited for a processor."""
HELD_BACK = 0.8
"""Part of its highest clock below which a busy core is held back."""
OTHER_LOAD = 0.5
"""Processors that others used."""
STEAL = 0.02
BULK_EFFECT = 4.0


@dataclass(frozen=True)
class Flag:
    """One doubt."""

    name: FlagName
    evidence: str
    advice: str
    forbids: tuple[Verdict, ...]
    """Words that the measurement cannot say because of it; none: it is told, and accounted for."""

    def forbids_word(self, verdict: Verdict, *, is_slow_anyway: bool) -> bool:
        """Tell whether it forbids the word; what only slows does not where even the samples that it spared are slow."""
        return verdict in self.forbids and not (self.forbids == SLOWED and is_slow_anyway)


def find_flags(blocks: Blocks, traces: Sequence[Trace], context: Mapping[str, object]) -> tuple[Flag, ...]:
    """Return what is to be doubted of latencies, in ns, of these processes."""
    return (*_of_context(context), *_of_hardware(traces), *_of_others(traces), *_of_samples(blocks))


def _of_context(context: Mapping[str, object]) -> Iterator[Flag]:
    if said := context.get("emulated"):
        evidence = f"the device is emulated: {said}" if isinstance(said, str) else "the device is emulated"
        yield Flag("emulated", evidence, "its times mean nothing: measure on the real one", BOTH)
    if context.get("is_cool") is False:
        evidence = f"it began at {context.get('start_temperature_c')} C, in spite of profile.start_below_c"
        yield Flag("too_warm", evidence, "cool it better, or raise profile.cool_down_seconds", BOTH)
    if context.get("warmup_is_steady") is False:
        evidence = "the first process was not steady when its warm-up had to end"
        yield Flag("warm_up", evidence, "raise profile.max_seconds; a drift of the samples is tested for anyway", ())


def _of_hardware(traces: Sequence[Trace]) -> Iterator[Flag]:
    clock = _fastest(traces)
    if clock and clock[0] < (1 - CLOCK_CHANGE) * clock[1]:
        evidence = f"the fastest clock went between {clock[0]:,.0f} and {clock[1]:,.0f} MHz"
        yield Flag("clock_change", evidence, "fix the clocks: governor performance, or jetson_clocks", BOTH)
    events = _increase(traces, "throttling")
    held_back = sorted(
        {channel.name for trace in traces for channel in trace.of("cooling") if max(channel.known or (0,))}
    )
    if events or held_back:
        counted = f"{events:,.0f} throttling event(s)" if events else f"held back by {', '.join(held_back)}"
        yield Flag("throttling", counted, "cool the device, or choose a lower power mode that it can hold", BOTH)
    else:
        yield from _of_limits(traces)
    heat = [reading for trace in traces for reading in _hottest(trace)]
    if heat and heat[-1] - heat[0] > TEMPERATURE_RISE_C:
        evidence = f"temperature rose from {heat[0]:.0f} to {heat[-1]:.0f} C"
        advice = 'let it get warm first: profile.mode = "sustained", or cool first: profile.start_below_c'
        yield Flag("temperature_drift", evidence, advice, BOTH)
    changed = _changed(traces)
    if changed:
        listed = ", ".join(f"{name} from {before} to {after}" for name, (before, after) in changed.items())
        yield Flag("settings_changed", listed, "leave clocks and power mode alone while it measures", BOTH)


def _of_limits(traces: Sequence[Trace]) -> Iterator[Flag]:
    """Yield what the sensors' own limits tell: a zone that is too hot, or clocks that stay low although all is busy."""
    advice = "cool the device, or fix its clocks: governor performance, or jetson_clocks"
    zones = [(each, max(_timed(trace, each), default=0.0)) for trace in traces for each in trace.of("temperature")]
    hot = {each.name: (heat, each.limit) for each, heat in zones if each.limit is not None and heat >= each.limit}
    if hot:
        evidence = ", ".join(
            f"{name} at {heat:g} C, throttled from {limit:g} C on" for name, (heat, limit) in hot.items()
        )
        yield Flag("throttling", evidence, advice, BOTH)
        return
    cores = [each for trace in traces for each in trace.of("clock") if each.name.startswith(("policy", "cpu"))]
    shares = [(float(np.median(each.known)) / each.limit, each) for each in cores if each.limit and each.known]
    if shares and (best := max(shares, key=lambda pair: pair[0]))[0] < HELD_BACK:
        evidence = f"no core ran faster than {best[1].name} at {100 * best[0]:.0f} % of its {best[1].limit:,.0f} MHz"
        yield Flag("throttling", evidence, advice, SLOWED)


def _of_others(traces: Sequence[Trace]) -> Iterator[Flag]:
    seconds = sum(trace.seconds for trace in traces)
    if seconds <= 0:
        return
    advice = "stop what else runs there, and measure again"
    pressure = _increase(traces, "pressure") / 1e6 / seconds
    if pressure > PRESSURE:
        yield Flag("cpu_pressure", f"tasks waited for a processor {100 * pressure:.0f} % of the time", advice, SLOWED)
    others = _increase(traces, "other_load") / seconds
    if others > OTHER_LOAD:
        yield Flag("other_load", f"others used {others:.1f} processors", advice, SLOWED)
    steal = _increase(traces, "steal") / seconds
    if steal > STEAL:
        evidence = f"other virtual machines had {100 * steal:.0f} % of a processor"
        yield Flag("steal", evidence, "measure on a machine of its own", SLOWED)
    pages = _increase(traces, "swapping")
    if pages > 0:
        yield Flag("swapping", f"{pages:,.0f} pages were swapped", "free memory on the device", SLOWED)


def _of_samples(blocks: Blocks) -> Iterator[Flag]:
    merged = np.concatenate(blocks)
    effect = bulk_effect(blocks)
    if effect > BULK_EFFECT:
        evidence = f"{merged.size:,} samples are worth {merged.size / effect:,.0f} independent ones"
        advice = "accounted for by more samples; fix the clocks and stop what else runs to need fewer"
        yield Flag("autocorrelated", evidence, advice, ())
    modes = find_modes(merged)
    if modes:
        evidence = (
            f"two modes, {modes.fast / 1e6:.3g} and {modes.slow / 1e6:.3g} ms, {100 * modes.slow_share:.0f} % slow"
        )
        yield Flag("bimodal", evidence, "look for what has two states: clocks, cores of two kinds, memory layout", ())


def _increase(traces: Sequence[Trace], quantity: Quantity) -> float:
    """Return by how much the channel of a counter grew that grew most, over all processes."""
    grown: dict[str, float] = {}
    for trace in traces:
        for channel in trace.of(quantity):
            grown[channel.name] = grown.get(channel.name, 0.0) + channel.increase
    return max(grown.values(), default=0.0)


def _timed(trace: Trace, channel: Channel) -> list[float]:
    """Return the readings while it was sampled, without the warm-up's."""
    pairs = zip(trace.times_s, channel.values, strict=True)
    return [value for at, value in pairs if at >= 0 and value is not None]


def _fastest(traces: Sequence[Trace]) -> tuple[float, float] | None:
    """Return the lowest and the highest reading of the clock that was fastest most of the time, tails left out."""
    readings: dict[str, list[float]] = {}
    for trace in traces:
        for channel in trace.of("clock"):
            readings.setdefault(channel.name, []).extend(_timed(trace, channel))
    known = [values for values in readings.values() if values]
    if not known:
        return None
    low, high = np.quantile(max(known, key=np.median), (0.1, 0.9))
    return float(low), float(high)


def _hottest(trace: Trace) -> list[float]:
    columns = zip(*(channel.values for channel in trace.of("temperature")), strict=True)
    return [max(known) for column in columns if (known := [value for value in column if value is not None])]


def _changed(traces: Sequence[Trace]) -> dict[str, tuple[str, str]]:
    if not traces:
        return {}
    first, last = traces[0].settings, traces[-1].settings
    between = {name: (first[name], last[name]) for name in first if name in last and first[name] != last[name]}
    return {**between, **{name: pair for trace in traces for name, pair in trace.changed.items()}}
