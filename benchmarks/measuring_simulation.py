"""What our verdicts and intervals are worth: latencies with a known truth, sampled and judged by the stages themselves.

Run: PYTHONPATH=. .venv/bin/python benchmarks/measuring_simulation.py [--repetitions 200] [--seed 0] [NAME ...]
A device is simulated: latencies of about 1 ms, 0.5 s to start a process, its own clock. Each repetition samples until
the p99 is decided or 60 s of that clock are over. Of limits 5 % below and 5 % above the true p99: how many verdicts
were wrong (of the worse limit), right and undecided, how many seconds they took (a fixed run takes 60), and of the 95 %
intervals that were given how many held the truth. Where latencies drift there is no truth: the limits are around the
p99 of the first 10 s, no interval may be given, and all must stay undecided.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from benchmarks.side_by_side import RESULTS
from pipeline.budget import Budget, LatencyBudget, Protocol
from pipeline.measuring.verdict import Verdict
from pipeline.stages.check_budget import first_answer
from pipeline.stages.profile_latency import profile_latency
from targets import Null
from targets.devices.device import ProfileBlock, ProfileRequest
from targets.target import RunOptions, Target

START_S = 0.5
"""Of a process."""
SECONDS = 60.0
WRONG = {0.95: Verdict.PASS, 1.05: Verdict.FAIL}
"""What must not be said of limits at these multiples of the truth."""

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Latencies in ms at these times in s, about 1 ms apart, all in one process."""
Process = Callable[[np.random.Generator], Draw]
"""A fresh process."""
Machine = Callable[[np.random.Generator], Process]
"""What outlives processes."""


def independent(draw: Callable[[np.random.Generator, int], np.ndarray]) -> Machine:
    """Return latencies that are independent."""
    return lambda machine: lambda start: lambda rng, at_s: draw(rng, at_s.size)


def lognormal(sigma: float) -> Machine:
    """Return independent lognormal latencies, median 1 ms."""
    return independent(lambda rng, size: rng.lognormal(0, sigma, size))


def autoregressive(phi: float, sigma: float = 0.3, *, goes_on: bool = False) -> Machine:
    """Return lognormal latencies whose logarithm is an AR(1) process, begun anew in each process or going on."""

    def make(machine: np.random.Generator) -> Process:
        last = [machine.normal()]

        def begin(start: np.random.Generator) -> Draw:
            if not goes_on:
                last[0] = start.normal()

            def draw(rng: np.random.Generator, at_s: np.ndarray) -> np.ndarray:
                shocks = rng.normal(0, np.sqrt(1 - phi**2), at_s.size)
                values, _ = lfilter([1.0], [1.0, -phi], shocks, zi=[phi * last[0]])
                last[0] = values[-1]
                return np.exp(sigma * values)

            return draw

        return begin

    return make


def sticky_modes(slow_share: float, stay: float, ratio: float = 1.5) -> Machine:
    """Return two modes that hold for `stay` samples on average in the slow one, begun anew in each process."""

    def begin(start: np.random.Generator) -> Draw:
        def draw(rng: np.random.Generator, at_s: np.ndarray) -> np.ndarray:
            stays = (stay * (1 - slow_share) / slow_share, stay)
            is_slow, modes = bool(rng.random() < slow_share), np.empty(0, bool)
            while modes.size < at_s.size:
                modes = np.append(modes, np.full(rng.geometric(1 / stays[is_slow]), is_slow))
                is_slow = not is_slow
            return np.where(modes[: at_s.size], ratio, 1.0) * rng.lognormal(0, 0.05, at_s.size)

        return draw

    return lambda machine: begin


def unlike_processes(spread: float) -> Machine:
    """Return processes whose medians differ, lognormal too."""

    def begin(start: np.random.Generator) -> Draw:
        offset = start.lognormal(0, spread)
        return lambda rng, at_s: offset * rng.lognormal(0, 0.1, at_s.size)

    return lambda machine: begin


def moving(shape: Callable[[np.ndarray], np.ndarray], sigma: float = 0.1) -> Machine:
    """Return independent lognormal latencies times a function of the time since the machine began."""
    return lambda machine: lambda start: lambda rng, at_s: shape(at_s) * rng.lognormal(0, sigma, at_s.size)


def spikes(share: float) -> Machine:
    """Return independent latencies of which a share is about five times as long."""
    return independent(
        lambda rng, size: (
            rng.lognormal(0, 0.05, size) * np.where(rng.random(size) < share, 5 + rng.exponential(1.5, size), 1)
        )
    )


def _mixture(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.3, 1.5, 1.0) * rng.lognormal(0, 0.05, size)


def _cooling(at_s: np.ndarray) -> np.ndarray:
    return 1 + 0.3 * np.exp(-at_s / 8)


STATIONARY: dict[str, Machine] = {
    "independent": lognormal(0.3),
    "independent, narrow": lognormal(0.1),
    "heavy tail (Pareto 2)": independent(lambda rng, size: 1 + 0.1 * rng.pareto(2, size)),
    "heavy tail (Student's t 3)": independent(lambda rng, size: np.exp(0.1 * rng.standard_t(3, size))),
    "spikes, 0.5 %": spikes(0.005),
    "spikes, 1.5 %": spikes(0.015),
    "AR(1) 0.3": autoregressive(0.3),
    "AR(1) 0.6": autoregressive(0.6),
    "AR(1) 0.9": autoregressive(0.9),
    "AR(1) 0.98": autoregressive(0.98),
    "AR(1) 0.98, narrow": autoregressive(0.98, 0.05),
    "AR(1) 0.95, over processes": autoregressive(0.95, goes_on=True),
    "bimodal": independent(_mixture),
    "bimodal, stays 20": sticky_modes(0.3, 20),
    "bimodal, stays 200": sticky_modes(0.3, 200),
    "bimodal, 2 % in bursts of 20": sticky_modes(0.02, 20),
    "processes differ, 2 %": unlike_processes(0.02),
    "processes differ, 5 %": unlike_processes(0.05),
    "periodic, 0.05 s": moving(lambda at_s: np.exp(0.1 * np.sin(2 * np.pi * at_s / 0.05)), 0.05),
    "periodic, 1 s": moving(lambda at_s: np.exp(0.1 * np.sin(2 * np.pi * at_s / 1.013)), 0.05),
}
DRIFTING: dict[str, Machine] = {
    "ramp, 20 % in 60 s": moving(lambda at_s: 1 + 0.2 * at_s / 60),
    "ramp, 100 % in 60 s": moving(lambda at_s: 1 + at_s / 60, 0.3),
    "ramp down, 40 % in 60 s": moving(lambda at_s: 1 - 0.4 * np.minimum(at_s, 60) / 60),
    "step, 10 % after 6 s": moving(lambda at_s: 1 + 0.1 * (at_s > 6)),
    "warms up, 30 %, 8 s": moving(_cooling),
}


@dataclass
class SimulatedDevice:
    """A device of which the truth is known, and its clock."""

    machine: Machine
    rng: np.random.Generator
    now_s: float = 0.0
    _begin: Process = field(init=False)

    def __post_init__(self) -> None:
        self._begin = self.machine(self.rng)

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        """Sample one fresh process."""
        self.now_s += START_S
        draw = self._begin(self.rng)
        samples_ms = draw(self.rng, self.now_s + 1e-3 * np.arange(request.num_samples))
        ends = np.cumsum(samples_ms) / 1e3
        kept = max(1, int(np.searchsorted(ends, request.max_seconds)))
        samples_ms, ends = samples_ms[:kept], ends[:kept]
        self.now_s += float(ends[-1])
        return ProfileBlock((samples_ms * 1e6).astype(np.int64), 48, 20.0, 2, 1, (), (), {})


@dataclass(frozen=True)
class Outcome:
    """One repetition."""

    verdict: Verdict
    interval_ms: tuple[float, float] | None
    seconds: float


def repeat(machine: Machine, limit_ms: float, seed: int, max_seconds: float = SECONDS) -> Outcome:
    """Sample and judge once."""
    device = SimulatedDevice(machine, np.random.default_rng(seed))
    budget = Budget(latency=LatencyBudget(max_ms=limit_ms))
    profile = profile_latency(
        Path("model"),
        Null(),
        device,
        RunOptions(),
        budget=budget.latency,
        protocol=Protocol(max_seconds=max_seconds),
        clock=lambda: device.now_s,
    )
    (check,) = first_answer(budget, latency=profile, size_bytes=1)
    return Outcome(check.verdict, check.interval, profile.seconds)


@cache
def true_p99_ms(machine: Machine) -> float:
    """Return the p99 over 2,000 processes of 2,048 samples: within 0.3 % where they depend on each other least."""
    rng = np.random.default_rng(2**32)
    begin = machine(rng)
    draws = [begin(rng)(rng, 10 * process + 1e-3 * np.arange(2048)) for process in range(2000)]
    return float(np.quantile(np.concatenate(draws), 0.99))


def p99_at_first_ms(machine: Machine) -> float:
    """Return the p99 of the first ten seconds."""
    rng = np.random.default_rng(2**32)
    draws = [machine(rng)(rng)(rng, np.arange(0, 10, 1e-3)) for _ in range(20)]
    return float(np.quantile(np.concatenate(draws), 0.99))


@dataclass(frozen=True)
class SimulatedRow:
    """What came of all repetitions of one distribution, both limits together."""

    name: str
    p99_ms: float
    wrong: float
    right: float
    undecided: float
    given: int
    """Intervals."""
    covered: float | None
    """Of those; fraction."""
    median_seconds: float


def judge(name: str, repetitions: int, seed: int) -> SimulatedRow:
    """Repeat one distribution."""
    machine = STATIONARY.get(name) or DRIFTING[name]
    truth = true_p99_ms(machine) if name in STATIONARY else p99_at_first_ms(machine)
    outcomes = {
        factor: [repeat(machine, factor * truth, seed + index) for index in range(repetitions)] for factor in WRONG
    }
    both = [outcome for each in outcomes.values() for outcome in each]
    wrong = [sum(o.verdict is word for o in outcomes[f]) for f, word in WRONG.items()]
    undecided = sum(outcome.verdict is Verdict.UNDECIDED for outcome in both)
    intervals = [outcome.interval_ms for outcome in both if outcome.interval_ms]
    covered = sum(low <= truth <= high for low, high in intervals)
    return SimulatedRow(
        name,
        truth,
        max(wrong) / repetitions,
        1 - (sum(wrong) + undecided) / len(both),
        undecided / len(both),
        len(intervals),
        covered / len(intervals) if intervals and name in STATIONARY else None,
        float(np.median([outcome.seconds for outcome in both])),
    )


def show(row: SimulatedRow) -> str:
    """Return a row as a line."""
    covered = "-" if row.covered is None else f"{row.covered:.1%}"
    return (
        f"{row.name:32s}{row.p99_ms:8.3f}{row.wrong:8.1%}{row.right:8.1%}{row.undecided:10.1%}{row.given:8d}"
        f"{covered:>9s}{row.median_seconds:10.1f}"
    )


HEADER = f"{'latencies':32s}{'p99 ms':>8s}" + "".join(
    f"{name:>{width}s}"
    for name, width in {"wrong": 8, "right": 8, "undecided": 10, "given": 8, "hold": 9, "seconds": 10}.items()
)


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*STATIONARY, *DRIFTING, []], metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(HEADER)
    rows = []
    for row in map(
        partial(judge, repetitions=arguments.repetitions, seed=arguments.seed),
        arguments.names or [*STATIONARY, *DRIFTING],
    ):
        rows.append(row)
        print(show(row), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "measuring_simulation.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
