"""The store's claims, against stages that count how often they really run."""

import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipeline.artifacts import Checkpoint, CompiledModel, OnnxModel, Parity
from pipeline.entry import RECORD_NAME, Damage, read_verified, require_storable
from pipeline.errors import StoreError
from pipeline.store import StageRun, StageStarted, StageWaits, Store
from targets.target import Layer

STAGE_VERSION = 1
TOOLCHAIN = ("torch",)


@dataclass(frozen=True)
class Model:
    path: Path
    sha256: str
    layers: tuple[Layer, ...]
    note: str | None = None


@dataclass(frozen=True)
class Settings:
    epochs: int
    rate: float = 0.1


def make_model(out_dir: Path, weights: str, settings: Settings, *, on_epoch: Callable[[], None] | None = None) -> Model:
    if on_epoch:
        on_epoch()
    path = out_dir / "model.bin"
    path.write_bytes(weights.encode())
    return Model(path, hashlib.sha256(weights.encode()).hexdigest(), (Layer("conv", "Conv", "int8", 0.25),))


def pack_model(out_dir: Path, model: Model, settings: Settings) -> Model:
    path = out_dir / "sub" / "packed.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.path.read_bytes() * settings.epochs)
    return Model(path, hashlib.sha256(path.read_bytes()).hexdigest(), model.layers)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", version_of=lambda _: "2.13.0")


def test_a_second_run_is_served_from_the_store_and_equals_the_first(store: Store) -> None:
    epochs: list[int] = []
    runs = [store.run(make_model, "w", Settings(1), on_epoch=lambda: epochs.append(1)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].path.read_bytes() == b"w"
    assert runs[0].layers == (Layer("conv", "Conv", "int8", 0.25),)
    assert len(epochs) == 1
    assert [run.cached for run in store.runs] == [False, True]


def test_the_key_is_the_full_sha256_of_the_canonical_json(store: Store) -> None:
    expected = (
        b'{"inputs":{"settings":{"$class":"Settings","epochs":1,"rate":0.1},"weights":"w"},'
        b'"stage":"make_model","toolchain":{"torch":"2.13.0"},"version":1}'
    )
    assert store.lookup(make_model, "w", Settings(1)).key == hashlib.sha256(expected).hexdigest()
    assert store.lookup(make_model, settings=Settings(1), weights="w").key == hashlib.sha256(expected).hexdigest()


def test_models_that_differ_in_one_byte_never_share_an_entry(store: Store) -> None:
    packed = [store.run(pack_model, store.run(make_model, weights, Settings(1)), Settings(2)) for weights in "ab"]
    assert [model.path.read_bytes() for model in packed] == [b"aa", b"bb"]


def test_an_artifact_counts_by_content_wherever_it_lies(store: Store, tmp_path: Path) -> None:
    model = store.run(make_model, "w", Settings(1))
    elsewhere = tmp_path / "copy.bin"
    elsewhere.write_bytes(b"w")
    store.run(pack_model, model, Settings(1))
    assert store.lookup(pack_model, replace(model, path=elsewhere, note="moved"), Settings(1)).cached


def test_files_in_an_entry_cannot_be_written_by_accident(store: Store) -> None:
    assert store.run(make_model, "w", Settings(1)).path.stat().st_mode & 0o222 == 0


def test_an_artifact_whose_digest_is_not_its_files_is_refused(store: Store) -> None:
    def lie(out_dir: Path) -> Model:
        (out_dir / "m").write_bytes(b"1")
        return Model(out_dir / "m", "0" * 64, ())

    with pytest.raises(ValueError, match="expected the artifact's sha256 to be its file's, 6b86b273"):
        store.run(lie)
    assert store.entries()[0].state == "partial"


def test_a_type_that_json_cannot_keep_is_refused_before_the_stage_runs(store: Store) -> None:
    @dataclass(frozen=True)
    class Measured:
        samples: np.ndarray

    def measure(out_dir: Path) -> Measured:
        raise AssertionError("must not run")

    with pytest.raises(TypeError, match=r"measure\.samples: expected .*ndarray"):
        store.run(measure)


@pytest.mark.parametrize("artifact", [Checkpoint, OnnxModel, CompiledModel, Parity])
def test_the_chain_s_artifacts_can_be_kept(artifact: type) -> None:
    require_storable(artifact, artifact.__name__)


@pytest.mark.parametrize("damage", ["change", "remove", "truncate", "record", "no record"])
def test_a_damaged_entry_is_set_aside_and_recomputed(store: Store, damage: str, caplog) -> None:
    model = store.run(make_model, "weights", Settings(1))
    victim = model.path.with_name(RECORD_NAME) if "record" in damage else model.path
    victim.chmod(0o644)
    content = {"change": b"weightz", "truncate": b"w", "record": b'{"format": 1'}.get(damage)
    victim.write_bytes(content) if content else victim.unlink()
    assert store.lookup(make_model, "weights", Settings(1)).reason.startswith(f"damaged: {victim.name}")
    assert store.run(make_model, "weights", Settings(1)).path.read_bytes() == b"weights"
    assert [run.cached for run in store.runs] == [False, False]
    assert "make_model: stored result is damaged" in caplog.text
    assert [found.state for found in store.entries()].count("damaged") == 1


def test_no_changed_byte_of_an_entry_goes_unnoticed(store: Store) -> None:
    folder = store.run(make_model, "w", Settings(1)).path.parent
    pristine = read_verified(folder, folder.name)
    for victim in (folder / RECORD_NAME, folder / "model.bin"):
        victim.chmod(0o644)
        content = victim.read_bytes()
        for position, byte in enumerate(content):
            victim.write_bytes(content[:position] + bytes([byte ^ 1]) + content[position + 1 :])
            found = read_verified(folder, folder.name)
            assert isinstance(found, Damage) or found == pristine  # white space may change
        victim.write_bytes(content)


def test_plan_says_never_run_cached_and_what_changed(store: Store) -> None:
    assert store.lookup(make_model, "w", Settings(30)).reason == "never run"
    store.run(make_model, "w", Settings(30))
    assert store.lookup(make_model, "w", Settings(30)).reason == "cached"
    assert store.lookup(make_model, "w", Settings(40)).reason == "settings.epochs: 30 -> 40"
    newer = Store(store.root, version_of=lambda _: "2.14.0")
    assert newer.lookup(make_model, "w", Settings(30)).reason == "toolchain torch 2.13.0 -> 2.14.0"


def test_plan_compares_with_the_nearest_entry(store: Store) -> None:
    store.run(make_model, "w", Settings(30))
    store.run(make_model, "v", Settings(5, 0.2))
    assert store.lookup(make_model, "w", Settings(31)).reason == "settings.epochs: 30 -> 31"


def test_plan_gives_the_artifact_that_the_next_stage_needs(store: Store) -> None:
    assert store.lookup(make_model, "w", Settings(1)).artifact is None
    model = store.run(make_model, "w", Settings(1))
    assert store.lookup(make_model, "w", Settings(1)).artifact == model
    store.run(pack_model, model, Settings(1))
    reason = store.lookup(pack_model, store.run(make_model, "v", Settings(1)), Settings(1)).reason
    assert reason == "model: other content (50e721e4 -> 4c94485e)"  # printf w | sha256sum; printf v | sha256sum


def test_plan_writes_nothing(store: Store) -> None:
    store.lookup(make_model, "w", Settings(1))
    assert store.entries() == ()
    assert not store.root.exists()


# A stage in a file of its own, for processes of their own: four "epochs" that it keeps as files and goes on from;
# the third waits for a gate to open.
SLOW_STAGE = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from pipeline.store import Store

STAGE_VERSION = 1
TOOLCHAIN = ()

@dataclass(frozen=True)
class Trained:
    path: Path
    resumed_at: int

def train(out_dir: Path, gate: str) -> Trained:
    resumed_at = len(list(out_dir.glob("epoch-*")))
    for epoch in range(resumed_at, 4):
        while epoch == 2 and not Path(gate).exists():
            time.sleep(0.01)
        (out_dir / f"epoch-{epoch}").write_text("done")
    return Trained(out_dir / "epoch-3", resumed_at)

if __name__ == "__main__":
    Store(Path(sys.argv[1])).run(train, sys.argv[2])
"""
OPEN = "/"


@pytest.fixture
def slow_stage(tmp_path: Path) -> ModuleType:
    (tmp_path / "slow_stage.py").write_text(SLOW_STAGE)
    return load(tmp_path / "slow_stage.py")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def training(store: Store, slow_stage: ModuleType, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of the stage, until tmp_path/gate exists."""
    process = subprocess.Popen([sys.executable, str(slow_stage.__file__), store.root, tmp_path / "gate"])
    while not list(store.root.glob("partial/*/epoch-1")):
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def test_kill_9_leaves_the_store_valid_and_the_stage_resumes(store: Store, slow_stage, training, tmp_path) -> None:
    gate = tmp_path / "gate"
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    assert [found.state for found in store.entries()] == ["partial"]
    assert store.lookup(slow_stage.train, str(gate)).reason == "interrupted, resumes"
    gate.touch()
    assert store.run(slow_stage.train, str(gate)).resumed_at == 2
    assert store.lookup(slow_stage.train, str(gate)).cached


def test_a_crash_between_the_record_and_the_rename_loses_nothing(store: Store, slow_stage: ModuleType) -> None:
    trained = store.run(slow_stage.train, OPEN)
    folder = trained.path.parent
    folder.rename(store.root / "partial" / f"train-{folder.name}")
    events: list[object] = []
    again = Store(store.root, on_stage=events.append)
    assert again.run(slow_stage.train, OPEN) == trained
    assert not any(isinstance(event, StageStarted) for event in events)


def test_two_processes_compute_one_key_once_and_the_second_says_who_computes(store, slow_stage, training, tmp_path):
    events: list[object] = []

    def open_gate_when_told(event: object) -> None:
        events.append(event)
        (tmp_path / "gate").touch()

    second = Store(store.root, on_stage=open_gate_when_told)
    assert second.run(slow_stage.train, str(tmp_path / "gate")).resumed_at == 0
    waits, run = events
    assert isinstance(waits, StageWaits)
    assert waits.holder.startswith(f"process {training.pid} of user ")
    assert second.runs == [run]
    assert second.runs[0].cached


def test_a_new_stage_version_is_a_new_result(store: Store, slow_stage: ModuleType, tmp_path: Path) -> None:
    store.run(slow_stage.train, OPEN)
    (tmp_path / "edited.py").write_text(SLOW_STAGE.replace("STAGE_VERSION = 1", "STAGE_VERSION = 2"))
    assert store.lookup(load(tmp_path / "edited.py").train, OPEN).reason == "stage version 1 -> 2"


def test_a_stage_that_raises_leaves_no_entry_and_no_run(store: Store) -> None:
    def fail() -> None:
        raise RuntimeError("loss is NaN")

    with pytest.raises(RuntimeError, match="loss is NaN"):
        store.run(make_model, "w", Settings(1), on_epoch=fail)
    assert store.runs == []
    assert store.lookup(make_model, "w", Settings(1)).reason == "never run"


def test_every_step_is_told_in_order(tmp_path: Path) -> None:
    events: list[object] = []
    store = Store(tmp_path, on_stage=events.append)
    store.run(make_model, "w", Settings(1))
    key = store.runs[0].key
    assert events == [StageStarted("make_model", key, resumes=False), StageRun(*vars(store.runs[0]).values())]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_gives_a_message_and_no_entry_and_the_run_goes_on_with_room(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    big = "w" * 2_000_000
    with pytest.raises(StoreError, match=r'store: expected room .*results of make_model.*"No space left on device"'):
        store.run(make_model, big, Settings(1))
    assert [found.state for found in store.entries()] == ["partial"]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert store.run(make_model, big, Settings(1)).path.stat().st_size == 2_000_000


def test_a_read_only_disk_still_serves_and_says_what_it_cannot_write(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    store.run(make_model, "w", Settings(1))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert store.run(make_model, "w", Settings(1)).path.read_bytes() == b"w"
    with pytest.raises(
        StoreError, match=r'locks: expected a folder that this user can write .*"Read-only file system"'
    ):
        store.run(make_model, "v", Settings(1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_gives_a_message(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r'expected a folder that this user can write .*"Permission denied"'):
        Store(tmp_path / "store").run(make_model, "w", Settings(1))
    tmp_path.chmod(0o700)


def test_prune_removes_what_was_long_unused_and_what_is_damaged(store: Store) -> None:
    old, fresh, broken = (store.run(make_model, weights, Settings(1)).path for weights in ("old", "new", "bad"))
    os.utime(old.with_name(RECORD_NAME), (0, 0))
    broken.unlink()
    store.run(make_model, "bad", Settings(1))
    removed = store.prune(unused_days=30)
    assert (removed.num_results, removed.num_in_use) == (2, 0)
    assert not old.exists()
    assert fresh.exists()
    assert [found.state for found in store.entries()] == ["entry", "entry"]


def test_clear_leaves_what_a_process_computes_now(store: Store, training, tmp_path: Path) -> None:
    store.run(make_model, "w", Settings(1))
    assert store.size_bytes() > 0
    removed = store.clear()
    (tmp_path / "gate").touch()
    assert training.wait() == 0
    assert (removed.num_results, removed.num_in_use) == (1, 1)
    assert [found.stage for found in store.entries()] == ["train"]
