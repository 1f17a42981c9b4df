"""Long work says that it goes on, short work says nothing."""

import io

import pytest
from rich.console import Console

from pipeline.progress import LineProgress, SilentProgress, following
from pipeline.terminal import Board, TerminalProgress, progress_on


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_log_gets_one_line_for_every_tenth_with_time_left_and_metrics() -> None:
    lines: list[str] = []
    clock = Clock()
    with LineProgress(lines.append, clock).task("distill_student", 40) as task:
        for _ in range(40):
            clock.seconds += 3
            task.advance(loss=0.5)
    assert len(lines) == 10
    assert lines[0] == "distill_student: 4/40 in 12 s, 1 min 48 s left  loss 0.5"
    assert lines[-1] == "distill_student: 40/40 in 2 min 00 s  loss 0.5"


def test_a_task_of_less_than_two_seconds_is_silent() -> None:
    lines: list[str] = []
    clock = Clock()
    with LineProgress(lines.append, clock).task("export_onnx", 10) as task:
        for _ in range(10):
            clock.seconds += 0.19
            task.advance()
    assert lines == []


def test_resumed_work_is_timed_from_where_it_resumed() -> None:
    lines: list[str] = []
    clock = Clock()
    with following(LineProgress(lines.append, clock), "train_teacher") as on_progress:
        on_progress(90, 100)
        clock.seconds = 10
        on_progress(95, 100)
        clock.seconds = 20
        on_progress(100, 100, {"accuracy": 0.98})
    assert lines == ["train_teacher: 100/100 in 20 s  accuracy 0.98"]


def test_a_function_that_is_never_called_opens_no_task() -> None:
    lines: list[str] = []
    with following(LineProgress(lines.append), "cached"):
        pass
    assert lines == []


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def test_a_terminal_keeps_one_line_of_a_long_task(terminal: Console) -> None:
    clock = Clock()
    with TerminalProgress(terminal, clock).task("train_teacher", 2) as task:
        task.advance(accuracy=0.9)
        clock.seconds = 65
        task.advance(accuracy=0.95)
    assert isinstance(terminal.file, io.StringIO)
    assert terminal.file.getvalue().rstrip().endswith("train_teacher: 2/2 in 1 min 05 s  accuracy 0.95")


def test_bars_are_for_terminals_only(terminal: Console) -> None:
    assert isinstance(progress_on(terminal), TerminalProgress)
    assert isinstance(progress_on(Console(file=io.StringIO())), LineProgress)


def test_silent_progress_takes_everything_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with following(SilentProgress(), "any") as on_progress:
        on_progress(1, 2, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


def test_lines_about_many_begin_with_their_names_where_there_is_no_terminal() -> None:
    said = io.StringIO()
    board = Board(Console(file=said, width=20))
    with board.shown(["cam1", "cam2"]):
        board.console_of("cam2").print("[1/2] a line longer than the console is wide\nand another", soft_wrap=True)
    assert said.getvalue() == "cam2: [1/2] a line longer than the console is wide\ncam2: and another\n"


def test_each_of_many_has_a_row_on_a_terminal_which_shows_its_latest_line() -> None:
    said = io.StringIO()
    board = Board(Console(file=said, width=60, force_terminal=True))
    with board.shown(["cam1", "cam2"]):
        for line in ("first", "latest [of all]"):
            board.tell("cam1", line)
    frame = said.getvalue().rpartition("cam1")[2]
    assert "latest [of all]" in frame
    assert "cam2" in frame
