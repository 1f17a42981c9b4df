"""ONNX Runtime's own file format, and the operators that a reduced build of it needs.

Rule: the converter is the installed runtime's, run in a process of its own: it writes beside what it reads, prints, and
takes settings from the environment. Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from targets.errors import DeviceError, ModelRefused
from targets.onnxruntime import OnnxRuntime

OrtPlatform = Literal["arm", "amd64"]
"""Whose operators the file may hold; without one, what every processor has."""

WRITER = "targets.onnxruntime_ort_writer"
LEVEL_VARIABLE = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class OrtModel:
    """A model as reduced builds of the runtime load it."""

    content: bytes
    """The .ort file: the graph after all fusions."""
    operators: str
    """Operators and their types, as `--include_ops_by_config` of the runtime's build takes them."""
    runtime_version: str
    """Of the runtime that fused it; another may fuse otherwise."""


def convert_to_ort(model: bytes, platform: Optional[OrtPlatform] = None) -> OrtModel:
    """Return an ONNX model in ONNX Runtime's own format: the same bytes for the same model, platform and runtime.

    Fusions are applied before it is written (`Fixed`): saved for the device instead (`Runtime`), they break files with
    QuantizeLinear and DequantizeLinear (1.31).

    Raises:
        DeviceError: the runtime is not installed, or its converter does not end.
        ModelRefused: the runtime cannot read or convert the model.
    """
    version = OnnxRuntime().runtime_version()
    with tempfile.TemporaryDirectory(prefix="ort-") as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(model)
        _run_converter(source, platform, version)
        operators = source.with_suffix(".required_operators_and_types.config").read_text(encoding="utf-8")
        return OrtModel(source.with_suffix(".ort").read_bytes(), _without_folder(operators), version)


def _run_converter(source: Path, platform: Optional[OrtPlatform], version: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != LEVEL_VARIABLE}
    search = (str(Path(__file__).parents[1]), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    try:
        done = subprocess.run(
            [sys.executable, "-m", WRITER, str(source), *filter(None, [platform])],
            cwd=str(source.parent),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"onnxruntime {version}: expected its converter to end; got nothing for {TIMEOUT_S:.0f} s; "
            "free the machine, and try again"
        ) from error
    if done.returncode != 0 or not source.with_suffix(".ort").is_file():
        raise ModelRefused(
            f"onnxruntime {version}: expected its converter to write the model as .ort; "
            f"got: {_last_line(done.stderr, source.parent)}; check the model with `edgeproof check`"
        )


def _last_line(stderr: str, folder: Path) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1].replace(f"{folder}{os.sep}", "") if lines else "no reason"


def _without_folder(operators: str) -> str:
    """Return the list of operators without its head, which names a folder of this machine."""
    return "".join(line for line in operators.splitlines(keepends=True) if not line.startswith("#"))
