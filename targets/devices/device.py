"""A device as the chain sees it: probe, compile, infer, profile. Each is one job: push, run, pull.

Rule: nothing of a runtime is imported here; the runner does it on the device, in a process of its own.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from targets import TARGETS, AnyTarget
from targets.devices.bundle import build_runner, name_runner
from targets.devices.facts import DeviceFacts, read_facts, read_layers, read_specs
from targets.devices.inventory import LOCAL_ALONE, THIS_MACHINE, DeviceEntry, Inventory
from targets.devices.local import Local
from targets.devices.openssh import OpenSsh
from targets.devices.outcome import Result, read_outcome
from targets.devices.packing import pack_model
from targets.devices.results import Compiled, Entrant, ProfileBlock, Turns
from targets.devices.ssh import Ssh
from targets.devices.stop import Stop
from targets.devices.survey import Survey, describe_over, find_mismatches
from targets.devices.transport import Transport
from targets.errors import DeviceError
from targets.processing import Processing
from targets.runner.energy import load_energy
from targets.runner.job import (
    ARTIFACT_FILE,
    JOB_FILE,
    MODEL_FILE,
    PROGRESS,
    RESULT_FILE,
    Action,
    Installation,
    Job,
    ProfileRequest,
    name_array,
    name_entrant,
)
from targets.runner.machine import describe
from targets.runner.sensors import load_trace
from targets.target import Arrays, RunOptions, Target

__all__ = ["Compiled", "Device", "DeviceFacts", "Entrant", "ProfileBlock", "ProfileRequest", "Turns", "open_device"]

SECONDS_A_SAMPLE = 2.0
"""What an inference may take at most, on average, before a job over many samples counts as hanging."""

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all."""


@dataclass(frozen=True)
class Task:
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
    release: Optional[Installation] = None

    def describe(self, nonce: str, sensor_root: str = "/") -> Job:
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
            release=self.release,
            sensor_root=sensor_root,
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
    releases: str = "~/.edgeproof/releases"
    """Folder on the device that releases are installed in."""
    sensor_root: str = "/"
    """Where the device's /sys and /proc are, for its sensors alone; another folder holds files that stand for them."""
    entry: DeviceEntry = THIS_MACHINE
    """What the inventory says of it."""
    survey: Survey = describe
    """Returns what the device is and has, which of these modules its Python finds among it."""

    def probe(self, target: Target) -> DeviceFacts:
        """Return what the device says of itself.

        Raises:
            DeviceError: the target's runtime is missing, or the device is not what the inventory expects.
        """
        task = Task("probe", narrow(target), RunOptions(), self.job_timeout_s, f"device {self.name!r}")
        facts = read_facts(self.perform(task)[0])
        problems = self.find_problems({**self.survey([]), **facts.identity}) if self.entry.is_particular else ()
        if problems:
            raise DeviceError("\n".join(f"device {self.name!r}: {problem}" for problem in problems))
        return replace(facts, context=self._in_context(facts.context))

    def find_problems(self, facts: Mapping[str, object]) -> Tuple[str, ...]:
        """Return what of the inventory's expectations these facts do not meet."""
        return tuple(find_mismatches(self.entry, facts))

    def compile_model(self, target: Target, model: Path, artifact: Path, options: RunOptions) -> Compiled:
        """Compile an ONNX file on the device into `artifact`, one file, and list what it executes there."""
        with tempfile.TemporaryDirectory(prefix="pack-") as folder:
            packed = pack_model(model, Path(folder) / MODEL_FILE)
            task = Task(
                "compile",
                narrow(target),
                options,
                self.job_timeout_s,
                str(model),
                push={MODEL_FILE: packed},
                pull={ARTIFACT_FILE: artifact},
            )
            result, _ = self.perform(task)
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
        task = Task(
            "infer",
            narrow(target),
            options,
            self.job_timeout_s + SECONDS_A_SAMPLE * num_samples,
            str(artifact),
            push={ARTIFACT_FILE: artifact},
            feeds=feeds,
            processing=processing,
        )
        result, arrays = self.perform(task, on_progress)
        names = result["outputs"]
        assert isinstance(names, list)
        return dict(zip(names, arrays))

    def profile(self, target: Target, artifact: Path, options: RunOptions, request: ProfileRequest) -> ProfileBlock:
        """Return the raw latency samples of one fresh process."""
        task = Task(
            "profile",
            narrow(target),
            options,
            self.job_timeout_s + 2 * (request.max_seconds + request.energy_seconds) + _cooling_s(request),
            str(artifact),
            push={ARTIFACT_FILE: artifact},
            request=request,
        )
        result, arrays = self.perform(task)
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
            context=self._in_context(context),
            trace=load_trace(result.get("trace")),
            energy=load_energy(result.get("energy")),
            waited_s=float(str(result["waited_s"])),
            inferences_per_s=_read_rate(result["inferences_per_s"]),
        )

    def compare(
        self, target: Target, entrants: Sequence[Entrant], request: ProfileRequest, *, rounds: int
    ) -> List[Turns]:
        """Return the raw latency samples of each artifact in each round, all taken in turns in one fresh process.

        `request.max_seconds` is shared by all of them.
        """
        task = Task(
            "compare",
            narrow(target),
            entrants[0].options,
            self.job_timeout_s + 2 * request.max_seconds,
            ", ".join(entrant.artifact.name for entrant in entrants),
            push={name_entrant(index): entrant.artifact for index, entrant in enumerate(entrants)},
            request=request,
            entrants=tuple(entrant.options for entrant in entrants),
            rounds=rounds,
        )
        result, arrays = self.perform(task)
        sizes, refusals = result["rounds"], result["refusals"]
        assert isinstance(sizes, list)
        assert isinstance(refusals, list)
        taken = [tuple(np.split(array, np.cumsum(size)[:-1])) if size else () for array, size in zip(arrays, sizes)]
        return [Turns(samples_ns, refusal) for samples_ns, refusal in zip(taken, refusals)]

    def _in_context(self, context: Mapping[str, object]) -> Dict[str, object]:
        return {**context, "emulated": "the inventory says so"} if self.entry.emulated else dict(context)

    def perform(self, task: Task, on_progress: Optional[Progress] = None) -> Tuple[Result, List[np.ndarray]]:
        """Push, run and pull one job; return its result and its arrays. Raises as all methods."""
        job = task.describe(secrets.token_hex(16), self.sensor_root)
        with tempfile.TemporaryDirectory(prefix="push-") as name, self.connect() as transport:
            folder = Path(name)
            runner = name_runner(build_runner())
            for remote_name, path in {**_stage(task, job, folder), **task.push}.items():
                transport.push(path, remote_name, is_kept=remote_name == runner or remote_name in task.push)
            arguments = [runner, JOB_FILE]
            completed = transport.run(arguments, task.timeout_s, partial(_report_progress, on_progress))
            has_result = transport.pull(RESULT_FILE, folder / RESULT_FILE)
            text = (folder / RESULT_FILE).read_text(encoding="utf-8") if has_result else ""
            result = read_outcome(text, completed, job, f"{task.subject}: on {self.name}", task.timeout_s)
            for remote_name, path in task.pull.items():
                transport.pull(remote_name, path)
            return result, [_pull_array(transport, name, folder) for name in _list_arrays(result)]


def open_device(
    name: str,
    work: Path,
    inventory: Inventory = LOCAL_ALONE,
    say: Callable[[str], None] = lambda line: None,
    stop: Optional[Stop] = None,
) -> Device:
    """Return the device of that name; `say` hears whom it waits for, and of broken connections; `stop` ends its jobs.

    Jobs on this machine keep their files under `work`, and remove them. Raises DeviceError for an unknown name.
    """
    entry = inventory.find(name)
    if entry.transport == "local":
        connect: Callable[[], Transport] = partial(Local, work, stop)
        survey: Survey = describe
        releases = str(work.parent / "releases")
    else:
        ssh = OpenSsh(name, entry)
        connect, survey = partial(Ssh, ssh, say, stop=stop, answered=threading.Event()), partial(describe_over, ssh)
        releases = f"{entry.work_folder}/releases"
    return Device(
        name,
        connect,
        releases=releases,
        sensor_root=entry.sensor_root,
        entry=entry,
        survey=survey,
    )


def _stage(task: Task, job: Job, folder: Path) -> Dict[str, Path]:
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


def narrow(target: Target) -> AnyTarget:
    """Return the target as the member of the union that it is: what a job can name."""
    assert isinstance(target, TARGETS), f"{target!r} is not in the union targets.AnyTarget"
    return target


def _report_progress(on_progress: Optional[Progress], line: str) -> None:
    words = line.split()
    if on_progress is not None and len(words) == 3 and words[0] == PROGRESS:
        on_progress(int(words[1]), int(words[2]))


def _cooling_s(request: ProfileRequest) -> float:
    return 0.0 if request.start_below_c is None else request.cool_down_seconds


def _read_rate(value: object) -> Optional[float]:
    return None if value is None else float(str(value))


def _list_arrays(result: Result) -> List[str]:
    names = result.get("arrays", [])
    assert isinstance(names, list)
    return names


def _pull_array(transport: Transport, name: str, folder: Path) -> np.ndarray:
    if not transport.pull(name, folder / name):
        raise DeviceError(f"{name}: expected in the job's folder on the device; got nothing; run it again")
    array: np.ndarray = np.load(folder / name, allow_pickle=False)
    return array
