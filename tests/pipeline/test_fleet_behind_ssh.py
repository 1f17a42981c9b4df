"""One deploy to many devices, over real ssh: every one of them has its release, and nothing else is left."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fleet_yard import Yard, find_left, names
from benchmarks.loopback_ssh import NEEDS_SSHD, Sshd, find_sshd


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    if find_sshd() is None:
        pytest.skip(NEEDS_SSHD)
    found = Yard(tmp_path, Sshd(tmp_path / "sshd").prepare().start())
    found.write([3])
    yield found
    found.sshd.stop()


@pytest.mark.slow
def test_a_pattern_of_devices_gets_one_release_each(yard: Yard) -> None:
    done = subprocess.run(yard.command("board*"), capture_output=True, text=True, env=yard.environment(), check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["devices"]
    assert [(row["device"], row["state"]) for row in rows] == [(name, "released") for name in names(3)]
    for row in rows:
        current = yard.home(row["device"]) / "releases" / "tiny-edge" / "current"
        assert json.loads((current / "manifest.json").read_text())["version"] == "1.0.0"
    assert list(find_left(yard, 3, set(yard.list_scratch()))) == []
