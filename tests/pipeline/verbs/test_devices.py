"""`edgeproof devices`: list, add, check and clean, over a real ssh server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.loopback_ssh import NEEDS_SSHD, Sshd, find_sshd
from pipeline.cli import run
from targets.devices.openssh import OpenSsh
from targets.devices.ssh import Ssh


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A device of the folder's inventory, and one that is off."""
    if find_sshd() is None:
        pytest.skip(NEEDS_SSHD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    server = Sshd(tmp_path / "board").prepare().start()
    entry = server.entry
    typed = ("--port", str(entry.port), "--key", str(entry.key), "--known-hosts", str(entry.known_hosts))
    more = ("--python", entry.python, "--work-folder", entry.work_folder)
    assert run(["devices", "add", "board", f"{entry.user}@{entry.host}", *typed, *more]) == 0
    yield server
    server.stop()


def test_devices_are_listed_for_people_and_machines(board: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "list"]) == 0
    assert "this machine" in capsys.readouterr().out
    assert run(["devices", "list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["devices"]["board"]["address"] == f"{board.entry.user}@127.0.0.1:{board.port}"
    assert list(said["devices"]) == ["local", "board"]


def test_a_check_tells_what_is_there_and_what_would_stop_a_deploy(
    board: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["devices", "add", "off", "nobody@127.0.0.1", "--port", "1"]) == 0
    capsys.readouterr()
    assert run(["devices", "check", "--json"]) == 4
    ready, off = json.loads(capsys.readouterr().out)
    assert (ready["name"], ready["is_ready"], ready["problems"]) == ("board", True, [])
    assert ready["facts"]["python"] == sys.version.split()[0]
    assert ready["facts"]["free_bytes"] > 0
    assert "null" in ready["runtimes"]
    assert "temperatures_c" in ready["sensors"]
    assert (off["name"], off["is_reachable"]) == ("off", False)
    assert "expected an ssh server; got: connection refused" in off["problems"][0]


def test_a_device_without_any_runtime_gets_the_command_that_installs_one(
    board: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    inventory = Path("devices.toml")
    inventory.write_text(inventory.read_text().replace(sys.executable, f"{bare}/bin/python"))
    assert run(["devices", "check", "board"]) == 4
    said = capsys.readouterr().out
    assert "board (" in said
    assert f"ssh {board.entry.user}@127.0.0.1:{board.port} {bare}/bin/python -m pip install numpy" in said


def test_cleaning_leaves_nothing_on_the_device(board: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    with Ssh(OpenSsh("board", board.entry)) as device:
        device.push(Path("devices.toml"), "model", is_kept=True)
    assert any((board.work / "files").iterdir())
    assert run(["devices", "clean", "board"]) == 0
    assert not board.work.exists()
    assert run(["devices", "clean", "local"]) == 2


def test_a_name_that_is_none_is_wrong_usage(board: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "check", "bord"]) == 2
    assert 'got bord (did you mean "board"?)' in capsys.readouterr().err


def test_a_profile_runs_on_a_device_of_the_inventory(
    board: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "relu.onnx")
    arguments = ["profile", "relu.onnx", "--target", "null", "--max-seconds", "2", "--json"]
    capsys.readouterr()
    assert run([*arguments, "--device", "board"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "board"
    assert run([*arguments, "--device", "bord", "--devices", "devices.toml"]) == 4
    assert "did you mean 'board'?" in capsys.readouterr().err
