"""`edgeproof check`: whether a runtime accepts an ONNX file, and why not, before a device is involved."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from pipeline.verbs.output import console_for_people, write_json
from pipeline.verbs.profile import choose_runtime, parse_shape, require_model
from targets import AnyTarget
from targets.acceptance import Acceptance, ChecksWithoutDevice, Objection, Verdict
from targets.devices.device import open_device
from targets.errors import ModelRefused
from targets.target import RunOptions

EXIT_CODES: Mapping[Verdict, int] = {"accepted": 0, "warned": 0, "refused": 1, "undecided": 5}
HEADLINES: Mapping[Verdict, str] = {
    "accepted": "accepted",
    "warned": "accepted, with a warning",
    "refused": "refused",
    "undecided": "undecided",
}
JUDGES = {
    "grid": "refused by the rules of its integer grid",
    "parser": "refused by the parser",
    "builder": "refused by the builder",
    "process": "not answered",
}
NOTE = "It was compiled on this machine; that it compiles is no proof of speed: edgeproof profile measures that."
_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """The command line of one check, as typed."""

    model: Path
    runtime: str
    shapes: tuple[str, ...] = ()
    max_seconds: float = 300.0


def run_check(request: CheckRequest, *, as_json: bool) -> int:
    """Ask the runtime, print its answer; return 0 where it takes the model, 1 where not, 5 where it gave no answer."""
    require_model(request.model)
    target = choose_runtime(request.runtime)
    shapes = dict(parse_shape(text) for text in request.shapes)
    console = console_for_people(as_json=as_json)
    with console.status(f"checking {request.model.name}"):
        if isinstance(target, ChecksWithoutDevice):
            acceptance = target.check_model(request.model, shapes, timeout_s=request.max_seconds)
        else:
            acceptance = _compile_here(request.model, target)
    if as_json:
        said = {"model": str(request.model), "runtime": request.runtime, **asdict(acceptance)}
        write_json(_JSON.dump_python(said, mode="json"))
    else:
        _show(console, request, acceptance)
    return EXIT_CODES[acceptance.verdict]


def _compile_here(model: Path, target: AnyTarget) -> Acceptance:
    """Compile with the runtime on this machine; a missing runtime is raised, a refusal is the answer."""
    start = monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as work:
        device = open_device("local", Path(work) / "jobs")
        facts = device.probe(target)
        checked_with = f"{target.kind} {facts.identity['runtime_version']}"
        artifact = Path(work) / "artifact"
        try:
            device.compile_model(target, model, artifact, RunOptions())
        except ModelRefused as error:
            reason = str(error).removeprefix(f"{model}: ")
            remedy = "export the model again, without what the message names"
            return Acceptance("refused", checked_with, (Objection("builder", reason, remedy),), monotonic() - start)
        return Acceptance(
            "accepted", checked_with, (), monotonic() - start, size_bytes=artifact.stat().st_size, note=NOTE
        )


def _show(console: Console, request: CheckRequest, acceptance: Acceptance) -> None:
    head = f"{request.model} for {request.runtime}: {HEADLINES[acceptance.verdict]}"
    console.print(Text(f"{head} ({acceptance.checked_with}, {acceptance.seconds:.1f} s)"), soft_wrap=True)
    for line in _lines(acceptance):
        console.print(Text(f"  {line}"), soft_wrap=True)
    if acceptance.note and acceptance.verdict in ("accepted", "warned"):
        console.print(Text(acceptance.note, style="dim"), soft_wrap=True)


def _lines(acceptance: Acceptance) -> Iterator[str]:
    for sizes in acceptance.assumed:
        yield f"assumed {sizes}: the model leaves sizes open; --shape tells others"
    for each in acceptance.objections:
        yield f"{JUDGES[each.judge] if each.is_fatal else 'warning'}: {each.place()}{each.reason}"
        if each.remedy:
            yield f"  what to do: {each.remedy}"
        if each.said:
            yield f"  it said: {each.said}"
