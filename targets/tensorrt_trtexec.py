"""trtexec, for devices that have it and not TensorRT's Python package: builds engines and lists their layers.

Rule: it compiles and inspects; it does not infer, since a process for each inference would measure itself. Devices
carry this file: Python 3.8, standard library only. Nothing here was executed with trtexec itself: tests hold its
command lines and read real outputs of it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from targets.errors import DeviceError, ModelRefused
from targets.target import Layer
from targets.tensorrt_build import BuildPlan, require_buildable
from targets.tensorrt_layers import read_layers

PLACES = ("/usr/src/tensorrt/bin", "/opt/tensorrt/bin")
"""Where JetPack and NVIDIA's containers put it, outside of the search path."""
BUILD_TIMEOUT_S = 3600.0
ASK_TIMEOUT_S = 60.0
BANNER = re.compile(r"\[TensorRT v(\d+)\]")
ERROR = re.compile(r"\[E\] (?:\[TRT\] |Error\[\d+\]: )*(.+)")


def find_trtexec() -> Optional[Path]:
    """Return the program, or None."""
    found = shutil.which("trtexec") or shutil.which("trtexec", path=":".join(PLACES))
    return None if found is None else Path(found)


@lru_cache(maxsize=None)
def read_version(program: Path) -> str:
    """Return TensorRT's version, from the first line of whatever trtexec says."""
    output, _ = _run([str(program), "--help"], ASK_TIMEOUT_S)
    found = BANNER.search(output)
    if found is None:
        raise DeviceError(
            f"{program}: expected trtexec to name its TensorRT version; got {output.strip()[:60]!r}; install "
            "TensorRT again"
        )
    return parse_version(int(found.group(1)))


def parse_version(number: int) -> str:
    """Return 8.5.2 for 8502, and 10.16.1 for 101601: since 10 each part has two digits."""
    first, second = (1000, 100) if number < 10_000 else (10_000, 100)
    return f"{number // first}.{number % first // second}.{number % second}"


def build_command(
    program: Path, version: str, plan: BuildPlan, *, has_codes: bool, timing_cache: Optional[Path]
) -> Tuple[str, ...]:
    """Return what builds model.onnx of the working folder into `engine`; flags vanished with 8.6, 10 and 11."""
    major, minor = (int(part) for part in version.split(".")[:2])
    is_weak = major < 10 or (major == 10 and plan.processor == "DLA")
    flags: List[str] = [
        "--onnx=model.onnx",
        "--saveEngine=engine",
        "--profilingVerbosity=detailed",
        "--noTF32",
        "--skipInference" if (major, minor) >= (8, 6) else "--buildOnly",
    ]
    if is_weak:
        flags += [*(["--int8"] if has_codes else []), *(["--fp16"] if plan.precision == "fp16" else [])]
    elif major == 10:
        flags.append("--stronglyTyped")
    if plan.processor == "DLA":
        flags += [f"--useDLACore={plan.dla_core}", "--allowGPUFallback"]
    if plan.workspace_mb is not None:
        flags.append(f"--memPoolSize=workspace:{plan.workspace_mb}")
    if timing_cache is not None:
        flags.append(f"--timingCacheFile={timing_cache}")
    return (str(program), *flags)


def build_engine(program: Path, model: Path, plan: BuildPlan, timing_cache: Optional[Path]) -> bytes:
    """Return the serialized engine of an ONNX file; an open batch becomes 1, which is trtexec's own choice.

    Raises:
        ModelRefused: trtexec refuses the model; quotes its first error.
    """
    content = model.read_bytes()
    version, has_codes = read_version(program), require_buildable(content, plan)
    with tempfile.TemporaryDirectory(prefix="trtexec-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(content)
        command = build_command(program, version, plan, has_codes=has_codes, timing_cache=timing_cache)
        output, code = _run(command, BUILD_TIMEOUT_S, folder)
        engine = folder / "engine"
        if code or not engine.exists():
            raise ModelRefused(f"tensorrt {version} refuses the model: {find_error(output, code)}")
        return engine.read_bytes()


def inspect_engine(program: Path, content: bytes) -> List[Layer]:
    """Return the layers of an engine, with the mean time of each."""
    with tempfile.TemporaryDirectory(prefix="trtexec-") as name:
        folder = Path(name)
        (folder / "engine").write_bytes(content)
        flags = ("--loadEngine=engine", "--profilingVerbosity=detailed", "--dumpProfile")
        files = ("--exportLayerInfo=layers.json", "--exportProfile=profile.json")
        output, code = _run([str(program), *flags, *files], ASK_TIMEOUT_S, folder)
        if code or not (folder / "layers.json").exists():
            raise ModelRefused(f"tensorrt {read_version(program)} refuses the engine: {find_error(output, code)}")
        return read_layers((folder / "layers.json").read_text("utf-8"), _read_times(folder / "profile.json"))


def find_error(output: str, code: int) -> str:
    """Return the first error that trtexec wrote, which is the cause of the others."""
    found = ERROR.search(output)
    return f"trtexec ended with exit code {code} and no error" if found is None else found.group(1).strip()


def _read_times(path: Path) -> Dict[str, float]:
    listed = json.loads(path.read_text("utf-8")) if path.exists() else []
    return {each["name"]: float(each["averageMs"]) for each in listed if "averageMs" in each}


def _run(command: Sequence[str], timeout_s: float, folder: Optional[Path] = None) -> Tuple[str, int]:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"trtexec: expected an end within {timeout_s:g} s; got none, so it was killed; try a smaller model"
        ) from error
    except OSError as error:
        raise DeviceError(f"{command[0]}: expected a program that runs; got {error.strerror}") from error
    return done.stdout.decode("utf-8", "replace"), done.returncode
