import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.artifacts import Accuracy, Hop, LatencyProfile, Parity
from pipeline.budget import Budget
from pipeline.measuring.verdict import Check, Verdict
from pipeline.stages.check_budget import check_budget, first_answer
from targets.runner.sensors import Channel, Trace

TO_ONE_MS = np.arange(1, 1001) * 1000
"""0.001 ms to 1 ms: the p99 is 0.990 ms."""
PROFILE = LatencyProfile(
    scope="model",
    samples_ns=np.concatenate([np.random.default_rng(seed).permutation(TO_ONE_MS) for seed in range(12)]),
    block_sizes=(1000,) * 12,
    warmup_runs=10,
    load_ms=(30.0, 10.0, 20.0),
    peak_bytes=90_000,
    baseline_bytes=70_000,
    seconds=1.0,
    threads=1,
    protocol="",
    context={},
    measured_at="2026-01-01T00:00:00+00:00",
)
RIGHT = np.arange(100)
ACCURACY = Accuracy("top1", teacher=RIGHT < 97, student=RIGHT < 95, quantized=RIGHT < 94, on_device=RIGHT < 94)
PARITY = Parity(torch_vs_onnx=Hop(0.001, 1.0, 100), onnx_vs_device=Hop(0.25, 0.98, 100))


def judge(**budget: dict[str, float | str]) -> dict[str, Check]:
    checks = check_budget(
        Budget.model_validate(budget), parity=PARITY, accuracy=ACCURACY, latency=PROFILE, size_bytes=5000
    )
    return {check.name: check for check in checks}


@pytest.mark.parametrize(("max_ms", "verdict"), [(1.0, Verdict.PASS), (0.99, Verdict.UNDECIDED), (0.9, Verdict.FAIL)])
def test_latency_passes_fails_or_stays_undecided(max_ms, verdict):
    # None, 1 % and 10 % of the samples are above; 1 % is just what a p99 allows.
    check = judge(latency={"max_ms": max_ms})["latency"]
    assert (check.verdict, check.measured) == (verdict, pytest.approx(0.990))


def test_latency_of_another_scope_is_not_judged():
    check = judge(latency={"max_ms": 1.0, "scope": "end_to_end"})["latency"]
    assert (check.verdict, check.measured) == (Verdict.UNDECIDED, None)
    assert check.note == "the budget is for scope end_to_end; the profile has scope model"


def test_latency_says_how_it_was_judged():
    note = judge(latency={"max_ms": 0.99})["latency"].note
    assert note.startswith("p99 of 12,000 samples from 12 processes, worth ")
    assert "; 120 above the limit; look 1; not decided in time: raise max_seconds" in note


@pytest.mark.parametrize("max_ms", [9.0, 0.99], ids=["decided otherwise", "undecided anyway"])
def test_an_emulated_device_leaves_latency_open_and_says_why(max_ms: float) -> None:
    emulated = replace(PROFILE, context={"emulated": "the inventory says so"})
    (check,) = first_answer(Budget.model_validate({"latency": {"max_ms": max_ms}}), latency=emulated, size_bytes=1)
    assert check.verdict is Verdict.UNDECIDED
    assert check.note.endswith(
        "the device is emulated: the inventory says so: its times mean nothing: measure on the real one"
    )


def test_what_only_slows_forbids_a_fail_that_is_not_clear_and_no_pass():
    waiting = Trace((0.0, 10.0), (Channel("pressure", "cpu", (0.0, 9e6)),))
    for max_ms, verdict in ((9, Verdict.PASS), (0.3, Verdict.UNDECIDED), (0.05, Verdict.FAIL)):
        budget = Budget.model_validate({"latency": {"max_ms": max_ms}})
        (check,) = first_answer(budget, latency=replace(PROFILE, traces=(waiting,)), size_bytes=1)
        assert check.verdict is verdict


def test_a_drift_leaves_latency_open():
    rising = np.concatenate([TO_ONE_MS * (1 + process / 12) for process in range(12)])
    budget = Budget.model_validate({"latency": {"max_ms": 2.5}})
    (check,) = first_answer(budget, latency=replace(PROFILE, samples_ns=rising), size_bytes=1)
    assert check.verdict is Verdict.UNDECIDED
    assert "it drifts: " in check.note


def test_accuracy_is_decided_by_the_point_value():
    check = judge(accuracy={"min": 0.94})["accuracy"]
    assert (check.verdict, check.measured) == (Verdict.PASS, 0.94)
    assert check.interval is not None
    assert check.interval[0] < 0.94 < check.interval[1]


def test_drops_are_paired_and_may_be_exactly_the_limit():
    checks = judge(accuracy={"max_drop_student": 0.01, "max_drop_teacher": 0.02})
    assert checks["accuracy_drop_student"].verdict is Verdict.PASS
    assert checks["accuracy_drop_teacher"].verdict is Verdict.FAIL
    assert checks["accuracy_drop_teacher"].measured == pytest.approx(0.03)


def test_both_hops_must_hold_and_the_worst_is_named():
    checks = judge(parity={"max_abs_diff": 0.2, "min_agreement": 0.99})
    assert [check.verdict for check in checks.values()] == [Verdict.FAIL, Verdict.FAIL]
    assert checks["parity_max_abs_diff"].note == "worst of both hops: ONNX to device"


def test_a_logit_that_is_nan_fails_parity():
    broken = replace(PARITY, torch_vs_onnx=Hop(math.nan, 1.0, 100))
    budget = Budget.model_validate({"parity": {"max_abs_diff": 0.5}})
    (check,) = check_budget(budget, parity=broken, accuracy=None, latency=None, size_bytes=1)
    assert (check.verdict, check.note) == (Verdict.FAIL, "measured nan; worst of both hops: torch to ONNX")


@pytest.mark.parametrize(("above", "measured"), [("zero", 90_000), ("baseline", 20_000)])
def test_memory_is_absolute_or_above_the_runtime(above, measured):
    assert judge(memory={"max_bytes": 50_000, "above": above})["memory"].measured == measured


def test_load_is_the_median_of_the_processes():
    check = judge(load={"max_ms": 20})["load"]
    assert (check.verdict, check.measured, check.note) == (Verdict.PASS, 20, "median of 3 fresh processes")


def test_what_was_not_measured_is_undecided_with_the_reason():
    checks = check_budget(
        Budget.model_validate(
            {
                "latency": {"max_ms": 1},
                "accuracy": {"min": 0.5},
                "parity": {"max_abs_diff": 1},
                "memory": {"max_bytes": 1},
                "load": {"max_ms": 1},
            }
        ),
        parity=None,
        accuracy=None,
        latency=None,
        size_bytes=1,
    )
    assert {check.verdict for check in checks} == {Verdict.UNDECIDED}
    assert all(check.note for check in checks)


def test_the_first_answer_leaves_accuracy_and_parity_for_later():
    budget = Budget.model_validate({"latency": {"max_ms": 1.0}, "accuracy": {"min": 0.9}, "size": {"max_bytes": 4999}})
    checks = first_answer(budget, latency=PROFILE, size_bytes=5000)
    assert [(check.name, check.verdict) for check in checks] == [("latency", Verdict.PASS), ("size", Verdict.FAIL)]
