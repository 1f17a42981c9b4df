"""How often the interval of one real profile holds what all of them together say: the same model, profiled 50 times.

Run: OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/repeated_profiles.py MODEL.onnx [--target onnxruntime]
         [--repetitions 50] [--seconds 6]

Each repetition is a whole profile of its own, with fresh processes. Those in which a flag forbids a verdict are counted
apart, as a deployment would not have believed them. The p99 of the samples of all valid ones pooled stands for the
truth, which it is only while the machine stays the same over the minutes that this takes: reported, not a gate.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.side_by_side import RESULTS
from pipeline.budget import Protocol
from pipeline.measuring import quantiles
from pipeline.measuring.assess import assess
from pipeline.measuring.validity import BOTH, find_flags
from pipeline.stages.profile_latency import profile_latency
from pipeline.verbs.profile import choose_runtime, parse_shape
from targets.devices.device import open_device
from targets.target import RunOptions

RESULT = RESULTS / "repeated_profiles.json"
PERCENTILE = 99.0


@dataclass(frozen=True)
class Repetition:
    """One profile."""

    p99_ms: float
    interval_ms: tuple[float, float] | None
    num_samples: int
    worth: float
    """Independent samples."""
    doubts: tuple[str, ...]
    """Flags that forbid a verdict."""
    seconds: float


def main() -> None:
    """Profile again and again, print the shares, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=1x3x32x32")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    target, protocol = choose_runtime(given.target), Protocol(max_seconds=given.seconds)
    shapes = dict(parse_shape(text) for text in given.shape)
    repetitions, samples_ns = [], []
    with tempfile.TemporaryDirectory() as folder:
        device = open_device("local", Path(folder))
        artifact = Path(folder) / given.model.name
        device.compile_model(target, given.model, artifact, RunOptions())
        for _ in track(range(given.repetitions), "profiling", console=Console(stderr=True)):
            profile = profile_latency(artifact, target, device, RunOptions(), protocol=protocol, shapes=shapes)
            found = assess(profile.blocks_ns, PERCENTILE, look=profile.looks)
            flags = find_flags(profile.blocks_ns, profile.traces, profile.context)
            repetitions.append(
                Repetition(
                    p99_ms=quantiles.percentile_of(profile.samples_ns / 1e6, PERCENTILE),
                    interval_ms=found.interval_ms,
                    num_samples=profile.samples_ns.size,
                    worth=found.effective_samples,
                    doubts=tuple(flag.name for flag in flags if flag.forbids == BOTH),
                    seconds=profile.seconds,
                )
            )
            samples_ns.append(profile.samples_ns)
    show(given.model, repetitions, samples_ns)


def show(model: Path, repetitions: list[Repetition], samples_ns: list[np.ndarray]) -> None:
    """Print what the repetitions are worth."""
    valid = [index for index, each in enumerate(repetitions) if not each.doubts]
    pooled = np.concatenate([samples_ns[index] for index in valid]) / 1e6 if valid else np.empty(0)
    truth = quantiles.percentile_of(pooled, PERCENTILE) if pooled.size else float("nan")
    given = [interval for index in valid if (interval := repetitions[index].interval_ms)]
    held = sum(low <= truth <= high for low, high in given)
    p99s = np.array([repetitions[index].p99_ms for index in valid] or [float("nan")])
    table = Table("", "", box=None, show_header=False, title=f"{model.name}, {len(repetitions)} profiles")
    table.add_row("valid", f"{len(valid)}")
    table.add_row("p99 of all valid samples pooled", f"{truth:.4g} ms of {pooled.size:,} samples")
    table.add_row("p99 of each", f"{np.median(p99s):.4g} ms (median), {p99s.min():.4g} to {p99s.max():.4g}")
    table.add_row("intervals given", f"{len(given)}")
    table.add_row("of them hold the pooled p99", f"{held} ({held / len(given):.0%})" if given else "-")
    widths = [high / low - 1 for low, high in given]
    table.add_row("their width, median", f"{np.median(widths):.1%}" if widths else "-")
    table.add_row("seconds of each, median", f"{np.median([each.seconds for each in repetitions]):.3g}")
    Console(width=120).print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    figures = {"model": str(model), "pooled_p99_ms": truth, "held": held, "given": len(given)}
    RESULT.write_text(json.dumps({**figures, "repetitions": [asdict(each) for each in repetitions]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
