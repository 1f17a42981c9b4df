"""One run of the chain: where results go, who hears of progress, and how long each stage took.

Rule: the chain says what happens, this file how it is carried out: computed once through the store, or only planned.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

import numpy as np
from rich.console import Console
from rich.text import Text

from pipeline.errors import StoreError
from pipeline.follow import announce, follow, is_follower, withdraw
from pipeline.history import History
from pipeline.host_work import HERE, HostWork
from pipeline.progress import Progress, following
from pipeline.report.report import Report, StageFigures
from pipeline.report.wording import second_words
from pipeline.site import Site
from pipeline.store import StageEvent, StageRun, StageStarted, Store
from pipeline.terminal import progress_on
from pipeline.training.loggers import open_loggers, require_known
from pipeline.training.outputs_folder import TEACHER_OUTPUTS, OutputsFolder
from targets.errors import DeviceError

Inputs = ParamSpec("Inputs")
Artifact = TypeVar("Artifact")
Measured = TypeVar("Measured")


class Stages(Protocol):
    """Who carries out the stages of a chain: `Run` computes them, `Plan` says what would be computed."""

    @property
    def outputs(self) -> OutputsFolder:
        """Where teacher outputs are kept."""
        ...

    def stage(
        self, stage: Callable[Concatenate[Path, Inputs], Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs
    ) -> Artifact:
        """Return the stage's artifact."""
        ...


@dataclass
class Run:
    """Carries stages out; `stages` lists them in order, measurements too."""

    console: Console
    store: Store
    progress: Progress
    outputs: OutputsFolder
    work: Path
    """Where jobs on this machine keep their files while they run."""
    name: str = "edgeproof"
    """What its logs are called."""
    loggers: tuple[str, ...] = ()
    """Tools that hear of every epoch's metrics."""
    stages: list[StageFigures] = field(default_factory=list)
    host: HostWork = field(default_factory=HostWork)
    """What it shares with the runs of other devices that are driven at the same time."""

    @property
    def logs(self) -> Path:
        """Where loggers write."""
        return self.store.root.parent / "logs"

    def stage(
        self, stage: Callable[Concatenate[Path, Inputs], Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs
    ) -> Artifact:
        """Return the stage's artifact: from the store where nothing changed, else computed with progress shown."""
        if is_follower():
            return follow(self.store, stage, *args, **kwargs)
        with ExitStack() as context:
            parameters = inspect.signature(stage).parameters
            if (
                "on_metrics" in parameters
                and self.loggers
                and self.store.lookup(stage, *args, **kwargs).artifact is None
            ):
                name = f"{self.name}-{stage.__name__}"
                kwargs["on_metrics"] = context.enter_context(open_loggers(self.loggers, self.logs, name))
            if "on_progress" in parameters:
                kwargs["on_progress"] = context.enter_context(following(self.progress, stage.__name__))
            context.enter_context(self.host.turn(_whose((*args, *kwargs.values()))))
            artifact = self.store.run(stage, *args, **kwargs)
        done = self.store.runs[-1]
        self.stages.append(StageFigures(name=done.name, seconds=done.seconds, cached=done.cached, key=done.key))
        return artifact

    def stage_of(
        self,
        subject: str,
        stage: Callable[Concatenate[Path, Inputs], Artifact],
        /,
        *args: Inputs.args,
        **kwargs: Inputs.kwargs,
    ) -> Artifact:
        """As `stage`, for one that a run needs several times: the report names the subject."""
        artifact = self.stage(stage, *args, **kwargs)
        self.stages[-1] = self.stages[-1].model_copy(update={"name": f"{stage.__name__} ({subject})"})
        return artifact

    def measure(self, name: str, work: Callable[[Callable[[int, int], None]], Measured]) -> Measured:
        """Return what `work` measures on the device, and note how long it took; never from the store."""
        started = time.perf_counter()
        with following(self.progress, name) as on_progress:
            found = work(lambda done, total: on_progress(done, total))
        seconds = time.perf_counter() - started
        self.stages.append(StageFigures(name=name, seconds=seconds, cached=False, key=None))
        self.say(f"{name}: done in {second_words(seconds)}")
        return found

    def note(self, report: Report, samples_ns: np.ndarray) -> None:
        """Add a profile to the history, and tell the user its number there."""
        history = History(self.store.root.parent)
        if aside := history.set_aside_if_damaged():
            self.say(f"history: expected earlier profiles; got a damaged file, which is now {aside}; a new one begins")
        number = history.add(report, samples_ns)
        self.say(f"history: this is profile {number}; `edgeproof history` lists all")

    def wait(self, holder: str) -> None:
        """Tell the user whom this run waits for."""
        self.say(f"waiting for another run to end: {holder}")

    def say(self, line: str) -> None:
        """Tell the user one thing."""
        self.console.print(Text(line), soft_wrap=True)


def open_run(console: Console, build: Path, *, loggers: tuple[str, ...] = (), run_name: str = "edgeproof") -> Run:
    """Return a run whose store lies under `build`; metrics of its trainings go to `loggers` under `run_name`.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        (build / "store").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{build}: expected a folder that can be written; got: {error.strerror}. Name another with --build"
        ) from error
    console.quiet = console.quiet or is_follower()
    require_known(loggers)
    root = build / "store"

    def on_stage(event: StageEvent) -> None:
        if isinstance(event, StageStarted):
            announce(root.resolve(), event.key)
        elif isinstance(event, StageRun):
            withdraw(root.resolve(), event.key)
        _tell(console, event)

    store = Store(root, on_stage=on_stage)
    outputs, work = _outputs(build), work_folder(build)
    return Run(console, store, progress_on(console), outputs, work, name=run_name, loggers=loggers)


@dataclass(frozen=True)
class PlannedStage:
    """What a deploy would do about one stage."""

    name: str
    state: str
    """cached, run, resume, waits, measure or install."""
    reason: str


@dataclass
class Plan:
    """Says what would be computed, and why; computes nothing."""

    store: Store
    outputs: OutputsFolder
    stages: list[PlannedStage] = field(default_factory=list)

    def stage(
        self, stage: Callable[Concatenate[Path, Inputs], Artifact], /, *args: Inputs.args, **kwargs: Inputs.kwargs
    ) -> Artifact:
        """Return the stored artifact, or a stand-in that makes later stages wait."""
        missing = next((found for value in (*args, *kwargs.values()) for found in _missing(value)), None)
        if missing:
            self.stages.append(PlannedStage(stage.__name__, "waits", f"for {missing.stage}"))
            return cast(Artifact, Missing(stage.__name__))
        planned = self.store.lookup(stage, *args, **kwargs)
        if planned.artifact is not None:
            self.stages.append(PlannedStage(planned.name, "cached", planned.key[:12]))
            return planned.artifact
        state = "resume" if planned.reason.startswith("interrupted") else "run"
        self.stages.append(PlannedStage(planned.name, state, planned.reason))
        return cast(Artifact, Missing(planned.name))


def open_plan(build: Path) -> Plan:
    """Return a plan over the store under `build`."""
    return Plan(Store(build / "store"), _outputs(build))


@dataclass(frozen=True)
class Missing:
    """Stands for the artifact of a stage that has not run."""

    stage: str


def site_or_missing(probe: Callable[[], Site]) -> Site:
    """Return the device's site, or a stand-in that makes what needs it wait, with the reason."""
    try:
        return probe()
    except DeviceError as error:
        return cast(Site, Missing(f"the device: {error}"))


def _missing(value: object) -> Iterator[Missing]:
    if isinstance(value, Missing):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _missing(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _missing(getattr(value, item.name))


def work_folder(build: Path) -> Path:
    """Return where jobs on this machine keep their files."""
    return (build / "work").absolute()


def _whose(inputs: tuple[object, ...]) -> str:
    """Return whose turn a stage needs: that of devices like the one among its inputs, or else this machine's."""
    return next((value.fingerprint() for value in inputs if isinstance(value, Site)), HERE)


def _outputs(build: Path) -> OutputsFolder:
    return OutputsFolder((build / TEACHER_OUTPUTS).absolute())


def _tell(console: Console, event: StageEvent) -> None:
    if isinstance(event, StageStarted):
        line = f"{event.name}: {'resumes' if event.resumes else 'runs'}"
    elif isinstance(event, StageRun):
        line = f"{event.name}: {'cached' if event.cached else f'done in {second_words(event.seconds)}'}"
    else:
        line = f"{event.name}: waiting for another run: {event.holder}"
    console.print(Text(line), soft_wrap=True)
