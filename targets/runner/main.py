"""The runner's entry: read a job, do it, write its result last.

Rule: devices carry this file: Python 3.8, standard library and NumPy only. A refusal is a result; a crash leaves none,
and the host tells why from the process's end.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from targets.errors import DeviceError, ModelRefused
from targets.runner.facts import read_identity, read_peak_bytes, read_sensors, read_versions
from targets.runner.inference import bind_for_scope, infer_samples
from targets.runner.job import ARTIFACT_FILE, MODEL_FILE, RESULT_FILE, Job, name_array, name_entrant
from targets.runner.timing import sample_latency, warm_up

Result = Dict[str, object]

WARM_UP_SHARE = 0.25
"""Part of a profile's time limit that its warm-up may take."""


def main(arguments: Sequence[str]) -> int:
    """Do the job whose file is the only argument; 0 wherever a result was written, a refusal included."""
    path = Path(arguments[0]).resolve()
    job = Job.from_json(path.read_text(encoding="utf-8"))
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
    context = {**read_versions(), **read_sensors()}
    float_types = list(job.target.find_float_types())
    return {"identity": read_identity(job.target.kind, version), "context": context, "float_types": float_types}


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
    before = read_sensors()
    start = time.perf_counter_ns()
    session = job.target.open(folder / ARTIFACT_FILE, job.options)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    run = bind_for_scope(session, job.request)
    warm = warm_up(run, job.request.max_seconds * WARM_UP_SHARE)
    samples_ns = sample_latency(run, job.request.num_samples, job.request.max_seconds)
    peak_bytes = read_peak_bytes()
    np.save(folder / name_array("samples", 0), samples_ns)
    identity: Dict[str, object] = dict(read_identity(job.target.kind, version))
    settings = {"threads": job.options.threads, "precision": job.options.precision, "scope": job.request.scope}
    sensors = {"before": before, "after": read_sensors()}
    return {
        "warmup_runs": warm.runs,
        "load_ms": load_ms,
        "peak_bytes": peak_bytes,
        "baseline_bytes": baseline_bytes,
        "inputs": [asdict(spec) for spec in session.inputs],
        "outputs": [asdict(spec) for spec in session.outputs],
        "context": {**identity, **read_versions(), **settings, "warmup_is_steady": warm.is_steady, **sensors},
        "arrays": [name_array("samples", 0)],
    }


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
}


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
