"""Whether TensorRT accepts a model, asked of TensorRT for RTX, whose parser and builder need no GPU.

Rule: a crash or a hang over there is an answer here. Python 3.8, standard library; nothing of NVIDIA's is imported.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, cast

from targets.acceptance import Acceptance, Objection, Verdict
from targets.errors import DeviceError, ModelRefused
from targets.tensorrt_grid import find_objections, read_opset
from targets.tensorrt_words import explain

PACKAGE = "tensorrt_rtx"
INSTALL = "pip install 'edgeproof[tensorrt-check]'"
WORKER = "targets.tensorrt_parse"
OPSET_OF_TENSORRT_8 = 17
NOTE = (
    "That it builds is no proof of speed, nor that an older TensorRT takes it: the device has the last word. The GPU "
    "named here only stands for one."
)
NOTE_ON_OPSET = (
    "TensorRT 8.5 and 8.6 read ONNX up to opset 17, and this file has {}: for boards with those, export it with "
    "opset = 17."
)
STEPS = {"import": "loading tensorrt-rtx", "parse": "reading the model", "build": "building the engine"}

Step = Mapping[str, object]
"""A line of the worker's answer: `step` and what belongs to it."""


@dataclass(frozen=True)
class _Answer:
    """What the worker left behind, however it ended."""

    steps: Tuple[Step, ...]
    returncode: Optional[int]
    """None where it ran out of time."""
    last_line: str
    """Of what it wrote to its standard error."""

    def step(self, name: str) -> Optional[Step]:
        return next((step for step in self.steps if step["step"] == name), None)


def find_checker(package: str = PACKAGE) -> str:
    """Return name and version of what is asked; see ChecksWithoutDevice."""
    if find_spec(package) is None:
        raise DeviceError(
            f"tensorrt: expected the package tensorrt-rtx, whose parser and builder need no GPU; got none; install it: "
            f"{INSTALL}"
        )
    name = package.replace("_", "-")
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def check_model(
    model: Path,
    shapes: Mapping[str, Sequence[int]],
    *,
    timeout_s: float,
    worker: str = WORKER,
    package: str = PACKAGE,
) -> Acceptance:
    """Ask about one ONNX file; see ChecksWithoutDevice.

    Args:
        model: the file; weights in other files are found beside it.
        shapes: of inputs with open sizes.
        timeout_s: of parsing and building.
        worker: the module that is run in a process of its own.
        package: what it imports.
    """
    find_checker(package)
    start = time.monotonic()
    on_grid = find_objections(model)
    answer = _ask(worker, {"model": str(model.absolute()), "shapes": dict(shapes)}, timeout_s)
    build, built = answer.step("build"), answer.step("built")
    _require_inputs(model, build)
    size_bytes = built["engine_bytes"] if built else None
    objections = (*on_grid, *_objections(answer, timeout_s, is_explained=bool(on_grid)))
    assumed = cast(Dict[str, str], build["assumed"]) if build else {}
    opset = read_opset(model)
    return Acceptance(
        verdict=_verdict(objections),
        checked_with=_checked_with(answer),
        objections=objections,
        seconds=time.monotonic() - start,
        size_bytes=size_bytes if isinstance(size_bytes, int) else None,
        assumed=tuple(f"{name}={sizes}" for name, sizes in assumed.items()),
        note=NOTE if opset <= OPSET_OF_TENSORRT_8 else f"{NOTE} {NOTE_ON_OPSET.format(opset)}",
    )


def _ask(worker: str, request: Mapping[str, object], timeout_s: float) -> _Answer:
    """Run the worker in an empty folder, so that nothing there hides a module that it imports."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.jsonl"
        asked.write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-m", worker, str(asked), str(answered)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
            )
            returncode: Optional[int] = done.returncode
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        except subprocess.TimeoutExpired:
            returncode, lines = None, []
        text = answered.read_text("utf-8") if answered.exists() else ""
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]  # it may have died in the last
    return _Answer(tuple(json.loads(line) for line in whole), returncode, lines[-1] if lines else "")


def _require_inputs(model: Path, build: Optional[Step]) -> None:
    if build and build["unknown"]:
        names = ", ".join(cast(List[str], build["unknown"]))
        raise ModelRefused(f"{model}: --shape: expected a name and sizes that fit an input of the model; got {names}")


def _objections(answer: _Answer, timeout_s: float, *, is_explained: bool) -> Tuple[Objection, ...]:
    """Return what the parser or the builder objects to; of Q/DQ only what the rules of the grid did not explain."""
    refused, built = answer.step("refused"), answer.step("built")
    if refused:
        errors = cast(List[Dict[str, str]], refused["errors"])
        found = [explain("parser", (error["message"],), error["node"], error["op_type"]) for error in errors]
        if not found:
            found = [explain("parser", _errors(refused))]
        return tuple(each for each in found if not (is_explained and each.op_type.endswith("uantizeLinear")))
    if built is None:
        return (_died(answer, timeout_s),)
    return () if built["engine_bytes"] is not None else (explain("builder", _errors(built)),)


def _errors(step: Step) -> Tuple[str, ...]:
    return tuple(text for severity, text in cast(List[Tuple[str, str]], step["messages"]) if "error" in severity)


def _died(answer: _Answer, timeout_s: float) -> Objection:
    doing = STEPS[str(answer.steps[-1]["step"])] if answer.steps else "starting"
    if answer.returncode is None:
        return Objection(
            "process",
            f"tensorrt-rtx was still {doing} after {timeout_s:g} s, and was ended",
            "give it more time with --max-seconds, or build the model on the device",
        )
    how = f"exit code {answer.returncode}"
    if answer.returncode < 0:
        how = signal.Signals(-answer.returncode).name
    return Objection(
        "process",
        f"tensorrt-rtx died while {doing} ({how})",
        f"check the model with onnx.checker; check that the package is whole: {INSTALL} --force-reinstall",
        said=answer.last_line,
    )


def _verdict(objections: Sequence[Objection]) -> Verdict:
    if any(each.is_fatal for each in objections if each.judge != "process"):
        return "refused"
    if any(each.judge == "process" for each in objections):
        return "undecided"
    return "warned" if objections else "accepted"


def _checked_with(answer: _Answer) -> str:
    parse, build = answer.step("parse"), answer.step("build")
    version = f" {parse['version']}" if parse else ""
    return f"tensorrt-rtx{version}" + (f", built for {build['architecture']}" if build else "")
