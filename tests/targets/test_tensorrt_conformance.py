"""What every target must do, done by TensorRT's code over the doubles: in this process, and as jobs on a device."""

import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_board import make_board
from tensorrt_double import VERSIONS

SUITE = Path(__file__).parents[1] / "conformance" / "test_targets.py"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_claim_of_the_conformance_suite_holds(version: str, tmp_path: Path) -> None:
    board = make_board(tmp_path / "board", version)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE), "-k", "tensorrt"]
    done = subprocess.run(command, env=board, cwd=SUITE.parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
