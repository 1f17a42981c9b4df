"""Stage: judges every budget that a deployment sets. Rule: figures in, verdicts out; nothing is measured here."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.artifacts import Accuracy, LatencyProfile, Parity
from pipeline.budget import AccuracyBudget, Budget, EnergyBudget, LatencyBudget, LoadBudget, MemoryBudget, ParityBudget
from pipeline.measuring import quantiles
from pipeline.measuring.assess import Assessment, assess
from pipeline.measuring.dependence import Blocks
from pipeline.measuring.energy import Unavailable, energy_per_inference
from pipeline.measuring.proportions import paired_drop, paired_interval, wilson_interval
from pipeline.measuring.validity import BOTH, Flag, find_flags
from pipeline.measuring.verdict import Check, Limit, Verdict, check, judged, undecided

UNDISTURBED = 0.1
"""Of the samples, the fastest, which others that use the processor did not slow."""
MEASURE_LONGER = "raise max_seconds, or measure on a quieter device"

_ORDER = (
    "latency",
    "accuracy",
    "accuracy_drop_student",
    "accuracy_drop_teacher",
    "parity_max_abs_diff",
    "parity_agreement",
    "size",
    "memory",
    "load",
    "energy",
)


def check_budget(
    budget: Budget,
    *,
    parity: Parity | None,
    accuracy: Accuracy | None,
    latency: LatencyProfile | None,
    size_bytes: int,
) -> tuple[Check, ...]:
    """Judge each budget that is set; a measurement that is missing leaves it undecided."""
    checks = (
        *first_answer(budget, latency=latency, size_bytes=size_bytes),
        *(_check_accuracy(budget.accuracy, accuracy) if budget.accuracy else ()),
        *(_check_parity(budget.parity, parity) if budget.parity else ()),
    )
    return tuple(sorted(checks, key=lambda check: _ORDER.index(check.name)))


def first_answer(budget: Budget, *, latency: LatencyProfile | None, size_bytes: int) -> tuple[Check, ...]:
    """Judge what hardly depends on trained weights: latency, size, memory, load and energy.

    An answer before training. Fusion can depend on trained ranges, so these are judged again after it.
    """
    return (
        *((_check_latency(budget.latency, latency),) if budget.latency else ()),
        *((_check_size(budget.size.max_bytes, size_bytes),) if budget.size else ()),
        *((_check_memory(budget.memory, latency),) if budget.memory else ()),
        *((_check_load(budget.load, latency),) if budget.load else ()),
        *((_check_energy(budget.energy, latency),) if budget.energy else ()),
    )


def _check_latency(budget: LatencyBudget, latency: LatencyProfile | None) -> Check:
    limit = Limit("latency", budget.max_ms, "ms")
    if latency is None:
        return undecided(limit, "the model was not profiled")
    if latency.scope != budget.scope:
        return undecided(limit, f"the budget is for scope {budget.scope}; the profile has scope {latency.scope}")
    flags = find_flags(latency.blocks_ns, latency.traces, latency.context)
    return judge_samples(budget, latency.blocks_ns, flags, look=latency.looks, advice=MEASURE_LONGER)


def judge_samples(budget: LatencyBudget, blocks_ns: Blocks, flags: Sequence[Flag], *, look: int, advice: str) -> Check:
    """Judge the samples of each process.

    Args:
        budget: The limit of a percentile.
        blocks_ns: In the order taken.
        flags: What is to be doubted of them.
        look: How often they were looked at, this time included.
        advice: What to do where they decide nothing.
    """
    limit = Limit("latency", budget.max_ms, "ms")
    found = assess(blocks_ns, budget.percentile, limit_ms=budget.max_ms, look=look)
    assert found.verdict is not None
    is_slow_anyway = float(np.quantile(np.concatenate(blocks_ns), UNDISTURBED)) / 1e6 > budget.max_ms
    open_anyway = found.verdict is Verdict.UNDECIDED  # then what forbids either word is the reason to give
    against = [
        flag
        for flag in flags
        if flag.forbids_word(found.verdict, is_slow_anyway=is_slow_anyway) or (open_anyway and flag.forbids == BOTH)
    ]
    verdict = Verdict.UNDECIDED if against else found.verdict
    note = f"{_how(blocks_ns, budget, found, look)}{_why(verdict, found, against, advice)}"
    return check(limit, found.measured_ns / 1e6, verdict, note, interval=found.interval_ms)


def _how(blocks_ns: Blocks, budget: LatencyBudget, found: Assessment, look: int) -> str:
    size, processes = sum(block.size for block in blocks_ns), len(blocks_ns)
    return (
        f"p{budget.percentile:g} of {size:,} samples from {processes} process{'es' if processes > 1 else ''}, worth "
        f"{found.effective_samples:,.0f} independent ones; {found.num_above:,} above the limit; look {look}"
    )


def _why(verdict: Verdict, found: Assessment, against: list[Flag], advice: str) -> str:
    """Return why a verdict is open, and what to do; nothing where it is not."""
    if verdict is not Verdict.UNDECIDED:
        return ""
    if against:
        return "".join(f"; {flag.name.replace('_', ' ')}: {flag.evidence}: {flag.advice}" for flag in against)
    if found.drift:
        change = f"{100 * abs(found.drift.share):.1f} % {'slower' if found.drift.share > 0 else 'faster'}"
        return f'; it drifts: {change} ({found.drift.what}): fix the clocks, or use profile.mode = "sustained"'
    margin = f" (a margin of {100 * (found.margin - 1):.0f} % was asked for)" if found.margin else ""
    return f"; not decided in time{margin}: {advice}"


def _check_accuracy(budget: AccuracyBudget, accuracy: Accuracy | None) -> Iterator[Check]:
    if budget.min is not None:
        limit = Limit("accuracy", budget.min, "fraction", "min")
        yield _check_share(limit, accuracy) if accuracy else _without_accuracy(limit)
    if budget.max_drop_student is not None:
        limit = Limit("accuracy_drop_student", budget.max_drop_student, "fraction_lost")
        yield _check_drop(limit, accuracy.student, accuracy) if accuracy else _without_accuracy(limit)
    if budget.max_drop_teacher is not None:
        limit = Limit("accuracy_drop_teacher", budget.max_drop_teacher, "fraction_lost")
        yield _check_drop(limit, accuracy.teacher, accuracy) if accuracy else _without_accuracy(limit)


def _without_accuracy(limit: Limit) -> Check:
    return undecided(limit, "accuracy was not measured on the device")


def _check_share(limit: Limit, accuracy: Accuracy) -> Check:
    num_correct, num_samples = int(accuracy.on_device.sum()), accuracy.on_device.size
    interval = wilson_interval(num_correct, num_samples)
    note = f"{num_correct:,} of {num_samples:,} right on the device; Wilson interval"
    return judged(limit, num_correct / num_samples, note, interval=interval)


def _check_drop(limit: Limit, before: np.ndarray, accuracy: Accuracy) -> Check:
    after = accuracy.on_device
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    note = f"{lost:,} of {after.size:,} lost and {gained:,} gained on the device; paired interval"
    return judged(limit, paired_drop(before, after), note, interval=paired_interval(before, after))


def _check_parity(budget: ParityBudget, parity: Parity | None) -> Iterator[Check]:
    hops = {"torch to ONNX": parity.torch_vs_onnx, "ONNX to device": parity.onnx_vs_device} if parity else {}
    if budget.max_abs_diff is not None:
        limit = Limit("parity_max_abs_diff", budget.max_abs_diff, "logit")
        if not hops:
            yield undecided(limit, "parity was not measured")
        else:  # nan, which no comparison would find, is the worst of all
            worst = max(hops, key=lambda hop: np.nan_to_num(hops[hop].max_abs_diff, nan=np.inf))
            yield judged(limit, hops[worst].max_abs_diff, f"worst of both hops: {worst}")
    if budget.min_agreement is not None:
        limit = Limit("parity_agreement", budget.min_agreement, "fraction", "min")
        if not hops:
            yield undecided(limit, "parity was not measured")
        else:
            worst = min(hops, key=lambda hop: hops[hop].top1_agreement)
            agreement, num_samples = hops[worst].top1_agreement, hops[worst].num_samples
            note = f"worst of both hops: {worst}; Wilson interval of {num_samples:,} samples"
            interval = wilson_interval(agreement * num_samples, num_samples)
            yield judged(limit, agreement, note, interval=interval)


def _check_size(max_bytes: int, size_bytes: int) -> Check:
    return judged(Limit("size", max_bytes, "bytes"), size_bytes, "of the file that the runtime loads")


def _check_memory(budget: MemoryBudget, latency: LatencyProfile | None) -> Check:
    limit = Limit("memory", budget.max_bytes, "bytes")
    if latency is None:
        return undecided(limit, "the model was not profiled")
    if budget.above == "baseline":
        above = latency.peak_bytes - latency.baseline_bytes
        return judged(limit, above, "peak resident memory above the runtime without a model")
    return judged(limit, latency.peak_bytes, "peak resident memory of the whole process")


def _check_load(budget: LoadBudget, latency: LatencyProfile | None) -> Check:
    limit = Limit("load", budget.max_ms, "ms")
    if latency is None:
        return undecided(limit, "the model was not profiled")
    load_ms = np.array(latency.load_ms)
    note = f"median of {load_ms.size} fresh process{'es' if load_ms.size > 1 else ''}"
    return judged(limit, quantiles.percentile_of(load_ms, 50), note, interval=quantiles.interval(load_ms, 50))


def _check_energy(budget: EnergyBudget, latency: LatencyProfile | None) -> Check:
    limit = Limit("energy", budget.max_mj, "mJ")
    if latency is None:
        return undecided(limit, "the model was not profiled")
    energy = energy_per_inference(latency.energy)
    if isinstance(energy, Unavailable):
        return undecided(limit, f"no power was read: {energy.reason}")
    more = 0.0 if budget.above == "idle" else energy.total_mj - energy.above_idle_mj
    measured = energy.above_idle_mj + more
    of = "above the device at rest" if budget.above == "idle" else "with the device at rest"
    note = f"{of}; {energy.num_inferences:,} inferences, {energy.source}: {', '.join(energy.rails)}"
    if energy.interval_mj is None:
        return check(limit, measured, Verdict.UNDECIDED, f"{note}; too few readings: raise profile.energy_seconds")
    low, high = energy.interval_mj[0] + more, energy.interval_mj[1] + more
    verdict = Verdict.PASS if high <= budget.max_mj else Verdict.FAIL if low > budget.max_mj else Verdict.UNDECIDED
    return check(limit, measured, verdict, note, interval=(low, high))
