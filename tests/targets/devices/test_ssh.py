"""A device behind a real ssh server: what crosses, what is left, and what a broken connection changes (nothing)."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.loopback_ssh import Sshd, Wire, wait_until
from targets import Null
from targets.devices.device import Device, ProfileRequest, open_device
from targets.devices.inventory import DeviceEntry, Inventory
from targets.devices.openssh import OpenSsh
from targets.devices.ssh import Ssh
from targets.devices.stop import Stop
from targets.errors import ConnectionLost, DeviceError, Interrupted
from targets.target import RunOptions

COUNTING = "open('runs', 'a').write('x'); import time; [print(i, flush=True) or time.sleep(0.1) for i in range(12)]"
"""A job that notes each time that it is started."""
HANGING = "print('up', flush=True); import time; time.sleep(60)"


def ssh_to(entry: DeviceEntry, said: list[str] | None = None, *, reconnect_s: float = 20) -> Ssh:
    return Ssh(OpenSsh("board", entry), (said if said is not None else []).append, reconnect_s=reconnect_s)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


def job_folder(entry: DeviceEntry) -> Path:
    (folder,) = (Path(entry.work_folder) / "jobs").iterdir()
    return folder


def process_ids(entry: DeviceEntry) -> dict[str, int]:
    return json.loads((job_folder(entry) / "processes.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def linear_model(tmp_path: Path) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    weights = numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "w")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weights])
    path = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def open_board(entry: DeviceEntry, work: Path) -> Device:
    return open_device("board", work, Inventory({"board": entry}))


def test_a_job_crosses_and_leaves_only_what_is_kept(entry: DeviceEntry, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"weights")
    lines: list[str] = []
    program = "print('hello'); open('out', 'w').write(open('data').read() * 2); raise SystemExit(3)"
    with ssh_to(entry) as device:
        device.push(tmp_path / "data", "data", is_kept=True)
        completed = device.run(["-c", program], timeout_s=30, on_line=lines.append)
        assert device.pull("out", tmp_path / "out")
        assert not device.pull("nothing", tmp_path / "nothing")
    assert (completed.returncode, completed.output, lines) == (3, ("hello",), ["hello\n"])
    assert (tmp_path / "out").read_bytes() == b"weightsweights"
    assert files_in(Path(entry.work_folder)) == {"lock", "holder.json", "files"}


def test_a_model_infers_behind_ssh_as_the_closed_form_says(
    entry: DeviceEntry, linear_model: Path, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).random((70, 4)).astype(np.float32)
    steps: list[int] = []
    board = open_board(entry, tmp_path)
    outputs = board.infer(
        Null(), linear_model, RunOptions(), {"x": x}, on_progress=lambda done, total: steps.append(done)
    )
    np.testing.assert_array_equal(outputs["y"], x * np.array([1, 2, 3, 4], np.float32))
    assert steps[-1] == 70


def test_what_is_there_with_the_right_digest_is_not_sent_again(entry: DeviceEntry, wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(1_000_000))
    for is_damaged in (False, True, False):
        kept = Path(entry.work_folder) / "files"
        if is_damaged:
            next(kept.iterdir()).write_bytes(b"other bytes")
        before = wire.sent_bytes
        with ssh_to(replace(entry, port=wire.port)) as device:
            device.push(tmp_path / "model", "model", is_kept=True)
            device.push(tmp_path / "model", "model_again", is_kept=True)
        sent = wire.sent_bytes - before
        assert (sent > 1_000_000) == (before == 0 or is_damaged)
        assert sent < 1_300_000


def test_an_upload_that_breaks_off_goes_on_where_it_ended(entry: DeviceEntry, wire: Wire, tmp_path: Path) -> None:
    content = os.urandom(12_000_000)
    (tmp_path / "model").write_bytes(content)
    said: list[str] = []
    with ssh_to(replace(entry, port=wire.port), said) as device:
        wire.cut_after = wire.sent_bytes + 8_000_000
        device.push(tmp_path / "model", "model")
        assert (job_folder(entry) / "model").read_bytes() == content
    assert wire.cut_after is None
    assert any("connecting again" in line for line in said)
    assert wire.sent_bytes < 16_000_000  # what was under way in buffers is sent again, not the 8 MB before


def test_a_job_goes_on_without_its_connection_and_is_never_run_twice(
    entry: DeviceEntry, wire: Wire, tmp_path: Path
) -> None:
    lines: list[str] = []

    def cut_once(line: str) -> None:
        lines.append(line.strip())
        if line == "3\n":
            wire.cut()

    with ssh_to(replace(entry, port=wire.port)) as device:
        completed = device.run(["-c", COUNTING], timeout_s=60, on_line=cut_once)
        assert device.pull("runs", tmp_path / "runs")
    assert completed.returncode == 0
    assert lines == [str(i) for i in range(12)]
    assert (tmp_path / "runs").read_text() == "x"


def test_a_job_that_hangs_is_ended_by_the_device_in_time(
    entry: DeviceEntry, linear_model: Path, tmp_path: Path
) -> None:
    device = replace(open_board(entry, tmp_path), job_timeout_s=1.5)
    with pytest.raises(DeviceError, match=r"on board: expected the job 'profile' of null to end within 1\."):
        device.profile(Null(latency_ms=60_000), linear_model, RunOptions(), ProfileRequest(max_seconds=0.1))
    assert list((Path(entry.work_folder) / "jobs").iterdir()) == []


def test_a_job_that_is_killed_says_by_what(entry: DeviceEntry) -> None:
    with ssh_to(entry) as device:
        completed = device.run(["-c", "import os; os.kill(os.getpid(), 9)"], timeout_s=30)
    assert (completed.returncode, completed.failure) == (-signal.SIGKILL, None)
    assert completed.peak_bytes > 1_000_000


def test_a_power_cut_in_the_middle_is_told_and_not_repeated(entry: DeviceEntry) -> None:
    def cut_power(line: str) -> None:
        wait_until((job_folder(entry) / "processes.json").exists)
        for role in ("supervisor", "job"):
            os.kill(process_ids(entry)[role], signal.SIGKILL)

    with ssh_to(entry) as device:
        completed = device.run(["-c", HANGING], timeout_s=60, on_line=cut_power)
    assert completed.failure is not None
    assert "no trace of its end: the device lost power" in completed.failure


def test_ctrl_c_ends_the_job_there_and_leaves_nothing(entry: DeviceEntry) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        wait_until((job_folder(entry) / "processes.json").exists)
        pids.append(process_ids(entry)["job"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ssh_to(entry) as device:
        device.run(["-c", HANGING], timeout_s=60, on_line=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert list((Path(entry.work_folder) / "jobs").iterdir()) == []


def test_a_device_that_has_answered_is_waited_for_between_jobs_too(tmp_path: Path, sshd: Sshd) -> None:
    server = Sshd(tmp_path / "board").prepare().start()
    board = open_board(server.entry, tmp_path)
    before = board.probe(Null())
    server.stop()
    with pytest.raises(ConnectionLost, match="connection refused"):
        open_board(server.entry, tmp_path).probe(Null())  # one that was never heard of may not be there at all
    threading.Timer(1.5, server.start).start()
    assert board.probe(Null()).identity == before.identity
    server.stop()


def test_a_stop_ends_the_job_there_and_leaves_nothing(entry: DeviceEntry) -> None:
    stop, pids = Stop(), list[int]()

    def press(line: str) -> None:
        wait_until((job_folder(entry) / "processes.json").exists)
        pids.append(process_ids(entry)["job"])
        threading.Thread(target=stop.set).start()

    with pytest.raises(Interrupted), Ssh(OpenSsh("board", entry), stop=stop) as device:
        device.run(["-c", HANGING], timeout_s=60, on_line=press)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert list((Path(entry.work_folder) / "jobs").iterdir()) == []
    with pytest.raises(Interrupted), Ssh(OpenSsh("board", entry), stop=stop):
        raise AssertionError("it began")


def test_a_stop_ends_waiting_for_a_device(entry: DeviceEntry) -> None:
    stop = Stop()
    with ssh_to(entry), pytest.raises(Interrupted):
        Ssh(OpenSsh("board", entry), lambda line: stop.set(), stop=stop).__enter__()
    assert list((Path(entry.work_folder) / "jobs").iterdir()) == []


def test_a_second_host_waits_and_is_told_for_whom(entry: DeviceEntry) -> None:
    said: list[str] = []
    with ssh_to(entry) as first:

        def come_second() -> None:
            with ssh_to(entry, said) as second:
                second.run(["-c", "pass"], timeout_s=30)
                said.append("done")

        waiting = threading.Thread(target=come_second)
        waiting.start()
        wait_until(lambda: len(said) > 0)
        first.run(["-c", "print('first')"], timeout_s=30)
        assert len(said) == 1
    waiting.join(timeout=30)
    assert f"process {os.getpid()}" in said[0]
    assert said[-1] == "done"


def test_a_host_that_was_killed_leaves_no_lock_and_no_job(entry: DeviceEntry, tmp_path: Path) -> None:
    program = f"""
        import sys
        from targets.devices.inventory import DeviceEntry
        from targets.devices.openssh import OpenSsh
        from targets.devices.ssh import Ssh
        with Ssh(OpenSsh("board", DeviceEntry(**{dict(vars(entry))!r}))) as device:
            device.run(["-c", {HANGING!r}], 60, lambda line: print("running", flush=True))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"running\n"
        wait_until((job_folder(entry) / "processes.json").exists)
        left = process_ids(entry)["job"]
        host.kill()
    with ssh_to(entry) as device:
        assert device.run(["-c", "print('mine')"], timeout_s=30).output == ("mine",)
        with pytest.raises(ProcessLookupError):
            os.kill(left, 0)
    assert list((Path(entry.work_folder) / "jobs").iterdir()) == []


def test_what_a_login_prints_is_no_answer(sshd: Sshd, tmp_path: Path) -> None:
    shell = 'ForceCommand echo "Welcome to the lab"; sh -c "$SSH_ORIGINAL_COMMAND"'
    noisy = Sshd(tmp_path / "noisy", options=(shell,)).prepare().start()
    try:
        with ssh_to(noisy.entry) as device:
            assert device.run(["-c", "print('hi')"], timeout_s=30).output == ("hi",)
    finally:
        noisy.stop()


def test_many_devices_at_once_get_past_a_server_that_turns_some_away(sshd: Sshd, tmp_path: Path) -> None:
    crowded = Sshd(tmp_path / "crowded", options=("MaxStartups 2:70:4",)).prepare().start()

    def visit(number: int) -> tuple[str, ...]:
        entry = replace(crowded.entry, work_folder=str(tmp_path / f"device{number}"))
        with Ssh(OpenSsh(f"board{number}", entry)) as device:
            return device.run(["-c", f"print({number})"], timeout_s=60).output

    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(visit, range(8))) == [(str(number),) for number in range(8)]
    finally:
        crowded.stop()


def test_a_device_that_does_not_come_back_is_given_up_in_time(tmp_path: Path, sshd: Sshd) -> None:
    board = Sshd(tmp_path / "board").prepare().start()
    said: list[str] = []
    with (
        pytest.raises(ConnectionLost, match=r"connection refused.*; tried for 2 s after the connection broke"),
        ssh_to(board.entry, said, reconnect_s=2) as device,
    ):
        device.run(["-c", HANGING], timeout_s=60, on_line=lambda line: board.stop())
    for role in ("supervisor", "job"):
        os.kill(process_ids(board.entry)[role], signal.SIGKILL)
