"""Several processes of one training: the first keeps results, the others take part when it says so."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli import run as run_command
from pipeline.follow import announce, follow, is_follower, withdraw
from pipeline.store import Store

STAGE_VERSION = 1
TOOLCHAIN = ()
LIMIT_S = 30


@dataclass(frozen=True)
class Note:
    """What the stage below leaves."""

    path: Path


HEARD: list[Path] = []


def write_note(out_dir: Path, text: str) -> Note:
    """Note the folder; go on from what lies there."""
    HEARD.append(out_dir)
    path = out_dir / "note.txt"
    path.write_text(text + (out_dir / "before.txt").read_text() if (out_dir / "before.txt").exists() else text)
    return Note(path)


@pytest.fixture(autouse=True)
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    HEARD.clear()
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def following(store: Store) -> tuple[threading.Thread, list[Note]]:
    """Start a follower of `write_note` in a thread; its result comes into the list."""
    found: list[Note] = []
    thread = threading.Thread(target=lambda: found.append(follow(store, write_note, "text")), daemon=True)
    thread.start()
    return thread, found


def test_a_result_that_is_there_is_taken_without_taking_part(tmp_path: Path) -> None:
    kept = Store(tmp_path).run(write_note, "text")
    assert follow(Store(tmp_path), write_note, "text") == kept
    assert len(HEARD) == 1


def test_a_follower_waits_while_another_run_computes(tmp_path: Path) -> None:
    thread, found = following(Store(tmp_path))
    thread.join(0.5)
    assert thread.is_alive()
    assert HEARD == []  # nothing was announced: there is nothing to take part in
    kept = Store(tmp_path).run(write_note, "text")
    thread.join(LIMIT_S)
    assert found == [kept]
    assert len(HEARD) == 1


def test_a_follower_takes_part_from_a_copy_and_takes_the_first_ones_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    unfinished = store.unfinished(write_note, "text")
    unfinished.mkdir(parents=True)
    (unfinished / "before.txt").write_text(", resumed")
    key = store.lookup(write_note, "text").key
    announce(store.root, key)
    thread, found = following(store)
    while not HEARD and thread.is_alive():
        thread.join(0.05)
    assert HEARD[0] != unfinished
    assert list(unfinished.iterdir()) == [unfinished / "before.txt"]  # a follower writes nothing there
    kept = Store(tmp_path).run(write_note, "text")
    withdraw(store.root, key)
    thread.join(LIMIT_S)
    assert found == [kept]
    assert kept.path.read_text() == "text, resumed"
    assert list((store.root / "announced").iterdir()) == []


def test_an_announcement_of_another_run_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    announce(store.root, store.lookup(write_note, "text").key)
    monkeypatch.setenv("MASTER_PORT", "2")
    thread, _ = following(store)
    thread.join(0.5)
    assert HEARD == []
    Store(tmp_path).run(write_note, "text")
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_one_process_announces_nothing_and_follows_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    announce(tmp_path, "key")
    assert not is_follower()
    assert list(tmp_path.iterdir()) == []


def test_what_measures_wants_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["deploy", "recipes/digits.toml"]) == 2
    assert "deploy: expected one process, since it measures; got 2 from torchrun" in capsys.readouterr().err
