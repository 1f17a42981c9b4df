"""What devices run keeps to Python 3.8, which old boards have."""

import subprocess
import sys
from pathlib import Path

from targets.devices.bundle import list_carried


def check_python38(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("vermin")), "-t=3.8-", "--no-tips", "--violations", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_everything_that_the_runner_carries_runs_on_python_3_8() -> None:
    completed = check_python38(*(path for _, path in list_carried()))
    assert completed.returncode == 0, completed.stdout


def test_the_check_sees_newer_python(tmp_path: Path) -> None:
    newer = tmp_path / "newer.py"
    newer.write_text("'abc'.removeprefix('a')\n")
    assert check_python38(newer).returncode == 1
