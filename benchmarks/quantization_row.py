"""One row of `make bench-quantization`: every file of one network on one runtime, accuracy and interleaved latency.

Rule: files run through the targets' own sessions, batch 1, one thread: the path that ships.
"""

import contextlib
import io
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.processing import Processing
from targets.runner.inference import infer_samples
from targets.runner.timing import sample_latency, warm_up
from targets.target import RunOptions, Session, Target

TURNS, RUNS = 5, 60
"""In a round every file has so many turns, shuffled, of so many inferences."""
WARM_UP_S, TURN_S = 0.3, 10.0


@dataclass(frozen=True)
class Contender:
    """A file as it runs: two of equal bytes and precision are one."""

    file: Path
    digest: str
    precision: str
    """What floats are pinned to."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.digest, self.precision


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one inference, over the rounds."""

    p50_ms: float
    """Median of the rounds' medians."""
    min_ms: float
    rounds_ms: tuple[float, ...]
    """Median of each round."""


def time_contenders(
    target: Target, contenders: Sequence[Contender], feeds: dict[str, np.ndarray], *, rounds: int, seed: int = 0
) -> dict[tuple[str, str], Timing]:
    """Return the timing of each contender by its key.

    Every round opens all files anew, so that no file has the luck of its place in memory all along, then takes turns in
    a new order.
    """
    unique = {contender.key: contender for contender in contenders}
    medians: dict[tuple[str, str], list[float]] = {key: [] for key in unique}
    least = dict.fromkeys(unique, float("inf"))
    shuffled = random.Random(seed)
    for _ in range(rounds):
        order = list(unique)
        shuffled.shuffle(order)
        infer = {key: _open(target, unique[key]).bind(feeds) for key in order}
        for run in infer.values():
            warm_up(run, WARM_UP_S)
        samples: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in unique}
        for _ in range(TURNS):
            shuffled.shuffle(order)
            for key in order:
                infer[key]()  # the file before left the caches full of its own
                samples[key].append(sample_latency(infer[key], RUNS, TURN_S))
        for key, parts in samples.items():
            round_ms = np.concatenate(parts) / 1e6
            medians[key].append(float(np.median(round_ms)))
            least[key] = min(least[key], float(round_ms.min()))
    return {key: Timing(statistics.median(ms), least[key], tuple(ms)) for key, ms in medians.items()}


def accuracy_of(
    target: Target,
    contender: Contender,
    images_NHWC: np.ndarray,
    labels_N: np.ndarray,
    processing: Processing,
) -> float:
    """Return the share of images whose largest logit is the label's, image by image as latency is measured."""
    session = _open(target, contender)
    with contextlib.redirect_stderr(io.StringIO()):  # the runner reports its progress there
        outputs = infer_samples(session, {session.inputs[0].name: images_NHWC}, processing)
    logits_NK = outputs[session.outputs[0].name]
    return float((logits_NK.argmax(axis=1) == labels_N).mean())


def _open(target: Target, contender: Contender) -> Session:
    return target.open(contender.file, RunOptions(threads=1, precision=contender.precision))
