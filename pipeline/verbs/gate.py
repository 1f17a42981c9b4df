"""`edgeproof gate`: what a package's selfTest() measured on an app team's device, judged by the release's budget.

Rule: the statistics are the project's own; what a phone does not tell (clocks, heat, other load) is said, not assumed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.text import Text

from pipeline.budget import LatencyBudget
from pipeline.errors import UsageError
from pipeline.measuring import quantiles
from pipeline.measuring.assess import BURST_NS, ENOUGH_PROCESSES, LONGEST_BURST, assess
from pipeline.measuring.dependence import Blocks
from pipeline.measuring.sequential import level_of
from pipeline.measuring.validity import find_flags
from pipeline.measuring.verdict import Check, Limit, Verdict, check, combine, undecided
from pipeline.release.golden import Golden, read_golden
from pipeline.release.manifest import Manifest
from pipeline.release.self_test import SelfTest, read_self_test
from pipeline.release.verify import open_release
from pipeline.report.table import show_checks
from pipeline.report.wording import figure
from pipeline.stages.check_budget import judge_samples
from pipeline.verbs.output import EXIT_CODES, console_for_people, write_json

COARSE = 0.01
"""Part of the limit from which on a step of the clock matters."""
ANY_PLATFORM = "any"
REDUCED = ".ort"
"""Ends the name of the model in another form, which a package may load in its place."""
NOT_READ = (
    "clocks, heat and other load of the device were not read: measure it cool, charged and with nothing else running"
)
_JSON_VALUE: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


@dataclass(frozen=True)
class Judged:
    """What a device's own figures are worth."""

    manifest: Manifest
    tests: tuple[SelfTest, ...]
    blocks_ns: tuple[np.ndarray, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Of all checks together."""
        return combine(each.verdict for each in self.checks)


def run_gate(profiles: Sequence[Path], release: Path, *, as_json: bool) -> int:
    """Judge what selfTest() wrote, and return the exit code of the verdict.

    Raises:
        UsageError: a profile is not one, is about another release, or they are not of one device.
        EdgeproofError: the release is not as it was packed.
    """
    opened = open_release(release)
    tests = tuple(read_self_test(path) for path in profiles)
    for path, test in zip(profiles, tests, strict=True):
        require_release(path, test, opened.manifest)
        require_alike(path, test, profiles[0], tests[0])
    require_fresh(profiles, tests)
    golden = read_golden(opened.files, opened.manifest.root)
    judged = judge(tests, opened.manifest, golden)
    if as_json:
        write_json(_as_json(judged, release))
    else:
        _show(console_for_people(as_json=False), judged)
    return EXIT_CODES[judged.verdict]


def require_fresh(profiles: Sequence[Path], tests: Sequence[SelfTest]) -> None:
    """Refuse the samples of one start of the app that are given as those of two.

    Raises:
        UsageError: names the second.
    """
    seen: set[bytes] = set()
    for path, test in zip(profiles, tests, strict=True):
        for block in test.blocks_ns:
            content = block.tobytes()
            if content in seen and block.min() < block.max():  # a coarse clock may say one figure throughout
                raise UsageError(
                    f"{path}: samples_ns: expected those of another start of the app; got the very same samples again; "
                    "give each profile once"
                )
            seen.add(content)


def require_release(path: Path, test: SelfTest, manifest: Manifest) -> None:
    """Refuse what another release, or another package of it, measured.

    Raises:
        UsageError: names the first thing that differs.
    """
    loaded = {
        facts.sha256 for path, facts in manifest.files.items() if path == manifest.model or path.endswith(REDUCED)
    }
    if test.model_sha256 not in loaded:
        raise UsageError(
            f"{path}: model_sha256: expected {' or '.join(sorted(loaded))}, of the release; got {test.model_sha256}; "
            "name the release or package that was measured"
        )
    pairs = {
        "name": (manifest.name, test.name),
        "version": (manifest.version, test.version),
        "platform": (test.platform if manifest.platform == ANY_PLATFORM else manifest.platform, test.platform),
    }
    for aspect, (expected, got) in pairs.items():
        if expected != got:
            raise UsageError(
                f"{path}: {aspect}: expected {expected}, the release's; got {got}; name the release that was measured"
            )


def require_alike(path: Path, test: SelfTest, first_path: Path, first: SelfTest) -> None:
    """Refuse profiles that are not of one device.

    Raises:
        UsageError: names the first thing that differs.
    """
    for aspect in ("platform", "device", "runtime_version", "scope"):
        expected, got = getattr(first, aspect), getattr(test, aspect)
        if expected != got:
            raise UsageError(
                f"{path}: {aspect}: expected {expected}, as in {first_path}; got {got}; judge each device by itself"
            )


def judge(tests: Sequence[SelfTest], manifest: Manifest, golden: Golden) -> Judged:
    """Judge golden answers and latencies; each process of each profile is one block of samples.

    Raises:
        UsageError: other golden inputs were asked.
    """
    blocks = tuple(block for test in tests for block in test.blocks_ns)
    budget = manifest.budget.latency if manifest.budget else None
    checks = [_check_golden(tests, golden)]
    if budget is not None:
        checks.insert(0, _check_latency(budget, blocks, tests[0].scope))
    return Judged(manifest, tuple(tests), blocks, tuple(checks), tuple(_notes(blocks, budget)))


def _check_golden(tests: Sequence[SelfTest], golden: Golden) -> Check:
    for test in tests:
        if test.golden.samples != golden.samples:
            raise UsageError(
                f"golden.samples: expected {golden.samples}, the release's; got {test.golden.samples}; "
                "run selfTest() of the package itself"
            )
    limit = Limit("golden", golden.tolerance, "logit")
    found = [test.golden.largest_difference for test in tests]
    largest = max(math.inf if each is None else each for each in found)
    is_equal = all(test.golden.labels_equal for test in tests)
    classes = "every class is the golden one" if is_equal else "not every class is the golden one"
    holds = limit.holds(largest) and is_equal
    note = f"{golden.samples} golden inputs; {classes}"
    return check(limit, largest, Verdict.PASS if holds else Verdict.FAIL, note)


def _check_latency(budget: LatencyBudget, blocks: Blocks, scope: str) -> Check:
    limit = Limit("latency", budget.max_ms, "ms")
    if scope != budget.scope:
        return undecided(limit, f"the budget is for scope {budget.scope}; selfTest() timed scope {scope}")
    found = _judge(budget, blocks)
    step = clock_step_ns(blocks)
    if step is None:
        reason = "every sample is the same: the clock is too coarse, or there is one sample; time more"
        return replace(found, verdict=Verdict.UNDECIDED, note=f"{found.note}; {reason}")
    if step <= COARSE * budget.max_ms * 1e6 or found.verdict is Verdict.UNDECIDED:
        return found
    other = _judge(budget, [_later(block, step if found.verdict is Verdict.PASS else -step) for block in blocks])
    if other.verdict is found.verdict:
        return found
    reason = f"the clock goes in steps of {figure(step / 1e6, 'ms')}, too coarse for this limit"
    return replace(found, verdict=Verdict.UNDECIDED, note=f"{found.note}; {reason}")


def clock_step_ns(blocks: Blocks) -> int | None:
    """Return the smallest difference of two samples, which a clock's step cannot exceed; None where none differ."""
    values = np.unique(np.concatenate(blocks))
    return int(np.diff(values).min()) if values.size > 1 else None


def _later(block: np.ndarray, step: int) -> np.ndarray:
    moved: np.ndarray = np.maximum(block + step, 0)
    return moved


def _judge(budget: LatencyBudget, blocks: Blocks) -> Check:
    return judge_samples(budget, blocks, find_flags(blocks, (), {}), look=1, advice=_advice(budget, blocks))


def _advice(budget: LatencyBudget, blocks: Blocks) -> str:
    """Return what would decide a budget that these samples leave open."""
    needed, size = needed_samples(budget, blocks), sum(block.size for block in blocks)
    number = f"at least {needed:,} samples, more where some are above the limit" if size < needed else "more samples"
    if len(blocks) < ENOUGH_PROCESSES:
        return f"gather {number}, in {ENOUGH_PROCESSES} fresh starts of the app, one --profile each"
    return f"gather {number}, with nothing else running"


def needed_samples(budget: LatencyBudget, blocks: Blocks) -> int:
    """Return how many samples can pass a budget if none is above it: independent ones, or bursts (assess.BURST_NS)."""
    burst = min(max(BURST_NS / max(float(np.median(np.concatenate(blocks))), 1.0), 1.0), LONGEST_BURST)
    return math.ceil(math.log(level_of(1)) / math.log(budget.percentile / 100) * burst)


def _notes(blocks: Blocks, budget: LatencyBudget | None) -> Iterator[str]:
    if budget is None:
        yield "the deployment has no latency budget: golden answers alone were judged"
    elif len(blocks) < ENOUGH_PROCESSES:
        margin = 100 / len(blocks)
        yield (
            f"{len(blocks)} process{'es' if len(blocks) > 1 else ''} of {ENOUGH_PROCESSES}: how processes differ is "
            f"unknown, so that a verdict must hold with a margin of {margin:.0f} % at least"
        )
    yield NOT_READ


def _show(console: Console, judged: Judged) -> None:
    test, samples_ms = judged.tests[0], np.concatenate(judged.blocks_ns) / 1e6
    shown = ", ".join(f"p{p} {figure(quantiles.percentile_of(samples_ms, p), 'ms')}" for p in (50, 90, 99))
    head = f"{test.name} {test.version} for {judged.manifest.deployment}, on {test.platform}: {test.device}"
    console.print(Text(f"{head}; {test.runtime_version}"), soft_wrap=True)
    console.print(Text(f"{samples_ms.size:,} samples, scope {test.scope}: {shown}"), soft_wrap=True)
    show_checks(console, judged.checks, judged.verdict)
    for note in judged.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


def _as_json(judged: Judged, release: Path) -> JsonValue:
    test, samples_ms = judged.tests[0], np.concatenate(judged.blocks_ns) / 1e6
    interval = assess(judged.blocks_ns, 99, look=1).interval_ms
    return _JSON_VALUE.validate_python(
        {
            "release": str(release),
            "name": test.name,
            "version": test.version,
            "deployment": judged.manifest.deployment,
            "platform": test.platform,
            "device": test.device,
            "runtime_version": test.runtime_version,
            "model_sha256": test.model_sha256,
            "scope": test.scope,
            "num_samples": samples_ms.size,
            "num_processes": len(judged.blocks_ns),
            **{f"p{p}_ms": quantiles.percentile_of(samples_ms, p) for p in (50, 90, 99)},
            "p99_ci_ms": interval and list(interval),
            "clock_step_ns": clock_step_ns(judged.blocks_ns),
            "checks": [asdict(each) | {"interval": each.interval and list(each.interval)} for each in judged.checks],
            "verdict": judged.verdict.value,
            "notes": list(judged.notes),
        }
    )
