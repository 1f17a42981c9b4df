"""One deploy to many devices: trained once, then proved on all of them at the same time.

Rule: what one device does, or fails to do, never stops another; what is the same for all is done once, before them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pipeline.chain import (
    Models,
    ask,
    check_export,
    check_feasibility,
    export_for,
    is_hopeless,
    predict_all,
    prove,
    train_models,
    will_train,
)
from pipeline.fleet_member import Leg, Member, Outcome
from pipeline.host_work import run_all
from pipeline.locks import held
from pipeline.on_device import opset_note
from pipeline.publish import publish
from pipeline.recipe import Recipe
from pipeline.run import Run, open_run
from pipeline.terminal import Board
from pipeline.trials import check_losses
from targets.devices.bundle import build_runner
from targets.devices.device import Device, open_device
from targets.devices.inventory import LOCAL, Inventory
from targets.devices.stop import Stop
from targets.errors import DeviceError

Opener = Callable[[str, Path, Inventory, Callable[[str], None], Stop], Device]
"""Returns a device by its name, as `targets.devices.device.open_device` does."""

MOST_AT_ONCE = 128
"""Each takes three open files or so, and systems allow 1,024."""


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """What the user said of the whole."""

    train_anyway: bool = False
    accept_undecided: bool = False
    skip_unreachable: bool = False
    """Go on without devices that do not answer."""
    at_once: int | None = None
    """How many devices are driven at the same time; all if None."""


def deploy_fleet(
    recipe: Recipe,
    legs: Sequence[Leg],
    *,
    build: Path,
    console: Console,
    devices: Inventory,
    options: FleetOptions,
    loggers: tuple[str, ...] = (),
    open_one: Opener = open_device,
) -> tuple[Outcome, ...]:
    """Take a recipe to several devices at the same time; release it on each where every budget holds there.

    Raises:
        DeviceError: devices do not answer, and nobody said to go on without them; or none answers.
        EdgeproofError: training stopped, or this machine cannot go on; what a device does is an outcome.
    """
    run = open_run(console, build, loggers=loggers, run_name=recipe.name)
    purpose = f"deploying {recipe.name} to {len(legs)} devices"
    with held(build / recipe.name / "lock", purpose, run.wait):
        for leg in {leg.deployment.name: leg for leg in legs}.values():
            check_export(recipe, leg.deployment, run)
        fleet = Fleet(recipe, options, build, run, Board(console))
        fleet.enlist(legs, devices, open_one)
        fleet.probe()
        fleet.answer_first()
        fleet.train()
        fleet.prove()
    return tuple(replace(member.outcome, seconds=member.seconds) for member in fleet.members if member.outcome)


@dataclass
class Fleet:
    """All members, and how each step of the chain goes through them."""

    recipe: Recipe
    options: FleetOptions
    build: Path
    run: Run
    """Of what all share."""
    board: Board
    members: list[Member] = field(default_factory=list)

    def enlist(self, legs: Sequence[Leg], devices: Inventory, open_one: Opener) -> None:
        """Give each leg a run of its own, whose lines say which it is; nothing is asked yet."""
        build_runner()  # once, before threads ask for it
        is_one = len({leg.deployment.name for leg in legs}) == 1
        for leg in legs:
            name = leg.deployment.device
            label = name if is_one else f"{leg.deployment.name} on {name}"
            own = open_run(self.board.console_of(label), self.build)
            own = replace(own, host=self.run.host, stages=list(self.run.stages))
            device = open_one(name, own.work, devices, own.say, self.run.host.stop)
            self.members.append(Member(leg, label, own, device))

    def probe(self) -> None:
        """Have all devices say what they are; who does not answer is named, or left out where the user said so."""

        def answer(member: Member) -> None:
            deployment = member.leg.deployment
            member.site = ask(deployment, member.device)
            note = opset_note(self.recipe.export.opset, deployment.target)
            member.run.say(f"{deployment.target.kind} {member.site.facts.identity['runtime_version']} answers{note}")

        self._at_once(self.members, answer)
        silent = [member.outcome for member in self.members if member.outcome is not None]
        if silent and not (self.options.skip_unreachable and self._going()):
            raise DeviceError(_unready(silent, len(self.members)))
        for member in self.members:
            if member.outcome is not None:
                member.outcome = replace(member.outcome, state="left out")

    def answer_first(self) -> None:
        """Profile the untrained student where anything will be trained; whom it misses a budget on is at an end."""
        followers: list[Member] = []
        for alike in self._alike():
            leader = alike[0]
            if will_train(self.recipe, leader.leg.deployment, leader.answered, self.build):
                check_losses(self.recipe, leader.leg.deployment)
                leader = next((member for member in alike if _came_through(member, self._answer_first_timed)), leader)
                followers += [member for member in alike if member is not leader and member.outcome is None]
        self._at_once(followers, self._answer_first)

    def _answer_first_timed(self, member: Member) -> None:
        self._timed(member, self._answer_first)

    def _answer_first(self, member: Member) -> None:
        deployment = member.leg.deployment
        first = check_feasibility(self.recipe, deployment, member.answered, member.run)
        if is_hopeless(first) and not self.options.train_anyway:
            with member.run.host.turn():
                published = publish(self.recipe, deployment, first, member.run, folder=member.leg.folder)
            member.conclude(published.report, installed=None)

    def train(self) -> None:
        """Train once for all that are alike, and have in the store whatever needs no device."""
        for alike in self._alike():
            shared, aside = replace(self.run, stages=[]), replace(self.run, stages=[])
            models = self._train_for(alike, shared)
            if models is None:
                continue
            export_for(self.recipe, models.settled.deployment, models.shipped, aside)
            predict_all(self.recipe, models, aside)
            for member in alike:
                own = models.settled.deployment.model_copy(update={"device": member.leg.deployment.device})
                member.models = replace(models, settled=replace(models.settled, deployment=own))
                member.run.stages += shared.stages

    def _train_for(self, alike: Sequence[Member], run: Run) -> Models | None:
        """Train, asking the first device that does not fail what only a device can tell; None where all do."""
        found: list[Models] = []

        def train_by(member: Member) -> None:
            found.append(train_models(self.recipe, member.leg.deployment, member.answered, run))

        return found[0] if any(_came_through(member, train_by) for member in alike) else None

    def prove(self) -> None:
        """Compile, measure, judge, release and install on all devices at the same time."""

        def prove_one(member: Member) -> None:
            assert member.models is not None, member.label
            proved = prove(
                self.recipe,
                member.models,
                member.answered,
                member.run,
                folder=member.leg.folder,
                accept_undecided=self.options.accept_undecided,
            )
            member.conclude(proved.report, proved.installed.switch.version if proved.installed else None)

        self._at_once(self._going(), prove_one)

    def _going(self) -> list[Member]:
        return [member for member in self.members if member.outcome is None]

    def _alike(self) -> list[list[Member]]:
        """Return the members that are under way, those of one deployment and one identity together."""
        groups: dict[tuple[str, str], list[Member]] = {}
        for member in self._going():
            groups.setdefault((member.leg.deployment.name, member.answered.fingerprint()), []).append(member)
        return list(groups.values())

    def _at_once(self, members: Sequence[Member], work: Callable[[Member], None]) -> None:
        """Do work for all at the same time, one thing at a time on each device; this machine last, when it is quiet."""
        near = [member for member in members if member.place == LOCAL]
        far = [member for member in members if member.place != LOCAL]
        width = min(self.options.at_once or MOST_AT_ONCE, MOST_AT_ONCE)
        for wave in filter(None, (far, near)):
            with self.board.shown([member.label for member in wave]):
                ended = run_all([partial(self._timed, member, work) for member in wave], width, self.run.host.stop)
            for member, error in zip(wave, ended, strict=True):
                if error is not None:
                    member.give_up(error)

    def _timed(self, member: Member, work: Callable[[Member], None]) -> None:
        with member.run.host.turn(f"device {member.place}"):
            started = time.monotonic()
            try:
                work(member)
            finally:
                member.seconds += time.monotonic() - started


def _came_through(member: Member, work: Callable[[Member], None]) -> bool:
    """Do work for one member before the others, in this thread; False where its device fails at it."""
    try:
        work(member)
    except DeviceError as error:
        member.give_up(error)
        return False
    return True


def _unready(silent: Sequence[Outcome], num_devices: int) -> str:
    listed = "\n".join(f"  {each.device}: {each.message}" for each in silent)
    return (
        f"expected all {num_devices} devices to be ready before anything begins; got {len(silent)} that are not:\n"
        f"{listed}\nmend them, or go on without them with --skip-unreachable"
    )
