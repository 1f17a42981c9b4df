"""The search for the fastest precision that holds: measured on the device at every step, never modelled.

Rule: knows plans, latencies and qualities; how a plan becomes a model on a device is the workbench's.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.precision.decide import WORTH, choose, is_open, lost_words
from pipeline.precision.plan import Choice, Plan, Precision, Quality, Tried

ROUNDS, FINAL_ROUNDS = 9, 21
"""Turns of a comparison: 9 give an interval of the median ratio between the 2nd and the 8th, 21 between the 6th and the
16th. A set of layers is united only where two comparisons in a row show it faster, so that noise, which fools one of 50
comparisons, fools one of 2,500."""
MOST_REPEATS = 3
"""Of a last comparison, its rounds pooled, while noise hides which of two is faster."""
TOGETHER = 12
"""Plans of one comparison: more would wait long between their turns."""
CLEARLY_SLOWER = 1.3
"""Where int8 takes so much of the time of float, no float layer saves it: layers are added to float instead."""
MOST_SECONDS = 120.0
"""Of a search, before its last comparison."""
SECONDS_TO_ESTIMATE = 20.0
"""For the errors of what was only tried on the way, even where time is up: without one a plan has no place in the
picture."""


class Workbench(Protocol):
    """Builds plans, and measures them."""

    def compare(self, plans: Sequence[Plan], rounds: int) -> list[list[float]]:
        """Return the median latency in ms of each plan in each round, all in turns in one process on the device.

        Nothing for a plan that cannot be built or that the runtime refuses; raises where that is the first.
        """
        ...

    def judge(self, plan: Plan) -> Quality:
        """Return how far a plan parts from the float model, on the device."""
        ...

    def estimate(self, plan: Plan) -> Quality:
        """Return the same from few samples, evaluated as written, on the host; `holds` is only a guess then."""
        ...


@dataclass
class _Search:
    workbench: Workbench
    on_step: Callable[[str], None]
    clock: Callable[[], float]
    deadline: float
    explored: list[Tried] = field(default_factory=list)
    is_cut: bool = False
    """Whether there was no time for something."""
    _qualities: dict[Plan, Quality] = field(default_factory=dict)
    _of_fp32: dict[Plan, float] = field(default_factory=lambda: {Plan("fp32"): 1.0})

    def is_over(self) -> bool:
        """Tell whether time is up; what asks, and is told so, does not go on."""
        is_over = self.clock() >= self.deadline
        self.is_cut = self.is_cut or is_over
        return is_over

    def compare(self, base: Plan, others: Sequence[Plan], rounds: int = ROUNDS) -> list[Tried]:
        """Measure `others` beside `base`, TOGETHER at a time; the base is the first of what is returned."""
        found: list[Tried] = []
        for start in range(0, max(len(others), 1), TOGETHER - 1):
            if found and self.is_over():
                break
            chunk = others[start : start + TOGETHER - 1]
            times = [tuple(row) for row in self.workbench.compare([base, *chunk], rounds)]
            tried = [self._note(plan, row, base, times[0]) for plan, row in zip([base, *chunk], times, strict=True)]
            found += [each for each in tried[bool(found) :] if each.round_ms]
        self.explored += found[1:]
        return found

    def _note(self, plan: Plan, round_ms: tuple[float, ...], base: Plan, base_ms: tuple[float, ...]) -> Tried:
        tried = Tried(plan, round_ms, base_ms)
        if not round_ms:
            return tried
        self._of_fp32.setdefault(plan, tried.ratio * self._of_fp32[base])
        return replace(tried, of_fp32=self._of_fp32[plan])

    def judge(self, plan: Plan) -> Quality:
        if plan not in self._qualities:
            self._qualities[plan] = self.workbench.judge(plan)
        return self._qualities[plan]

    def words_of_faster(self) -> str:
        """Say which plan would have been faster than fp32 but does not hold, if there is one."""
        failed = {plan: quality for plan, quality in self._qualities.items() if not quality.holds}
        faster = [plan for plan in failed if self._of_fp32.get(plan, 1.0) < 1]
        if not faster:
            return ""
        plan = min(faster, key=lambda plan: self._of_fp32[plan])
        quality = failed[plan]
        return (
            f"; {plan.words} takes {self._of_fp32[plan]:.3f} of its time, but does not hold: "
            f"{lost_words(quality.drop)}, error {quality.error_db:.1f} dB, {quality.size_bytes:,} bytes"
        )

    def all_explored(self, finalists: Sequence[Tried]) -> tuple[Tried, ...]:
        """Return every plan that was tried once, with its quality where that is known or quickly estimated."""
        once = {tried.plan: tried for tried in reversed(self.explored)}
        for tried in finalists:
            once.pop(tried.plan, None)
        found = []
        until = max(self.deadline, self.clock() + SECONDS_TO_ESTIMATE)
        for tried in reversed(once.values()):
            quality = self._qualities.get(tried.plan)
            if quality is None and self.clock() < until:
                quality = self.workbench.estimate(tried.plan)
            found.append(replace(tried, quality=quality))
        return tuple(found)


def search(
    workbench: Workbench,
    *,
    precisions: Sequence[Precision],
    units: Sequence[frozenset[str]],
    layers: Sequence[str],
    variants: Sequence[Plan] = (),
    seconds: float = MOST_SECONDS,
    on_step: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Choice:
    """Return the fastest plan whose quality holds; fp32 where none does.

    1. The plain precisions and their variants are compared.
    2. int8 is improved: every unit of layers is tried in float, and those that save time are united, best first. Where
       float is faster than int8, it is improved the other way round: every unit is tried alone in int8.
    3. From the fastest on, plans are judged; an int8 plan that does not hold loses its most sensitive layers to float.
       Once fp32 holds, what is slower is not asked for.
    4. Those that hold are compared once more beside fp32. The fastest ships, or the simplest of those that cannot be
       told from it; fp32, if it holds, where none is faster beyond noise.

    Args:
        workbench: builds and measures.
        precisions: what the runtime has; fp32 first.
        units: sets of layers that are kept in float together: kinds of operators, blocks, single layers.
        layers: all layers whose precision is a choice.
        variants: further whole plans that are compared with the plain precisions.
        seconds: when they are over, what was found so far is compared at the end; a comparison under way is finished.
        on_step: told what is being tried.
        clock: seconds.
    """
    run = _Search(workbench, on_step, clock, clock() + seconds)
    fp32 = Plan("fp32")
    plain = [*(Plan(precision) for precision in precisions), *variants]
    on_step(f"comparing {'; '.join(plan.words for plan in plain)}")
    first = run.compare(fp32, [plan for plan in plain if plan != fp32])
    contenders = [tried.plan for tried in first]
    if any(tried.plan == Plan("int8") for tried in first) and units:
        contenders.append(_improve(run, first, units, frozenset(layers)))
    held = _that_hold(run, _by_latency(run, fp32, contenders), layers)
    return _final(run, fp32, held)


def _improve(run: _Search, first: Sequence[Tried], units: Sequence[frozenset[str]], layers: frozenset[str]) -> Plan:
    """Return the fastest mixture of int8 and one float type that was found; plain int8 where none is faster."""
    latency = {tried.plan: tried.median_ms for tried in first}
    whole = [plan for plan in latency if plan.precision == "int8" and not plan.float_layers]
    int8 = min(whole, key=lambda plan: latency[plan])
    counterpart = next((plan for plan in latency if plan.precision == int8.floats), Plan("fp32"))
    ratio = latency[int8] / latency[counterpart]
    with_floats = int8
    if ratio <= CLEARLY_SLOWER:
        with_floats = _unite(run, int8, units, lambda united: replace(int8, float_layers=united))
    if ratio < 1:
        return with_floats
    in_int8 = _unite(run, counterpart, units, lambda united: replace(int8, float_layers=layers - united))
    if in_int8 == counterpart or run.is_over():
        return with_floats if in_int8 == counterpart else in_int8
    return min(run.compare(with_floats, [in_int8]), key=lambda tried: tried.ratio).plan


def _unite(
    run: _Search, base: Plan, units: Sequence[frozenset[str]], plan_of: Callable[[frozenset[str]], Plan]
) -> Plan:
    """Try every unit alone, then unite those that are faster, the best first, each kept only if it pays again."""
    alone = {plan_of(unit): unit for unit in units}
    alone.pop(base, None)
    run.on_step(f"{base.words}: trying {len(alone)} sets of layers")
    tried = [each for each in run.compare(base, list(alone))[1:] if each.is_faster and each.ratio < 1 - WORTH]
    best, united = base, frozenset[str]()
    for each in sorted(tried, key=lambda each: each.ratio):
        more = united | alone[each.plan]
        if more == united:
            continue
        if run.is_over():
            return best if united else each.plan
        for result in run.compare(best, [plan_of(more)])[1:]:
            if result.is_faster and result.ratio < 1 - WORTH:
                best, united = result.plan, more
    return best


def _by_latency(run: _Search, fp32: Plan, plans: Iterable[Plan]) -> list[Plan]:
    others = [plan for plan in dict.fromkeys(plans) if plan != fp32]
    return [tried.plan for tried in sorted(run.compare(fp32, others), key=lambda tried: tried.median_ms)]


def _that_hold(run: _Search, plans: Sequence[Plan], layers: Sequence[str]) -> list[Plan]:
    """Return plans that hold, from the fastest up to fp32 where that holds; those of int8 that do not are repaired."""
    held: list[Plan] = []
    for plan in plans:
        run.on_step(f"judging {plan.words}")
        if run.judge(plan).holds:
            held.append(plan)
            if plan.precision == "fp32":
                break
        elif plan.precision == "int8" and not run.is_over():
            held += _repair(run, plan, layers)
    return held


def _repair(run: _Search, plan: Plan, layers: Sequence[str]) -> list[Plan]:
    """Return plans that hold, with as few more layers in float as that takes: the most sensitive, or the first ones.

    A tensor keeps its grid while any layer around it is in int8, so a stretch of layers can repair more than as many
    scattered ones.
    """
    run.on_step(f"{plan.words} does not hold: finding its most sensitive layers")
    tested = [layer for layer in layers if layer not in plan.float_layers]
    by_error = [layer for layer, _ in sensitivity(run.workbench, tested, layers, is_over=run.is_over)]
    found = [_bisect(run, plan, order) for order in (by_error, tested)]
    return [repaired for repaired in dict.fromkeys(found) if repaired is not None]


def _bisect(run: _Search, plan: Plan, order: Sequence[str]) -> Plan | None:
    """Keep as few of the first of `order` in float as it takes to hold; None where that is all of them."""
    low, high = 0, len(order) - 1
    found = None
    while low < high and not run.is_over():
        middle = (low + high) // 2
        candidate = replace(plan, float_layers=plan.float_layers | set(order[: middle + 1]))
        run.on_step(f"judging {candidate.words}")
        if run.judge(candidate).holds:
            found, high = candidate, middle
        else:
            low = middle + 1
    return found


def sensitivity(
    workbench: Workbench,
    tested: Sequence[str],
    layers: Sequence[str],
    *,
    is_over: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda done: None,
) -> list[tuple[str, Quality]]:
    """Return what each layer does alone in int8, all others in float; the largest error first.

    Args:
        workbench: estimates.
        tested: layers.
        layers: all that could be int8.
        is_over: asked before each; where it says so, layers that were not reached are left out.
        on_step: told how many are done.
    """
    everything = frozenset(layers)
    found: list[tuple[str, Quality]] = []
    for layer in tested:
        if is_over():
            break
        found.append((layer, workbench.estimate(Plan("int8", everything - {layer}))))
        on_step(len(found))
    return sorted(found, key=lambda item: -item[1].error_db)


def _final(run: _Search, fp32: Plan, held: Sequence[Plan]) -> Choice:
    others = [plan for plan in dict.fromkeys(held) if plan != fp32]
    run.on_step(f"final comparison of {len(others) + 1}")
    before, is_cut = len(run.explored), run.is_cut
    last = run.compare(fp32, others[: TOGETHER - 1], FINAL_ROUNDS)
    for _ in range(MOST_REPEATS):
        if not any(map(is_open, last)):
            break
        run.on_step("the machine is noisy: comparing once more")
        again = {tried.plan: tried for tried in run.compare(fp32, [each.plan for each in last[1:]], FINAL_ROUNDS)}
        last = [each.pooled(again[each.plan]) for each in last if each.plan in again]
    finalists = [replace(tried, quality=run.judge(tried.plan), of_fp32=tried.ratio) for tried in last]
    del run.explored[before:]
    chosen, reason = choose(finalists, fp32, held)
    if chosen == fp32:
        reason += run.words_of_faster()
    if is_cut:
        reason += "; the search ran out of time, so a faster one may exist"
    return Choice(chosen, reason, tuple(finalists), run.all_explored(finalists))
