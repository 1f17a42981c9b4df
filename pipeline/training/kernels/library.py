"""The kernels' shared library: compiled for this processor when it is first wanted, kept for all later processes.

Rule: where they cannot be had (no compiler, another system, a processor without the instructions) torch's own
operators do the work, and that is said once. The choice depends on the machine alone, never on a timing.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.durable import write_durably
from pipeline.errors import StoreError
from pipeline.locks import held

logger = logging.getLogger(__name__)

SWITCH = "EDGEPROOF_KERNELS"
FOLDER = Path(__file__).parent
ANYWHERE = ("batch_norm.cpp", "views.cpp")
HEADERS = ("convolution.h", "norm.h", "tiles.h", "vectors.h")
WITH_AVX512 = ("convolution.cpp", "int8_convolution.cpp")
"""They need its instructions for bfloat16 and int8 (VNNI), which all processors with the first have."""
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
COMPILE_SECONDS = 120
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Library:
    """The kernels that this machine has."""

    functions: ctypes.CDLL
    int8: bool
    """Whether those of int8 are among them."""
    convolutions: bool
    """Whether those of bfloat16 are, and are faster here than oneDNN's, which uses AMX where that is."""


class _UnavailableError(Exception):
    """Why there are no kernels."""


@functools.cache
def find_library() -> Library | None:
    """Return the kernels, compiled if this is the first time; None where they cannot be had or are switched off."""
    if os.environ.get(SWITCH) == "off":
        return None
    try:
        return _load()
    except _UnavailableError as error:
        logger.warning("training is slower here, by torch's own operators, for its kernels cannot be had: %s", error)
        return None


def _load() -> Library:
    if sys.platform != "linux":
        raise _UnavailableError(f"expected Linux; got {sys.platform}")
    compiler = shlex.split(os.environ.get("CXX") or shutil.which("g++") or "")
    if not compiler:
        raise _UnavailableError("expected a C++ compiler; got none on the PATH. Install g++, or set CXX")
    has_dot_products = platform.machine() == "x86_64" and torch.cpu._is_avx512_bf16_supported()
    convolutions = has_dot_products and not torch.cpu._is_amx_tile_supported()
    try:
        path = _compiled(compiler, (*ANYWHERE, *(WITH_AVX512 if has_dot_products else ())))
        return Library(ctypes.CDLL(str(path)), has_dot_products, convolutions)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["nothing"]
        said = next((line for line in lines if "error:" in line), lines[0])
        raise _UnavailableError(
            f"expected {compiler[0]} to compile them; it ended with {error.returncode}: {said}"
        ) from error
    except (OSError, RuntimeError, StoreError, subprocess.TimeoutExpired) as error:  # RuntimeError: no home folder
        raise _UnavailableError(str(error)) from error


def call(name: str, types: tuple[object, ...], *arguments: object) -> None:
    """Call a kernel that `find_library` has; `types` are those of ctypes."""
    _typed(name, types)(*arguments)


@functools.cache
def _typed(name: str, types: tuple[object, ...]) -> Callable[..., None]:
    library = find_library()
    if library is None:
        raise RuntimeError(f"{name}: expected kernels on this machine; got none")
    function = library.functions[name]
    function.argtypes, function.restype = types, None  # type: ignore[assignment]
    return function


def kernels_in_use() -> str:
    """Return which kernels a training on this machine uses, for what is written beside its weights."""
    library = find_library()
    if library is None:
        return "torch"
    return "own: convolution, batch norm" if library.convolutions else "own: batch norm"


def _compiled(compiler: list[str], sources: tuple[str, ...]) -> Path:
    """Return the library's file, after compiling it where nobody has."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    texts = [(FOLDER / name).read_text() for name in (*sources, *HEADERS)]
    key = "\0".join([version, *compiler[1:], _processor(), *FLAGS, *texts])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeproof" / "kernels"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.so"
    if not _is_whole(path):
        with held(path.with_suffix(".lock"), "compiling kernels for training"):
            if not _is_whole(path):
                logger.info("compiling kernels for this processor, once: some seconds")
                _compile(compiler, sources, path)
    return path


def _compile(compiler: list[str], sources: tuple[str, ...], path: Path) -> None:
    beside = path.with_suffix(f".{os.getpid()}.so")
    command = [*compiler, *FLAGS, *(str(FOLDER / name) for name in sources), "-o", str(beside)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMPILE_SECONDS)
        code = beside.read_bytes()
        write_durably(path, code + hashlib.sha256(code).digest())  # what stands behind its end, a loader ignores
    finally:
        beside.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Return whether a library is there as it was written: one that is damaged could end the process that loads it."""
    if not path.exists():
        return False
    content = path.read_bytes()
    digest = hashlib.sha256(content[:-DIGEST_BYTES]).digest()
    return digest == content[-DIGEST_BYTES:]


def _processor() -> str:
    """Return what `-march=native` depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU "))}))
