import fcntl
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from targets import Null
from targets.devices.device import Device
from targets.devices.install import Archive, Recording, install_release, list_installed, roll_back
from targets.errors import DeviceError, ModelRefused
from targets.runner.install import RELEASE_FILE, compare_answers, install, rollback
from targets.runner.job import Installation, Job, name_array
from targets.runner.releases import current_of, history_of, versions_of
from targets.target import RunOptions

IMAGES = np.random.default_rng(0).random((3, 3, 4, 4)).astype(np.float32)
ANSWERS = (IMAGES.mean(axis=(2, 3)) @ np.arange(15).reshape(3, 5)).astype(np.float32)
NEARLY = 1e-4


def pack(path: Path, model: bytes, note: str) -> str:
    """Write an archive that holds a model and a note; return its digest."""
    files = {"model.onnx": model, "note.txt": note.encode()}
    listed = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()}
    manifest = json.dumps({"model": "model.onnx", "files": listed}).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**files, "manifest.json": manifest}.items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Bench:
    """A device's folder, and jobs on it in this process."""

    model: bytes
    folder: Path
    root: Path

    @property
    def home(self) -> Path:
        return self.root / "digits-cpu"

    def ask(self, version: str, answers: np.ndarray = ANSWERS) -> Job:
        """Push a release and what it must answer; return the job that installs it."""
        sha256 = pack(self.folder / RELEASE_FILE, self.model, version)
        np.save(self.folder / name_array("feed", 0), IMAGES)
        np.save(self.folder / name_array("output", 0), answers)
        release = Installation(str(self.root), "digits-cpu", version, sha256, ("y",), NEARLY)
        return Job("n1", "install", Null(), RunOptions(), 60.0, feeds=("x",), release=release)

    def install(self, version: str) -> None:
        install(self.ask(version), self.folder)

    def roll_back(self, version: str = "") -> None:
        job = Job(
            "n2", "rollback", Null(), RunOptions(), 60.0, release=Installation(str(self.root), "digits-cpu", version)
        )
        rollback(job, self.folder)


@pytest.fixture
def bench(linear_model: Path, tmp_path: Path) -> Bench:
    folder = tmp_path / "job"
    folder.mkdir()
    return Bench(linear_model.read_bytes(), folder, tmp_path / "releases")


def test_a_release_goes_over_the_device_and_the_way_back_too(
    device: Device, linear_model: Path, tmp_path: Path
) -> None:
    recording = Recording({"x": IMAGES}, {"y": ANSWERS}, tolerance=NEARLY)
    paths = []
    for version in ("1.0", "1.1"):
        path = tmp_path / f"{version}.zip"
        sha256 = pack(path, linear_model.read_bytes(), version)
        archive = Archive(path, sha256, "digits-cpu", version)
        installed = install_release(device, Null(), RunOptions(), archive, recording)
        assert (installed.switch.version, installed.smoke.samples) == (f"{version}-{sha256[:12]}", 3)
        paths.append(Path(installed.path))
    assert (paths[1] / "note.txt").read_text() == "1.1"
    back = roll_back(device, "digits-cpu")
    assert back.switch.version.startswith("1.0-")
    assert (paths[0] / "note.txt").read_text() == "1.0"
    (found,) = list_installed(device)
    assert found.current == back.switch.version
    assert [switch.action for switch in found.history] == ["install", "install", "rollback"]


def test_other_answers_than_recorded_leave_what_was_current(bench: Bench) -> None:
    bench.install("a")
    with pytest.raises(DeviceError, match=r"b: smoke test: output 'y': expected the recorded answers within 0.01%"):
        install(bench.ask("b", answers=ANSWERS * 1.1), bench.folder)
    assert (current_of(bench.home), versions_of(bench.home)) == ("a", ["a"])


def test_a_model_that_the_runtime_refuses_leaves_what_was_current(bench: Bench) -> None:
    bench.install("a")
    with pytest.raises(ModelRefused):
        replace(bench, model=b"no model").install("b")
    assert (current_of(bench.home), versions_of(bench.home)) == ("a", ["a"])


def test_a_changed_archive_is_refused(bench: Bench) -> None:
    job = bench.ask("a")
    with (bench.folder / RELEASE_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DeviceError, match="release: expected sha256"):
        install(job, bench.folder)
    assert current_of(bench.home) is None


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", ".hidden"])
def test_names_that_lead_outside_are_refused(bench: Bench, name: str) -> None:
    job = bench.ask("a")
    archive = bench.folder / RELEASE_FILE
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(name, b"x")
    assert job.release is not None
    release = replace(job.release, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(DeviceError, match="expected plain stored files"):
        install(replace(job, release=release), bench.folder)
    assert versions_of(bench.home) == []


def test_a_damaged_earlier_release_is_not_gone_back_to(bench: Bench) -> None:
    bench.install("a")
    bench.install("b")
    (bench.home / "a" / "note.txt").write_text("changed")
    with pytest.raises(DeviceError, match=r"a/note.txt: expected sha256"):
        bench.roll_back()
    assert current_of(bench.home) == "b"


def test_going_back_twice_goes_back_two(bench: Bench) -> None:
    for version in ("a", "b", "c"):
        bench.install(version)
    bench.roll_back()
    bench.roll_back()
    assert current_of(bench.home) == "a"
    with pytest.raises(DeviceError, match="expected an earlier release to go back to; got only a"):
        bench.roll_back()
    bench.roll_back("c")
    assert current_of(bench.home) == "c"


def test_the_oldest_releases_go_and_the_current_one_never(bench: Bench) -> None:
    for version in ("a", "b", "c", "d"):
        bench.install(version)
    assert versions_of(bench.home) == ["b", "c", "d"]
    bench.roll_back("b")
    bench.install("e")
    assert {"b", "e"} <= set(versions_of(bench.home))


def test_what_a_power_cut_left_is_cleared_away(bench: Bench) -> None:
    bench.install("a")
    (bench.home / ".incoming-n0").mkdir()
    with (bench.home / "history.jsonl").open("a") as file:
        file.write('{"action": "inst')
    bench.install("b")
    assert not list(bench.home.glob(".incoming*"))
    assert [switch.version for switch in history_of(bench.home)] == ["a", "b"]


def test_two_installs_at_once_do_not_mix(bench: Bench) -> None:
    bench.install("a")
    with (bench.home / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="got another install under way"):
            bench.install("b")
    assert current_of(bench.home) == "a"


def test_a_read_only_folder_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="file/digits-cpu: expected a folder that can be written"):
        replace(bench, root=tmp_path / "file").install("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, :2], "expected shape"),
        (lambda y: np.where(y > y.mean(), np.nan, y), "expected the recorded answers"),
        (lambda y: y + 2 * NEARLY * np.abs(y).max(), "expected the recorded answers"),
    ],
    ids=["shape", "nan", "far"],
)
def test_answers_are_compared(change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        compare_answers("a", {"y": ANSWERS}, {"y": change(ANSWERS)}, NEARLY)
    near = compare_answers("a", {"y": ANSWERS}, {"y": ANSWERS + 0.5 * NEARLY * np.abs(ANSWERS).max()}, NEARLY)
    assert (near.is_equal, near.samples) == (False, 3)
    assert compare_answers("a", {"y": ANSWERS}, {"y": ANSWERS.copy()}, 0.0).is_equal
