"""Progress bars for people at a terminal, plain lines for everybody else. Rule: the only user of rich.progress."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from rich import progress as bars
from rich.console import Console
from rich.table import Column
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


@dataclass
class Board:
    """Lines about several at work at the same time: the latest of each on a terminal, else all, begun by a name."""

    console: Console
    rows: dict[str, Callable[[str], None]] = field(default_factory=dict)
    """What shows a line, by name, while the board is shown on a terminal."""

    def tell(self, name: str, line: str) -> None:
        """Show one line about one of them; from any thread."""
        show = self.rows.get(name)
        if show is None:
            self.console.print(Text(f"{name}: {line}"), soft_wrap=True)
        else:
            show(line)

    @contextmanager
    def shown(self, names: Sequence[str]) -> Iterator[None]:
        """Give each name a row on a terminal until the context is left."""
        if not self.console.is_terminal:
            yield
            return
        one_line = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.TextColumn("{task.fields[line]}", markup=False, table_column=one_line),
            bars.TimeElapsedColumn(),
        )
        with bars.Progress(*columns, console=self.console, transient=True, refresh_per_second=2, expand=True) as rows:
            ids = {name: rows.add_task(name, total=None, line="") for name in names}
            self.rows = {name: partial(_show_line, rows, row) for name, row in ids.items()}
            try:
                yield
            finally:
                self.rows = {}

    def console_of(self, name: str) -> Console:
        """Return a console whose lines are about one of them."""
        return Console(file=_Lines(partial(self.tell, name)), color_system=None, highlight=False)


def _show_line(rows: bars.Progress, row: bars.TaskID, line: str) -> None:
    rows.update(row, line=line)


class _Lines(io.StringIO):
    """A file for text that hands on whole lines, and keeps none."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, lines):
            self._tell(line)
        return len(text)
