from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.loopback_ssh import NEEDS_SSHD, Sshd, Wire, find_sshd
from targets.devices.inventory import DeviceEntry


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real ssh server on this machine."""
    if find_sshd() is None:
        pytest.skip(NEEDS_SSHD)
    server = Sshd(tmp_path_factory.mktemp("sshd")).prepare().start()
    yield server
    server.stop()


@pytest.fixture
def entry(sshd: Sshd, tmp_path: Path) -> DeviceEntry:
    """A device behind it, whose work folder is this test's own."""
    return replace(sshd.entry, work_folder=str(tmp_path / "device"))


@pytest.fixture
def wire(sshd: Sshd) -> Iterator[Wire]:
    """A way to the server that can be cut."""
    found = Wire(sshd.port)
    sshd.know(sshd.port, found.port)
    yield found
    found.close()
