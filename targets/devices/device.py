"""A device as the chain sees it: probe, compile, infer, profile. Each is one job: push, run, pull.

Rule: nothing of a runtime is imported here; the runner does it on the device, in a process of its own.
"""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from targets import TARGETS, AnyTarget
from targets.devices.bundle import build_runner, name_runner
from targets.devices.facts import DeviceFacts, read_facts, read_layers, read_specs
from targets.devices.local import Local
from targets.devices.outcome import Result, read_outcome
from targets.devices.packing import pack_model
from targets.devices.transport import Transport
from targets.errors import DeviceError
from targets.processing import Processing
from targets.runner.job import (
    ARTIFACT_FILE,
    JOB_FILE,
    MODEL_FILE,
    PROGRESS,
    RESULT_FILE,
    Action,
    Job,
    ProfileRequest,
    name_array,
    name_entrant,
)
from targets.target import Arrays, Layer, RunOptions, Target, TensorSpec

__all__ = ["Compiled", "Device", "DeviceFacts", "Entrant", "ProfileBlock", "ProfileRequest", "Turns", "open_device"]

DEVICES = ("local",)
"""Names of the devices that are known without an inventory."""
SECONDS_A_SAMPLE = 2.0
"""What an inference may take at most, on average, before a job over many samples counts as hanging."""

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all."""


@dataclass(frozen=True)
class Compiled:
    """What compiling found out; the artifact itself is where the caller wanted it."""

    runtime_version: str
    layers: Tuple[Layer, ...]
    """In execution order; empty where `facts.context["layers"]` says why they are unavailable."""
    facts: DeviceFacts


@dataclass(frozen=True)
class ProfileBlock:
    """Raw samples of one fresh process."""

    samples_ns: np.ndarray
    """int64, in the order taken."""
    warmup_runs: int
    load_ms: float
    """From the artifact's file to a session that can infer; the runtime is imported before."""
    peak_bytes: int
    """Largest resident memory of the process."""
    baseline_bytes: int
    """The same with the runtime imported and no model loaded."""
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    context: Dict[str, object]
    """What the device said of itself; `before` and `after` hold the sensors."""


@dataclass(frozen=True)
class Entrant:
    """One of several artifacts whose latencies are compared."""

    artifact: Path
    options: RunOptions


@dataclass(frozen=True)
class Turns:
    """What one of them gave."""

    samples_ns: Tuple[np.ndarray, ...]
    """int64, of each round; none where it was refused."""
    refusal: Optional[str] = None
    """Why the runtime does not run it."""


@dataclass(frozen=True)
class _Task:
    """A job, and the files that go with it."""

    action: Action
    target: AnyTarget
    options: RunOptions
    timeout_s: float
    subject: str
    """What an error is about: a file or the device."""
    push: Mapping[str, Path] = field(default_factory=dict)
    pull: Mapping[str, Path] = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)
    processing: Optional[Processing] = None
    request: ProfileRequest = field(default_factory=ProfileRequest)
    entrants: Tuple[RunOptions, ...] = ()
    rounds: int = 1

    def describe(self, nonce: str) -> Job:
        limit_s = self.timeout_s + 10  # the host ends a job first, and knows why
        return Job(
            nonce=nonce,
            action=self.action,
            target=self.target,
            options=self.options,
            limit_s=limit_s,
            feeds=tuple(self.feeds),
            processing=self.processing,
            request=self.request,
            entrants=self.entrants,
            rounds=self.rounds,
        )


@dataclass(frozen=True)
class Device:
    """Where models run: every action is a fresh process there.

    All methods raise DeviceError where the device, its runtime or the job fails, and ModelRefused where the
    runtime refuses the model.
    """

    name: str
    connect: Callable[[], Transport]
    """Returns a transport for one job."""
    job_timeout_s: float = 600.0
    """What a job may take, beside what its samples may take."""

    def probe(self, target: Target) -> DeviceFacts:
        """Return what the device says of itself; raises DeviceError where the target's runtime is missing."""
        task = _Task("probe", _narrow(target), RunOptions(), self.job_timeout_s, f"device {self.name!r}")
        return read_facts(self._perform(task)[0])

    def compile_model(self, target: Target, model: Path, artifact: Path, options: RunOptions) -> Compiled:
        """Compile an ONNX file on the device into `artifact`, one file, and list what it executes there."""
        with tempfile.TemporaryDirectory(prefix="pack-") as folder:
            packed = pack_model(model, Path(folder) / MODEL_FILE)
            task = _Task(
                "compile",
                _narrow(target),
                options,
                self.job_timeout_s,
                str(model),
                push={MODEL_FILE: packed},
                pull={ARTIFACT_FILE: artifact},
            )
            result, _ = self._perform(task)
        facts = read_facts(result)
        return Compiled(facts.identity["runtime_version"], read_layers(result), facts)

    def infer(
        self,
        target: Target,
        artifact: Path,
        options: RunOptions,
        feeds: Arrays,
        *,
        processing: Optional[Processing] = None,
        on_progress: Optional[Progress] = None,
    ) -> Arrays:
        """Return the outputs for every sample; each feed has a leading sample axis.

        With `processing`, the feed holds uint8 images (N, H, W, C) under the name of the model's only input, and
        the device preprocesses them.
        """
        num_samples = max((len(array) for array in feeds.values() if array.ndim), default=0)
        task = _Task(
            "infer",
            _narrow(target),
            options,
            self.job_timeout_s + SECONDS_A_SAMPLE * num_samples,
            str(artifact),
            push={ARTIFACT_FILE: artifact},
            feeds=feeds,
            processing=processing,
        )
        result, arrays = self._perform(task, on_progress)
        names = result["outputs"]
        assert isinstance(names, list)
        return dict(zip(names, arrays))

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        """Return the raw latency samples of one fresh process."""
        task = _Task(
            "profile",
            _narrow(target),
            options,
            self.job_timeout_s + 2 * request.max_seconds,
            str(artifact),
            push={ARTIFACT_FILE: artifact},
            request=request,
        )
        result, arrays = self._perform(task)
        context = result["context"]
        assert isinstance(context, dict)
        return ProfileBlock(
            samples_ns=arrays[0],
            warmup_runs=int(str(result["warmup_runs"])),
            load_ms=float(str(result["load_ms"])),
            peak_bytes=int(str(result["peak_bytes"])),
            baseline_bytes=int(str(result["baseline_bytes"])),
            inputs=read_specs(result["inputs"]),
            outputs=read_specs(result["outputs"]),
            context=context,
        )

    def compare(
        self, target: Target, entrants: Sequence[Entrant], request: ProfileRequest, *, rounds: int
    ) -> List[Turns]:
        """Return the raw latency samples of each artifact in each round, all taken in turns in one fresh process.

        `request.max_seconds` is shared by all of them.
        """
        task = _Task(
            "compare",
            _narrow(target),
            entrants[0].options,
            self.job_timeout_s + 2 * request.max_seconds,
            ", ".join(entrant.artifact.name for entrant in entrants),
            push={name_entrant(index): entrant.artifact for index, entrant in enumerate(entrants)},
            request=request,
            entrants=tuple(entrant.options for entrant in entrants),
            rounds=rounds,
        )
        result, arrays = self._perform(task)
        sizes, refusals = result["rounds"], result["refusals"]
        assert isinstance(sizes, list)
        assert isinstance(refusals, list)
        taken = [tuple(np.split(array, np.cumsum(size)[:-1])) if size else () for array, size in zip(arrays, sizes)]
        return [Turns(samples_ns, refusal) for samples_ns, refusal in zip(taken, refusals)]

    def _perform(self, task: _Task, on_progress: Optional[Progress] = None) -> Tuple[Result, List[np.ndarray]]:
        """Push, run and pull one job; return its result and its arrays."""
        job = task.describe(secrets.token_hex(16))
        with tempfile.TemporaryDirectory(prefix="push-") as name, self.connect() as transport:
            folder = Path(name)
            for remote_name, path in {**_stage(task, job, folder), **task.push}.items():
                transport.push(path, remote_name)
            arguments = [name_runner(build_runner()), JOB_FILE]
            completed = transport.run(arguments, task.timeout_s, partial(_report_progress, on_progress))
            has_result = transport.pull(RESULT_FILE, folder / RESULT_FILE)
            text = (folder / RESULT_FILE).read_text(encoding="utf-8") if has_result else ""
            result = read_outcome(text, completed, job, f"{task.subject}: on {self.name}", task.timeout_s)
            for remote_name, path in task.pull.items():
                transport.pull(remote_name, path)
            return result, [_pull_array(transport, name, folder) for name in _list_arrays(result)]


def open_device(name: str, work: Path) -> Device:
    """Return the device of that name; its jobs keep their files under `work`, and remove them."""
    if name == "local":
        return Device("local", partial(Local, work))
    raise DeviceError(
        f"device {name!r}: expected one of {', '.join(DEVICES)}; got {name!r}; "
        f'set device = "local" in the deployment to run on this machine (this version reaches no other device)'
    )


def _stage(task: _Task, job: Job, folder: Path) -> Dict[str, Path]:
    """Write what is pushed besides the task's own files; return it by its name on the device."""
    runner = build_runner()
    try:
        (folder / name_runner(runner)).write_bytes(runner)
        (folder / JOB_FILE).write_text(job.to_json(), encoding="utf-8")
        for index, array in enumerate(task.feeds.values()):
            np.save(folder / name_array("feed", index), array)
    except OSError as error:
        raise DeviceError(f"{folder}: expected room for the job's files; got {error.strerror}; free some") from error
    return {path.name: path for path in folder.iterdir()}


def _narrow(target: Target) -> AnyTarget:
    assert isinstance(target, TARGETS), f"{target!r} is not in the union targets.AnyTarget"
    return target


def _report_progress(on_progress: Optional[Progress], line: str) -> None:
    words = line.split()
    if on_progress is not None and len(words) == 3 and words[0] == PROGRESS:
        on_progress(int(words[1]), int(words[2]))


def _list_arrays(result: Result) -> List[str]:
    names = result.get("arrays", [])
    assert isinstance(names, list)
    return names


def _pull_array(transport: Transport, name: str, folder: Path) -> np.ndarray:
    if not transport.pull(name, folder / name):
        raise DeviceError(f"{name}: expected in the job's folder on the device; got nothing; run it again")
    array: np.ndarray = np.load(folder / name, allow_pickle=False)
    return array
