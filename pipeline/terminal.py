"""Progress bars for people at a terminal, plain lines for everybody else. Rule: the only user of rich.progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from pipeline.progress import QUIET_SECONDS, LineProgress, Progress, Task, metrics_text
from pipeline.report.wording import second_words


def progress_on(console: Console) -> Progress:
    """Return bars where `console` is a terminal, and otherwise a line for every tenth of a task."""
    if console.is_terminal:
        return TerminalProgress(console)
    return LineProgress(lambda line: console.print(Text(line), soft_wrap=True))


@dataclass(frozen=True)
class TerminalProgress:
    """Bars with the time left and current metrics; a task that took long leaves one line when it ends."""

    console: Console
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task with a bar of its own."""
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=24),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
            bars.TextColumn("{task.fields[metrics]}"),
        )
        started = self.clock()
        bar = bars.Progress(*columns, console=self.console, transient=True)
        with bar:
            task = _BarTask(bar, bar.add_task(name, total=total, completed=done, metrics=""), done)
            yield task
        seconds = self.clock() - started
        if seconds >= QUIET_SECONDS:
            self.console.print(Text(f"{name}: {task.done}/{total} in {second_words(seconds)}  {task.metrics}".rstrip()))


@dataclass
class _BarTask:
    bar: bars.Progress
    task_id: bars.TaskID
    done: int
    metrics: str = ""

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.done += steps
        self.metrics = metrics_text(metrics) or self.metrics
        self.bar.update(self.task_id, completed=self.done, metrics=self.metrics)
