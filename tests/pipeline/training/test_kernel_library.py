"""The kernels' library is compiled once, and whatever stands in the way leaves training to torch, with the reason.

Each test has a cache of its own. The compiler is mostly a script that copies the library that this machine has, counts
its calls, and takes no time; the answer that `find_library` keeps for a process's life is passed by.
"""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training.kernels.library import Library, find_library

LIBRARY = find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="this machine has no training kernels (no compiler, or Linux)")
COMPILING = "compiling kernels for this processor, once: some seconds"
WITHOUT = "training is slower here, by torch's own operators, for its kernels cannot be had: "
USE = """
import torch
from pipeline.training.kernels.library import kernels_in_use
from pipeline.training.kernels.operators import Norm, batch_norm
x = torch.tensor([1.0, 3.0]).expand(16, 2).T.reshape(2, 16, 1, 1).bfloat16()
norm = Norm(torch.ones(16), torch.zeros(16), torch.zeros(16), torch.ones(16), torch.tensor(0), momentum=1.0, eps=0.0)
y = batch_norm(x, norm)
print(kernels_in_use(), y[:, 0].flatten().tolist())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    caplog.set_level(logging.INFO)
    for name in ("CXX", "EDGEPROOF_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgeproof" / "kernels"


def script(folder: Path, text: str) -> Path:
    """Return a compiler that tells its version and else does as `text` says."""
    path = folder / "fake-g++"
    path.write_text(f'#!/bin/sh\ncase "$*" in *--version) echo fake 1.0; exit;; esac\n{text}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def compiler(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a compiler that gives this machine's library after a moment, and writes each call to `calls`."""
    assert LIBRARY is not None
    path = script(
        tmp_path,
        f"echo call >> '{tmp_path / 'calls'}'\nsleep 0.3\n"
        f'while [ "$1" != -o ]; do shift; done\ncp \'{LIBRARY.functions._name}\' "$2"',
    )
    monkeypatch.setenv("CXX", str(path))
    return path


def find() -> Library | None:
    """Return what a new process would find."""
    return find_library.__wrapped__()


def calls(compiler: Path) -> int:
    return len((compiler.parent / "calls").read_text().splitlines())


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.so"))


def test_kernels_are_compiled_once_and_then_found(
    compiler: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        library = find()
        assert library is not None
        assert library.functions["batch_norm_forward"]
    assert calls(compiler) == 1
    assert caplog.messages == [COMPILING]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


def test_two_processes_at_once_compile_once(compiler: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", USE], stdout=subprocess.PIPE, text=True)

    for process in [start(), start()]:
        printed, _ = process.communicate(timeout=120)
        assert printed.startswith("own: ")
        assert printed.endswith(" [-1.0, 1.0]\n")
    assert calls(compiler) == 1


@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, 5000), slice(0, -1), slice(100, None)], ids=str)
def test_a_damaged_library_is_compiled_again(compiler: Path, cache: Path, damage: slice) -> None:
    find()
    (library,) = libraries(cache)
    library.write_bytes(library.read_bytes()[damage])
    assert find() is not None
    assert calls(compiler) == 2


def test_another_compiler_or_other_options_give_another_library(
    compiler: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find()
    compiler.write_text(compiler.read_text().replace("fake 1.0", "fake 1.1"))
    find()
    monkeypatch.setenv("CXX", f"{compiler} -pthread")  # as some environments set it
    assert find() is not None
    assert calls(compiler) == len(libraries(cache)) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "echo 'cc1plus: bad value' >&2; echo more >&2; exit 1",
            "to compile them; it ended with 1: cc1plus: bad value",
        ),
        (
            "echo 'more: In function main:' >&2; echo 'tiles.h:3:1: error: no bf16' >&2; echo more >&2; exit 1",
            "it ended with 1: tiles.h:3:1: error: no bf16",
        ),
        ("exit 3", "fake-g++ to compile them; it ended with 3: nothing"),
        ("kill -9 $$", "it ended with -9: nothing"),
        ("exit 0", "No such file or directory"),
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "file too short"),
    ],
    ids=["first words", "an error behind others", "silent", "killed", "no output", "no library"],
)
def test_a_compiler_that_fails_leaves_training_to_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    monkeypatch.setenv("CXX", str(script(cache.parents[1], text)))
    assert find() is None
    assert caplog.messages[0] == COMPILING
    assert caplog.messages[1].startswith(WITHOUT)
    assert reason in caplog.messages[1]
    assert "more" not in caplog.messages[1]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PATH", "", "expected a C++ compiler; got none on the PATH. Install g++, or set CXX"),
        ("CXX", "/nowhere/g++", "No such file or directory: '/nowhere/g++'"),
    ],
)
def test_without_a_compiler_training_is_left_to_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    assert find() is None
    (message,) = caplog.messages
    assert message.startswith(WITHOUT)
    assert message.endswith(reason)


def test_a_cache_that_cannot_be_written_leaves_training_to_torch(
    compiler: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "edgeproof").write_text("a file in the folder's place")
    assert find() is None
    (message,) = caplog.messages
    assert message.startswith(WITHOUT)
    assert "expected a folder that this user can write (compiling kernels for training)" in message


def test_kernels_can_be_switched_off(
    compiler: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EDGEPROOF_KERNELS", "off")
    assert find() is None
    assert caplog.messages == []
    assert not cache.exists()


@pytest.mark.slow
def test_the_real_compiler_compiles_them(cache: Path) -> None:
    printed = subprocess.run([sys.executable, "-c", USE], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert printed.startswith("own: ")
    assert printed.endswith(" [-1.0, 1.0]\n")
    assert len(libraries(cache)) == 1
