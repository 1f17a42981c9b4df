"""Stage: judges every budget that a deployment sets. Rule: figures in, verdicts out; nothing is measured here."""

from collections.abc import Iterator

import numpy as np

from pipeline.artifacts import Accuracy, LatencyProfile, Parity
from pipeline.budget import AccuracyBudget, Budget, LatencyBudget, LoadBudget, MemoryBudget, ParityBudget
from pipeline.measuring import quantiles
from pipeline.measuring.proportions import paired_drop, paired_interval, wilson_interval
from pipeline.measuring.sequential import count_above, decide
from pipeline.measuring.verdict import Check, Limit, Verdict, check, judged, undecided

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
    """Judge what hardly depends on trained weights: latency, size, memory and load.

    An answer before training. Fusion can depend on trained ranges, so these are judged again after it.
    """
    return (
        *((_check_latency(budget.latency, latency),) if budget.latency else ()),
        *((_check_size(budget.size.max_bytes, size_bytes),) if budget.size else ()),
        *((_check_memory(budget.memory, latency),) if budget.memory else ()),
        *((_check_load(budget.load, latency),) if budget.load else ()),
    )


def _check_latency(budget: LatencyBudget, latency: LatencyProfile | None) -> Check:
    limit = Limit("latency", budget.max_ms, "ms")
    if latency is None:
        return undecided(limit, "the model was not profiled")
    if latency.scope != budget.scope:
        return undecided(limit, f"the budget is for scope {budget.scope}; the profile has scope {latency.scope}")
    samples_ms = latency.samples_ns / 1e6
    num_above, look = count_above(latency.samples_ns, budget.max_ms), len(latency.block_sizes)
    verdict = decide(samples_ms.size, num_above, budget.percentile, look)
    note = f"p{budget.percentile:g} of {samples_ms.size:,} samples; {num_above:,} above the limit; look {look}"
    if verdict is Verdict.UNDECIDED:
        note += "; not decided in time: allow more seconds, or measure on a quieter device"
    measured = quantiles.percentile_of(samples_ms, budget.percentile)
    return check(limit, measured, verdict, note, interval=quantiles.interval(samples_ms, budget.percentile))


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
