"""What users hear when a device is not as it should be: each fault is provoked for real, and each message says where,
what was expected, what came and what to do."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.loopback_ssh import Wire, free_port, make_key
from targets import Null, OnnxRuntime, TensorRt
from targets.devices.device import open_device
from targets.devices.inventory import DeviceEntry, Inventory
from targets.devices.openssh import OpenSsh
from targets.devices.ssh import Ssh
from targets.errors import ConnectionLost, DeviceError


def ssh_to(entry: DeviceEntry, said: list[str] | None = None) -> Ssh:
    return Ssh(OpenSsh("board", entry), (said if said is not None else []).append, reconnect_s=20)


def refusal(entry: DeviceEntry) -> str:
    with pytest.raises(DeviceError) as caught, ssh_to(entry):
        raise AssertionError("it was let in")
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_host_that_no_one_knows_by_name(entry: DeviceEntry) -> None:
    message = refusal(replace(entry, host="no-such-board.invalid"))
    assert "expected a host that is known by name; got: no such host; correct host" in message


def test_a_host_without_an_ssh_server(entry: DeviceEntry) -> None:
    port = free_port()
    message = refusal(replace(entry, port=port))
    assert f"device 'board' ({entry.user}@127.0.0.1:{port}): expected an ssh server; got: connection refused" in message
    assert "systemctl enable --now ssh" in message


def test_a_host_key_never_seen_before_is_refused(entry: DeviceEntry, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("")
    message = refusal(replace(entry, known_hosts=str(tmp_path / "known_hosts")))
    assert "expected a host key that is known; got one never seen before; connect once by hand" in message
    assert f'ssh -i {entry.key} -o IdentitiesOnly=yes -o UserKnownHostsFile="{tmp_path}/known_hosts" -p' in message


def test_a_host_key_that_changed_is_refused(entry: DeviceEntry, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{entry.port} {' '.join(other.split()[:2])}\n")
    message = refusal(replace(entry, known_hosts=str(known_hosts)))
    assert "another device answers there, or it was set up anew" in message
    remedy = f"ssh-keygen -R '[127.0.0.1]:{entry.port}' -f {known_hosts}"
    assert remedy in message
    subprocess.run(remedy.replace("'", "").split(), check=True, capture_output=True)
    assert "never seen before" in refusal(replace(entry, known_hosts=str(known_hosts)))


def test_a_key_that_the_device_does_not_take(entry: DeviceEntry, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    message = refusal(replace(entry, key=str(stranger)))
    assert f"expected to be let in by {stranger}; got: permission denied" in message
    assert f"ssh-copy-id -i {stranger}.pub -p {entry.port} {entry.user}@127.0.0.1" in message


def test_a_key_that_is_not_there(entry: DeviceEntry, tmp_path: Path) -> None:
    message = refusal(replace(entry, key=str(tmp_path / "none")))
    assert f"key: expected a private key file; got nothing at {tmp_path}/none" in message


def test_a_device_without_that_python(entry: DeviceEntry) -> None:
    message = refusal(replace(entry, python="/opt/python3.12"))
    assert "python: expected /opt/python3.12, 3.8 or newer; got none of that name; install one (sudo apt" in message


def test_a_python_that_is_too_old(entry: DeviceEntry, tmp_path: Path) -> None:
    old = tmp_path / "python3.6"
    pretend = "import sys; sys.version_info = (3, 6, 9); sys.version = '3.6.9 (old)'; exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    assert f"python: expected {old} to be Python 3.8 or newer; got 3.6.9;" in refusal(replace(entry, python=str(old)))


def test_a_python_without_numpy_and_one_without_the_runtime(entry: DeviceEntry, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    bare = tmp_path / "bare" / "bin" / "python"
    message = refusal(replace(entry, python=str(bare)))
    assert (
        f"expected NumPy for its Python {sys.version.split()[0]}; got none; install it there: {bare} -m pip" in message
    )
    (site,) = (tmp_path / "bare" / "lib").glob("python3*/site-packages")
    import numpy

    (site / "numpy").symlink_to(Path(numpy.__file__).parent)
    board = open_device("board", tmp_path, Inventory({"board": replace(entry, python=str(bare))}))
    with pytest.raises(
        DeviceError, match=rf"on board: onnxruntime: expected the package .*{bare} -m pip install onnxr"
    ):
        board.probe(OnnxRuntime())


def test_a_runtime_that_is_not_there_names_its_device(entry: DeviceEntry, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="device 'board': on board: tensorrt: expected") as caught:
        open_device("board", tmp_path, Inventory({"board": entry})).probe(TensorRt())
    assert caught.value.exit_code == 4


def test_a_disk_too_full_for_a_file_is_told_before_it_is_sent(
    entry: DeviceEntry, small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(bytes(8_000_000))
    message = r"small: expected room on the device; got: No space left .* MB are free"
    with pytest.raises(DeviceError, match=message), ssh_to(replace(entry, work_folder=str(small_disk))) as device:
        device.push(tmp_path / "model", "model")
    assert list((small_disk / "jobs").iterdir()) == []


def test_a_disk_that_fills_while_a_file_comes_in_is_told_and_cleared(
    entry: DeviceEntry, small_disk: Path, wire: Wire, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(os.urandom(2_200_000))
    others = small_disk / "others"
    board = replace(entry, work_folder=str(small_disk), port=wire.port)
    with pytest.raises(DeviceError, match="expected room on the device"), ssh_to(board) as device:  # noqa: PT012
        wire.bytes_a_second = 2_000_000
        threading.Timer(0.2, lambda: others.write_bytes(bytes(3_000_000))).start()
        device.push(tmp_path / "model", "model")
    assert others.stat().st_size > 1_000_000
    assert list((small_disk / "jobs").iterdir()) == []


def test_a_work_folder_that_cannot_be_written(entry: DeviceEntry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(replace(entry, work_folder=str(tmp_path / "file" / "work")))
    assert f"{tmp_path}/file/work: expected a folder that can be written; got: Not a directory; name another" in message


def test_a_file_system_that_is_read_only(entry: DeviceEntry, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    message = refusal(replace(entry, work_folder=str(small_disk / "work")))
    assert "expected a folder that can be written; got: Read-only file system; name another work_folder" in message


def test_a_device_that_is_not_the_one_expected(entry: DeviceEntry, tmp_path: Path) -> None:
    picky = replace(entry, expect={"arch": "aarch64"}, power_modes=("MAXN",))
    with pytest.raises(DeviceError) as caught:
        open_device("board", tmp_path, Inventory({"board": picky})).probe(Null())
    first, second = str(caught.value).splitlines()
    assert first.startswith('device \'board\': expect.arch: expected "aarch64", or what begins so; got "')
    assert second.startswith("device 'board': power_modes: expected one of MAXN; got none that it tells of")


@pytest.mark.slow  # what does not answer is only known by waiting
def test_a_connection_that_freezes_is_given_up_and_the_job_found_again(entry: DeviceEntry, wire: Wire) -> None:
    said: list[str] = []

    def freeze(line: str) -> None:
        if line == "2\n":
            wire.is_held.set()
            threading.Timer(25, wire.is_held.clear).start()

    program = "import time\nfor i in range(40): print(i, flush=True); time.sleep(1)"
    with ssh_to(replace(entry, port=wire.port), said) as device:
        completed = device.run(["-c", program], timeout_s=90, on_line=freeze)
    assert (completed.returncode, completed.output) == (0, tuple(map(str, range(40))))
    assert any("connecting again" in line for line in said)


@pytest.mark.slow  # a device that is off is only known by waiting
def test_a_device_that_does_not_answer(entry: DeviceEntry, wire: Wire) -> None:
    wire.is_held.set()
    message = refusal(replace(entry, port=wire.port))
    assert "expected an answer within 10 s; got none; see whether it is switched on and in the same network" in message


def test_what_ssh_says_that_nobody_foresaw_is_quoted(entry: DeviceEntry) -> None:
    error = OpenSsh("board", entry).explain("debug1: hm\nstrange things happened\n")
    assert isinstance(error, ConnectionLost)
    assert "ssh says: strange things happened; try by hand: ssh -i " in str(error)


def test_two_boards_are_driven_at_once(entry: DeviceEntry, tmp_path: Path) -> None:
    other = replace(entry, work_folder=str(tmp_path / "other"))
    with ssh_to(entry) as first, ssh_to(other) as second:
        assert first.run(["-c", "print(1)"], timeout_s=30).output == ("1",)
        assert second.run(["-c", "print(2)"], timeout_s=30).output == ("2",)
