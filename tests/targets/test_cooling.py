from pathlib import Path

import pytest

from targets.runner.cooling import cool_down


class Board:
    """A thermal zone that cools by 3 degrees each time somebody waits."""

    def __init__(self, root: Path, celsius: float) -> None:
        self.now_s = 0.0
        self._zone = root / "sys/class/thermal/thermal_zone0"
        self._zone.mkdir(parents=True)
        (self._zone / "type").write_text("cpu-thermal\n")
        self._celsius = celsius
        self._write()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self._celsius -= 3
        self._write()

    def _write(self) -> None:
        (self._zone / "temp").write_text(f"{self._celsius * 1000:.0f}\n")


@pytest.mark.parametrize(
    ("max_seconds", "expected"),
    [(60, {"start_temperature_c": 48.0, "is_cool": True}), (2, {"start_temperature_c": 57.0, "is_cool": False})],
)
def test_a_hot_board_is_waited_for_but_not_for_ever(tmp_path, max_seconds, expected):
    board = Board(tmp_path, 60)
    assert cool_down(tmp_path, 50, max_seconds, lambda: board.now_s, board.wait) == expected


def test_a_cool_board_begins_at_once(tmp_path):
    board = Board(tmp_path, 40)
    assert cool_down(tmp_path, 50, 60, lambda: board.now_s, board.wait)["is_cool"]
    assert board.now_s == 0


def test_without_a_sensor_it_says_so(tmp_path):
    said = cool_down(tmp_path, 50, 60)
    assert str(said["start_temperature_c"]).startswith("unavailable: ")
    assert said["is_cool"] is False


def test_nothing_is_read_where_nothing_was_asked_for(tmp_path):
    assert cool_down(tmp_path, None, 60) == {}
