"""What lies on a device, and what it says of itself, without a connection."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from targets import Null
from targets.devices import holder
from targets.devices.device import open_device
from targets.devices.inventory import DeviceEntry, Inventory
from targets.devices.outcome import read_outcome
from targets.devices.survey import find_mismatches, find_runtimes
from targets.devices.transport import Completed
from targets.errors import DeviceError
from targets.runner import supervisor
from targets.runner.job import Job
from targets.runner.machine import describe, read_l4t, read_power_mode
from targets.runner.workplace import KEPT_S, Workplace, digest, plain
from targets.target import RunOptions

LEASE_S = 100.0


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    found = Workplace(str(tmp_path / "work"), LEASE_S)
    found.prepare()
    return found


def leave_job(place: Workplace, name: str, *, unattended_s: float) -> Path:
    folder = place.locate_job(name)
    folder.mkdir()
    (folder / supervisor.STARTED).write_text(f'{{"boot": "{supervisor.read_boot()}"}}')
    (folder / supervisor.ATTENDED).write_text(str(time.monotonic() - unattended_s))
    return folder


def test_only_what_its_host_forgot_is_swept(place: Workplace) -> None:
    fresh = leave_job(place, "fresh", unattended_s=10)
    mine = leave_job(place, "mine", unattended_s=500)
    forgotten = leave_job(place, "forgotten", unattended_s=500)
    other_boot = leave_job(place, "other_boot", unattended_s=10)
    (other_boot / supervisor.STARTED).write_text('{"boot": "an earlier one"}')
    assert place.acquire({"job": "mine"})
    assert [folder.exists() for folder in (fresh, mine, forgotten, other_boot)] == [True, True, False, False]


def test_kept_files_go_once_nobody_needed_them_for_a_week(place: Workplace) -> None:
    old, new = place.locate_kept("a" * 64), place.locate_kept("b" * 64)
    for path, age_s in ((old, KEPT_S + 60), (new, KEPT_S - 60)):
        path.write_bytes(b"model")
        os.utime(path, (time.time() - age_s,) * 2)
    assert place.acquire({"job": "mine"})
    assert (old.exists(), new.exists()) == (False, True)


def test_one_at_a_time_has_the_device(place: Workplace) -> None:
    other = Workplace(str(place.root), LEASE_S)
    assert place.acquire({"job": "one", "owner": {"pid": 1}})
    assert not other.acquire({"job": "two"})
    assert other.is_held()
    assert other.read_holder() == {"job": "one", "owner": {"pid": 1}}
    place.release()
    assert not other.is_held()
    assert other.acquire({"job": "two"})
    other.release()


def test_room_is_made_by_what_is_kept_and_missing_room_is_told(place: Workplace) -> None:
    place.locate_kept("a" * 64).write_bytes(b"model")
    with pytest.raises(OSError, match="No space left") as caught:
        place.require_room(1 << 60)
    assert caught.value.errno == errno.ENOSPC
    assert not place.locate_kept("a" * 64).exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(OSError, match="expected the name of one file"):
        plain(name)


def test_digests_are_those_of_the_bytes_on_the_disk(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ...", "36.4.3"),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: ...", "32.7.1"),
        ("", None),
    ],
)
def test_l4t_is_read_from_what_nvidia_writes(text: str, l4t: str | None) -> None:
    assert read_l4t(text) == l4t


def test_the_power_mode_is_read_in_both_spellings() -> None:
    assert read_power_mode("NV Power Mode: MODE_15W\n0") == "MODE_15W"
    assert read_power_mode("NV Power Mode[0]: MAXN") == "MAXN"
    assert read_power_mode("NVPM ERROR: failed") is None


def test_a_machine_tells_its_runtimes_and_leaves_out_what_it_does_not_have() -> None:
    facts = describe(("onnx", "no_such_runtime"))
    assert facts["arch"] == os.uname().machine
    runtimes = facts["runtimes"]
    assert isinstance(runtimes, dict)
    assert list(runtimes) == ["onnx"]
    assert [target.kind for target in find_runtimes(facts)] == ["null"]
    assert [target.kind for target in find_runtimes({"runtimes": {}, "trtexec": "/usr/src/trtexec"})] == ["tensorrt"]


def test_differences_from_the_inventory_are_sentences() -> None:
    entry = DeviceEntry(host="x", expect={"arch": "aarch64", "l4t": "36."}, power_modes=("MAXN", "15W"))
    assert list(find_mismatches(entry, {"arch": "aarch64", "l4t": "36.4.3", "power_mode": "15W"})) == []
    found = list(find_mismatches(entry, {"arch": "x86_64", "power_mode": "7W"}))
    assert [line.split(":")[0] for line in found] == ["expect.arch", "expect.l4t", "power_modes"]
    assert 'got "x86_64"' in found[0]
    assert "got nothing of that name" in found[1]
    assert "got 7W; set it there: sudo nvpmodel" in found[2]


def test_a_holder_is_dead_only_where_this_machine_knows_it() -> None:
    myself = holder.describe_myself()
    assert not holder.is_dead(myself)
    assert holder.is_dead({**myself, "ticks": "1"})  # its number was used again
    assert not holder.is_dead({**myself, "ticks": "1", "machine": "another"})
    assert not holder.is_dead({})


def test_what_the_inventory_calls_emulated_says_so_in_every_context(tmp_path: Path) -> None:
    rehearsal = DeviceEntry(transport="local", emulated=True)
    facts = open_device("rehearsal", tmp_path / "work", Inventory({"rehearsal": rehearsal})).probe(Null())
    assert facts.context["emulated"] == "the inventory says so"


def test_memory_that_ran_out_is_told_by_the_kernels_own_count() -> None:
    job = Job("nonce", "compile", Null(), RunOptions(), 60.0)
    completed = Completed(-9, (), oom_kills=1, peak_bytes=3_900_000_000)
    with pytest.raises(DeviceError, match=r"kernel ended it because memory ran out .*the job had 3900 MB"):
        read_outcome("", completed, job, "big.onnx: on board", 60)
