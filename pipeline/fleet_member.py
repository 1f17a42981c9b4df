"""One deployment on one device, as a part of a deploy to many: where it stands, and what becomes of it.

Rule: values alone; who does what when is pipeline.fleet's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.chain import Models
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import Deployment
from pipeline.report.report import Report
from pipeline.report.wording import CHECK_NAMES
from pipeline.run import Run
from pipeline.site import Site
from targets.devices.device import Device
from targets.devices.inventory import LOCAL
from targets.errors import EdgeproofError

State = Literal["released", "refused", "failed", "left out"]


@dataclass(frozen=True)
class Leg:
    """One deployment on one device."""

    deployment: Deployment
    """Its `device` is that one."""
    folder: Path
    """Where its report and release go."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one deployment on one device."""

    device: str
    deployment: str
    state: State
    """Released; refused by its budgets; failed on the way; or left out, because it did not answer."""
    message: str = ""
    """Why it is not released, or what is to be known although it is."""
    seconds: float = 0.0
    """On this device; without what all share."""
    error_code: int | None = None
    """Exit code of what stopped it; None where it came to a verdict."""
    verdict: Verdict | None = None
    p99_ms: float | None = None
    accuracy: float | None = None
    """On the device, a fraction; None where nothing was trained."""
    installed: str | None = None
    """The version that is current there since."""
    report: str | None = None
    """Path of its report.json."""


@dataclass
class Member:
    """A leg under way."""

    leg: Leg
    label: str
    """What lines about it begin with."""
    run: Run
    device: Device
    site: Site | None = None
    """Once it has answered."""
    models: Models | None = None
    """Once they are trained."""
    outcome: Outcome | None = None
    """Once it is at an end."""
    seconds: float = 0.0

    @property
    def place(self) -> str:
        """What it has to itself while it works there: a device, or this machine."""
        return LOCAL if self.device.entry.transport == LOCAL else self.device.name

    @property
    def answered(self) -> Site:
        """Its site."""
        assert self.site is not None, self.label
        return self.site

    def conclude(self, report: Report, installed: str | None) -> None:
        """Be at an end, by a verdict."""
        deployment = self.leg.deployment
        missed = [check for check in report.checks if check.verdict is not Verdict.PASS]
        words = [f"{CHECK_NAMES.get(check.name, check.name)} {check.verdict.value}" for check in missed]
        first = "first answer, nothing was trained: " if report.untrained else ""
        self.outcome = Outcome(
            device=deployment.device,
            deployment=deployment.name,
            state="released" if installed else "refused",
            message=f"{first}{', '.join(words)}",
            verdict=report.verdict,
            p99_ms=report.latency.p99_ms if report.latency else None,
            accuracy=report.accuracy.on_device if report.accuracy else None,
            installed=installed,
            report=str(self.leg.folder / "report.json"),
        )

    def give_up(self, error: BaseException) -> None:
        """Be at an end, by an error; one that nobody expected says how to see where it came from."""
        deployment = self.leg.deployment
        message, code = str(error), 1
        if isinstance(error, EdgeproofError):
            code = error.exit_code
        else:
            message = (
                f"expected no error here; got {type(error).__name__}: {message}; see where it comes from with "
                f"--device {deployment.device} alone and --debug"
            )
        self.outcome = Outcome(
            device=deployment.device, deployment=deployment.name, state="failed", message=message, error_code=code
        )
