"""The search, against a bench whose latencies and errors are known sums over layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
