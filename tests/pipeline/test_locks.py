import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.locks import held, held_if_free, holder_in_words

HOLD = """
import sys, time
from pathlib import Path
from pipeline.locks import held
with held(Path(sys.argv[1]), "a long training"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "x.lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_holder_learns_who_has_the_lock_and_gets_it_when_that_process_is_killed(tmp_path, holder) -> None:
    told: list[str] = []

    def kill_holder(who: str) -> None:
        told.append(who)
        threading.Timer(0.1, os.kill, (holder.pid, signal.SIGKILL)).start()

    with held(tmp_path / "x.lock", "ours", kill_holder):
        assert f"process {os.getpid()}" in holder_in_words(tmp_path / "x.lock")
    assert len(told) == 1
    assert told[0].startswith(f"process {holder.pid} of user ")
    assert told[0].endswith(": a long training")


def test_a_lock_that_another_process_has_is_not_free(tmp_path: Path, holder) -> None:
    with held_if_free(tmp_path / "x.lock", "ours") as is_free:
        assert not is_free
    with held_if_free(tmp_path / "other.lock", "ours") as is_free:
        assert is_free


def test_a_stale_or_broken_holder_file_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "x.lock.holder").write_text('{"pid": 1')
    assert holder_in_words(tmp_path / "x.lock") == "another process"
    with held(tmp_path / "x.lock", "ours"):
        pass
    assert not (tmp_path / "x.lock.holder").exists()


def test_an_error_under_the_lock_passes_and_releases_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), held(tmp_path / "x.lock", "ours"):
        (tmp_path / "nothing").read_text()
    with held_if_free(tmp_path / "x.lock", "ours") as is_free:
        assert is_free


def test_a_folder_that_is_a_file_gives_a_message(tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with (
        pytest.raises(StoreError, match=r"build: expected a folder that this user can write .*--build"),
        held(tmp_path / "build" / "x.lock", "ours"),
    ):
        pass
