"""The runner's entry: read a job, do it, write its result last.

Rule: devices carry this file: Python 3.8, standard library and NumPy only. A refusal is a result; a crash leaves none,
and the host tells why from the process's end.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from targets.errors import DeviceError, ModelRefused
from targets.runner.caches import keep_caches
from targets.runner.cooling import cool_down
from targets.runner.energy import Scale, dump_energy
from targets.runner.facts import (
    list_counters,
    read_available_bytes,
    read_identity,
    read_peak_bytes,
    read_sensors,
    read_swapped_bytes,
    read_versions,
)
from targets.runner.inference import bind_for_scope, infer_samples
from targets.runner.install import install, list_releases, rollback
from targets.runner.job import ARTIFACT_FILE, MODEL_FILE, RESULT_FILE, Job, name_array, name_entrant
from targets.runner.sensors import Trace, dump_trace
from targets.runner.sensors_sampler import Watch
from targets.runner.timing import WarmUp, read_age_ns, sample_latency, sample_streams, warm_up
from targets.target import NamesProcessor, Session, Target

Result = Dict[str, object]

WARM_UP_SHARE = 0.25
"""Part of a profile's time limit that its warm-up may take."""


def main(arguments: Sequence[str]) -> int:
    """Do the job whose file is the only argument; 0 wherever a result was written, a refusal included."""
    path = Path(arguments[0]).resolve()
    job = Job.from_json(path.read_text(encoding="utf-8"))
    keep_caches(path.parent)
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, job.limit_s)  # unhandled: it ends the process, also within vendor code
    try:
        result = ACTIONS[job.action](job, path.parent)
    except ModelRefused as error:
        result = {"error": {"type": "ModelRefused", "message": str(error)}}
    except DeviceError as error:
        result = {"error": {"type": "DeviceError", "message": str(error)}}
    except MemoryError:
        message = f"{job.action}: expected the model to fit into the device's memory; got out of memory"
        result = {"error": {"type": "DeviceError", "message": message}}
    _write_result(path.parent, {"nonce": job.nonce, **result})
    return 0


def probe(job: Job, folder: Path) -> Result:
    """Report the device's identity and context; raises DeviceError where the runtime is missing."""
    version = job.target.runtime_version()
    root = Path(job.sensor_root)
    memory = {"available_bytes": read_available_bytes()}
    context = {**read_versions(), **memory, **read_sensors(root), "counters": list_counters(root)}
    float_types = list(job.target.find_float_types())
    return {"identity": _identify(job.target, version), "context": context, "float_types": float_types}


def compile_model(job: Job, folder: Path) -> Result:
    """Compile the pushed model and list what its artifact executes."""
    facts = probe(job, folder)
    job.target.compile(folder / MODEL_FILE, folder / ARTIFACT_FILE, job.options)
    try:
        layers = inspect(job, folder)["layers"]
    except ModelRefused as error:
        # A model may compile and yet refuse inputs that are made up: it ships, only its layers stay unknown.
        layers = []
        facts["context"] = {**_as_dict(facts["context"]), "layers": f"unavailable: {error}"}
    return {**facts, "layers": layers}


def inspect(job: Job, folder: Path) -> Result:
    """List what an artifact executes."""
    return {"layers": [asdict(layer) for layer in job.target.inspect(folder / ARTIFACT_FILE, job.options)]}


def infer(job: Job, folder: Path) -> Result:
    """Infer on every pushed sample."""
    feeds = {name: np.load(folder / name_array("feed", i), mmap_mode="r") for i, name in enumerate(job.feeds)}
    session = job.target.open(folder / ARTIFACT_FILE, job.options)
    outputs = infer_samples(session, feeds, job.processing)
    for index, array in enumerate(outputs.values()):
        np.save(folder / name_array("output", index), array)
    return {"outputs": list(outputs), "arrays": [name_array("output", index) for index in range(len(outputs))]}


def profile(job: Job, folder: Path) -> Result:
    """Sample the latency of an artifact in this process, which is fresh.

    `load_ms` is the time of `open`: from the file to a session that can infer, the runtime being imported already.
    """
    version = job.target.runtime_version()
    baseline_bytes = read_peak_bytes()
    request, root = job.request, Path(job.sensor_root)
    begun = time.perf_counter()
    cooling = cool_down(root, request.start_below_c, request.cool_down_seconds)
    scale = Scale(root, request.energy_seconds)
    scale.rest()
    waited_s = time.perf_counter() - begun
    start = time.perf_counter_ns()
    session = job.target.open(folder / ARTIFACT_FILE, job.options)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    taken = _sample(job, folder, session)
    peak_bytes, swapped_bytes = read_peak_bytes(), read_swapped_bytes()
    begun = time.perf_counter()
    energy = scale.weigh(taken.run)
    waited_s += time.perf_counter() - begun
    np.save(folder / name_array("samples", 0), taken.samples_ns)
    identity: Dict[str, object] = dict(_identify(job.target, version))
    settings = {"threads": job.options.threads, "precision": job.options.precision, "scope": request.scope}
    sensors = {"before": taken.before, "after": read_sensors(root), "swapped_bytes": swapped_bytes, **cooling}
    return {
        "warmup_runs": taken.warm.runs,
        "load_ms": load_ms,
        "peak_bytes": peak_bytes,
        "baseline_bytes": baseline_bytes,
        "inputs": [asdict(spec) for spec in session.inputs],
        "outputs": [asdict(spec) for spec in session.outputs],
        "context": {**identity, **read_versions(), **settings, "warmup_is_steady": taken.warm.is_steady, **sensors},
        "trace": dump_trace(taken.trace),
        "energy": None if energy is None else dump_energy(energy),
        "waited_s": waited_s,
        "inferences_per_s": taken.inferences_per_s,
        "arrays": [name_array("samples", 0)],
    }


@dataclass(frozen=True)
class _Taken:
    """Samples, and what was seen beside them."""

    samples_ns: np.ndarray
    run: Callable[[], object]
    warm: WarmUp
    before: Dict[str, object]
    trace: Trace
    inferences_per_s: Optional[float] = None


def _sample(job: Job, folder: Path, session: Session) -> _Taken:
    request, root = job.request, Path(job.sensor_root)
    run = bind_for_scope(session, request)
    if request.mode == "cold_start":
        run()
        age_ns = read_age_ns()
        if age_ns is None:
            raise DeviceError("cold_start: expected /proc, which tells when a process began; got none; use burst")
        samples_ns = np.array([age_ns], np.int64)
        return _Taken(samples_ns, run, WarmUp(0, is_steady=True), read_sensors(root), Trace())
    before, rate = read_sensors(root), None
    others = [job.target.open(folder / ARTIFACT_FILE, job.options) for _ in range(request.streams - 1)]
    runs = [run, *(bind_for_scope(other, request) for other in others)]
    with Watch(root) as watch:
        warm = warm_up(run, request.max_seconds * WARM_UP_SHARE)
        watch.mark_start()
        if request.mode == "throughput":
            samples_ns, rate = sample_streams(runs, request.num_samples, request.max_seconds)
        else:
            samples_ns = sample_latency(run, request.num_samples, request.max_seconds)
    return _Taken(samples_ns, run, warm, before, watch.trace, rate)


def compare(job: Job, folder: Path) -> Result:
    """Sample the latency of several artifacts in turns, all loaded in this process, so that noise meets them alike.

    `rounds[i]` are the numbers of samples that artifact i gave in each round: none where `refusals[i]` says why the
    runtime does not run it. `max_seconds` is shared by all.
    """
    runs: Dict[int, Callable[[], object]] = {}
    refusals: List[Optional[str]] = [None for _ in job.entrants]
    for index, options in enumerate(job.entrants):
        try:
            runs[index] = bind_for_scope(job.target.open(folder / name_entrant(index), options), job.request)
        except ModelRefused as error:
            refusals[index] = str(error)
    seconds = job.request.max_seconds / len(job.entrants)
    for run in runs.values():
        warm_up(run, seconds * WARM_UP_SHARE)
    slice_s = seconds * (1 - WARM_UP_SHARE) / job.rounds
    samples: List[List[np.ndarray]] = [[] for _ in job.entrants]
    for turn in range(job.rounds):
        for index in np.roll(list(runs), -turn):  # nobody is always first
            samples[index].append(sample_latency(runs[index], job.request.num_samples, slice_s))
    for index, taken in enumerate(samples):
        np.save(folder / name_array("samples", index), np.concatenate([np.empty(0, np.int64), *taken]))
    return {
        "rounds": [[array.size for array in taken] for taken in samples],
        "refusals": refusals,
        "arrays": [name_array("samples", index) for index in range(len(samples))],
    }


ACTIONS: Dict[str, Callable[[Job, Path], Result]] = {
    "probe": probe,
    "compile": compile_model,
    "inspect": inspect,
    "infer": infer,
    "profile": profile,
    "compare": compare,
    "install": install,
    "rollback": rollback,
    "list_releases": list_releases,
}


def _identify(target: Target, version: str) -> Dict[str, str]:
    processor = target.read_processor() if isinstance(target, NamesProcessor) else {}
    return {**read_identity(target.kind, version), **processor}


def _write_result(folder: Path, result: Result) -> None:
    """Write under another name, sync and rename: a result is whole or absent."""
    partial = folder / f"{RESULT_FILE}.part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(result, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / RESULT_FILE)


def _as_dict(value: object) -> Dict[str, object]:
    assert isinstance(value, dict)
    return value
