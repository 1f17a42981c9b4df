"""The search, against a bench whose latencies and errors are known sums over layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.precision.plan import Plan, Precision, Quality
from pipeline.precision.search import search, sensitivity

LAYERS = ("stem", "blocks.0", "blocks.1", "act", "head")


@dataclass
class Bench:
    """Latency and error add up over the layers; a little noise repeats from round to round."""

    float_ms: Mapping[str, float]
    int8_ms: Mapping[str, float]
    error: Mapping[str, float] = field(default_factory=dict)
    plain_ms: Mapping[Precision, float] = field(default_factory=dict)
    limit: float = 0.01
    max_bytes: int = 100
    compared: list[Sequence[Plan]] = field(default_factory=list)

    def compare(self, plans: Sequence[Plan], rounds: int) -> list[list[float]]:
        self.compared.append(plans)
        return [
            [self._latency(plan) * (1 + 0.001 * ((turn + i) % 3)) for turn in range(rounds)]
            for i, plan in enumerate(plans)
        ]

    def judge(self, plan: Plan) -> Quality:
        drop = sum(self.error.get(layer, 0.0) for layer in self._int8_layers(plan))
        size_bytes = 4 * len(LAYERS) - 3 * len(self._int8_layers(plan))
        holds = drop <= self.limit and size_bytes <= self.max_bytes
        return Quality(drop=drop, error_db=-60 + 1000 * drop, size_bytes=size_bytes, holds=holds)

    def estimate(self, plan: Plan) -> Quality:
        return self.judge(plan)

    def _latency(self, plan: Plan) -> float:
        if plan.precision in self.plain_ms:
            return self.plain_ms[plan.precision]
        quantized = self._int8_layers(plan)
        return sum(self.int8_ms[layer] if layer in quantized else self.float_ms[layer] for layer in LAYERS)

    def _int8_layers(self, plan: Plan) -> set[str]:
        return set() if plan.precision != "int8" else set(LAYERS) - plan.float_layers


UNITS = [frozenset({layer}) for layer in LAYERS] + [frozenset({"blocks.0", "blocks.1"})]
EVEN = dict.fromkeys(LAYERS, 1.0)
HALF = dict.fromkeys(LAYERS, 0.5)


def choose(bench: Bench, *precisions: Precision) -> Plan:
    return search(bench, precisions=precisions, units=UNITS, layers=LAYERS).plan


def test_int8_that_is_faster_and_holds_ships_whole() -> None:
    assert choose(Bench(EVEN, HALF), "fp32", "int8") == Plan("int8")


def test_a_layer_that_is_slower_in_int8_stays_float() -> None:
    assert choose(Bench(EVEN, {**HALF, "act": 1.4}), "fp32", "int8") == Plan("int8", frozenset({"act"}))


def test_int8_that_is_slower_than_float_never_ships() -> None:
    assert choose(Bench(EVEN, dict.fromkeys(LAYERS, 1.5)), "fp32", "int8") == Plan("fp32")


def test_where_int8_is_slower_the_layers_that_gain_ship_in_int8_alone() -> None:
    bench = Bench(EVEN, {**dict.fromkeys(LAYERS, 3.0), "stem": 0.4})
    assert choose(bench, "fp32", "int8") == Plan("int8", frozenset(LAYERS) - {"stem"})


def test_another_float_type_that_beats_int8_ships() -> None:
    assert choose(Bench(EVEN, HALF, plain_ms={"bf16": 2.0}), "fp32", "bf16", "int8") == Plan("bf16")


def test_the_most_sensitive_layers_are_given_back_to_float_until_the_budget_holds() -> None:
    bench = Bench(EVEN, HALF, error={"stem": 0.02, "head": 0.008, "act": 0.001})
    assert choose(bench, "fp32", "int8") == Plan("int8", frozenset({"stem"}))


def test_an_accuracy_that_no_mixture_holds_ends_in_fp32() -> None:
    assert choose(Bench(EVEN, HALF, error=dict.fromkeys(LAYERS, 0.02)), "fp32", "int8") == Plan("fp32")


def test_what_is_not_faster_beyond_noise_does_not_ship() -> None:
    assert choose(Bench(EVEN, {**EVEN, "stem": 0.999}), "fp32", "int8") == Plan("fp32")


def test_where_fp32_is_too_large_the_fastest_that_fits_ships_though_it_is_slower() -> None:
    slow = dict.fromkeys(LAYERS, 1.5)
    assert choose(Bench(EVEN, slow, max_bytes=19), "fp32", "int8") == Plan("int8")


def test_every_finalist_was_measured_beside_fp32_in_one_run() -> None:
    choice = search(Bench(EVEN, HALF), precisions=("fp32", "int8"), units=UNITS, layers=LAYERS)
    assert [tried.plan.precision for tried in choice.finalists] == ["fp32", "int8"]
    assert all(len(tried.round_ms) == 21 for tried in choice.finalists)


def test_sensitivity_orders_layers_by_what_they_do_alone() -> None:
    bench = Bench(EVEN, HALF, error={"head": 0.002, "stem": 0.02})
    assert [name for name, _ in sensitivity(bench, LAYERS, LAYERS)][:2] == ["stem", "head"]


def test_two_plans_that_cannot_be_told_apart_end_in_the_simpler_one() -> None:
    mixed = Plan("int8", rest="bf16")
    bench = Bench(EVEN, HALF, plain_ms={"int8_dynamic": 2.501})
    found = search(bench, precisions=("fp32", "int8", "int8_dynamic"), units=UNITS, layers=LAYERS, variants=(mixed,))
    assert found.plan == Plan("int8")
    assert {tried.plan for tried in found.finalists} == {Plan("fp32"), Plan("int8"), mixed, Plan("int8_dynamic")}


def test_where_int8_loses_clearly_single_float_layers_are_not_tried() -> None:
    bench = Bench(EVEN, dict.fromkeys(LAYERS, 1.5))
    search(bench, precisions=("fp32", "int8"), units=UNITS, layers=LAYERS)
    assert all(plans[0] != Plan("int8") for plans in bench.compared)


def test_when_time_is_up_what_was_found_is_still_compared_and_the_reason_says_so() -> None:
    ticks = iter(range(1000))
    bench = Bench(EVEN, {**HALF, "act": 1.4, "stem": 1.4})
    found = search(
        bench, precisions=("fp32", "int8"), units=UNITS, layers=LAYERS, seconds=2, clock=lambda: float(next(ticks))
    )
    assert found.plan.precision == "int8"
    assert "ran out of time" in found.reason
    assert not any({"act", "stem"} <= plan.float_layers for plans in bench.compared for plan in plans)  # never united


def test_every_plan_that_was_tried_has_a_latency_over_fp32_and_an_error() -> None:
    found = search(Bench(EVEN, {**HALF, "act": 1.4}), precisions=("fp32", "int8"), units=UNITS, layers=LAYERS)
    everything = {tried.plan: tried for tried in (*found.finalists, *found.explored)}
    assert len(everything) == len(found.finalists) + len(found.explored)
    alone = everything[Plan("int8", frozenset({"act"}))]
    assert alone.of_fp32 == pytest.approx(3.0 / 5.0, abs=0.01)  # 4 layers at 0.5 and one at 1.0, of 5 at 1.0
    assert all(tried.quality is not None for tried in everything.values())


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("int8"), "int8"),
        (Plan("int8", frozenset("ab")), "int8, float: a, b"),
        (Plan("int8", frozenset("abcd")), "int8, float: a, b and 2 more"),
        (Plan("int8", rest="bf16"), "int8, bf16 beside it"),
        (Plan("int8", frozenset("a"), "int8_dynamic"), "int8, linear layers dynamic: a"),
        (Plan("int8_dynamic", rest="int8_dynamic_per_tensor"), "int8_dynamic, weights per tensor"),
    ],
)
def test_a_plan_says_what_computes_in_what(plan: Plan, words: str) -> None:
    assert plan.words == words


def test_where_fp32_ships_the_reason_names_what_is_faster_and_does_not_hold() -> None:
    bench = Bench(EVEN, HALF, error=dict.fromkeys(LAYERS, 0.02))
    found = search(bench, precisions=("fp32", "int8"), units=(), layers=LAYERS)
    assert found.reason.startswith("fp32 is the fastest that holds; int8 takes 0.5")
    assert "but does not hold: 10.00 pp lost" in found.reason


@dataclass
class NoisyBench(Bench):
    """Every third turn of anything but fp32 takes three times as long, until there were enough comparisons."""

    noisy_comparisons: int = 3

    def compare(self, plans: Sequence[Plan], rounds: int) -> list[list[float]]:
        rows = super().compare(plans, rounds)
        is_noisy = len(self.compared) <= self.noisy_comparisons
        return [
            [ms * (3 if is_noisy and i and turn % 3 == 0 else 1) for turn, ms in enumerate(row)]
            for i, row in enumerate(rows)
        ]


def test_a_last_comparison_in_noise_is_repeated_until_it_tells() -> None:
    bench = NoisyBench(EVEN, dict.fromkeys(LAYERS, 0.95))
    found = search(bench, precisions=("fp32", "int8"), units=(), layers=LAYERS)
    assert found.plan == Plan("int8")
    assert len(found.finalists[1].round_ms) > 21
