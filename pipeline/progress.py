"""How long work tells that it goes on. Rule: stages see the two protocols only; no terminal library is imported here.

A task that ends within two seconds says nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from pipeline.report.wording import second_words

QUIET_SECONDS = 2.0
_LINES_A_TASK = 10


class Task(Protocol):
    """One piece of long work."""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        """Say that `steps` more are done, and the metrics as they are now."""
        ...


class Progress(Protocol):
    """Where long work tells that it goes on."""

    def task(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` steps, of which `done` were done before; leaving the context ends it."""
        ...


class OnProgress(Protocol):
    """What stages call: so many of so many are done, and the metrics as they are now."""

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] = ..., /) -> None:
        """Take the news."""
        ...


def say_nothing(done: int, total: int, metrics: Mapping[str, float] = MappingProxyType({}), /) -> None:
    """Hear of progress and say nothing: the default of stages that are called alone."""


@contextmanager
def following(progress: Progress, name: str) -> Iterator[OnProgress]:
    """Open a task at the first call of the function that this yields; resumed work begins where it was."""
    with ExitStack() as stack:
        tasks: list[Task] = []
        told = 0

        def on_progress(done: int, total: int, metrics: Mapping[str, float] = MappingProxyType({}), /) -> None:
            nonlocal told
            if not tasks:
                told = done
                tasks.append(stack.enter_context(progress.task(name, total, told)))
            tasks[0].advance(done - told, **metrics)
            told = done

        yield on_progress


class SilentProgress:
    """Says nothing: for machines and for stages that are called alone."""

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task that nobody hears of."""
        yield _SilentTask()


@dataclass(frozen=True)
class LineProgress:
    """One plain line for every tenth of a task: for logs and pipes."""

    write: Callable[[str], None]
    """Takes one line, without its end."""
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task that writes at most ten lines."""
        yield _LineTask(name, total, self.write, self.clock, self.clock(), done)


class _SilentTask:
    def advance(self, steps: int = 1, **metrics: float) -> None:
        pass


@dataclass
class _LineTask:
    name: str
    total: int
    write: Callable[[str], None]
    clock: Callable[[], float]
    started: float
    first: int
    done: int = field(init=False)
    tenths_told: int = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.first
        self.tenths_told = self._tenths()

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.done += steps
        seconds = self.clock() - self.started
        tenths = self._tenths()
        if tenths <= self.tenths_told or seconds < QUIET_SECONDS:
            return
        self.tenths_told = tenths
        left = seconds * (self.total - self.done) / max(1, self.done - self.first)
        eta = f", {second_words(left)} left" if left > 0 else ""
        words = [f"{self.name}: {self.done}/{self.total} in {second_words(seconds)}{eta}", metrics_text(metrics)]
        self.write("  ".join(word for word in words if word))

    def _tenths(self) -> int:
        return self.done * _LINES_A_TASK // max(1, self.total)


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Write metrics on one line: `loss 0.123  accuracy 0.98`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
