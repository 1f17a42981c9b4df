"""How a job ended: its result, or an error that says why there is none."""

from __future__ import annotations

import json
import signal
from typing import Dict

from targets.devices.transport import Completed
from targets.errors import DeviceError, ModelRefused
from targets.runner.job import PROGRESS, Job

Result = Dict[str, object]

HINTS = {
    signal.SIGKILL: "the system ends processes so when memory runs out: try a smaller model, or free memory",
    signal.SIGSEGV: "the runtime crashed: try another version of it, or another runtime",
    signal.SIGABRT: "the runtime gave up: try another version of it, or another runtime",
    signal.SIGILL: "the runtime was built for another processor: install the build for this one",
    signal.SIGALRM: "the device's own time limit ended it",
}


def read_outcome(text: str, completed: Completed, job: Job, where: str, timeout_s: float) -> Result:
    """Return the job's result; raises what it reports, or DeviceError where there is none with its nonce."""
    if completed.is_timed_out:
        raise DeviceError(
            f"{where}: expected the job {job.action!r} of {job.target.kind} to end within {timeout_s:g} s; "
            "got no answer, so it was killed; try a smaller model, or see whether the device is overloaded"
        )
    result = _parse(text)
    if result.get("nonce") != job.nonce:
        raise DeviceError(
            f"{where}: expected the job {job.action!r} of {job.target.kind} to finish; got {_explain(completed)}"
        )
    error = result.get("error")
    if isinstance(error, dict):
        kind = ModelRefused if error["type"] == "ModelRefused" else DeviceError
        raise kind(f"{where}: {error['message']}")
    return result


def _parse(text: str) -> Result:
    try:
        result = json.loads(text)
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}


def _explain(completed: Completed) -> str:
    if completed.failure is not None:
        return completed.failure
    if completed.returncode == -signal.SIGKILL and completed.oom_kills:
        return (
            "SIGKILL: the device's kernel ended it because memory ran out (it counted "
            f"{completed.oom_kills}; the job had {completed.peak_bytes / 1e6:.0f} MB): try a smaller model or batch, "
            "or free memory there"
        )
    if completed.returncode < 0:
        number = signal.Signals(-completed.returncode)
        return f"{number.name} ({HINTS.get(number, 'killed from outside: run it again')})"
    lines = [line.strip() for line in completed.output if line.strip() and not line.startswith(PROGRESS)]
    last = lines[-1] if lines else "no output"
    return f"exit status {completed.returncode} and no result: {last}"
