"""Asking whether a runtime takes an exported model, where that needs no device: right after export.

Rule: what is refused stops the chain; what is only doubted is told; a tool that is missing is told, and stops nothing.
"""

from pipeline.artifacts import OnnxModel
from pipeline.run import Run, Stages
from pipeline.stages.check_accepted import check_accepted
from targets.acceptance import ChecksWithoutDevice
from targets.errors import DeviceError
from targets.target import Target


def can_be_asked(target: Target) -> bool:
    """Tell whether there is something here that answers for the target's device."""
    return isinstance(target, ChecksWithoutDevice) and not isinstance(_find_checker(target), DeviceError)


def require_accepted(model: OnnxModel, target: Target, stages: Stages) -> None:
    """Ask whether the target takes an exported model, and tell what its user should know.

    Raises:
        ModelRefused: it would be refused on the device.
    """
    if not isinstance(target, ChecksWithoutDevice):
        return
    checker = _find_checker(target)
    if isinstance(checker, DeviceError):
        if isinstance(stages, Run):
            stages.say(f"check_accepted: left out, the device will answer: {checker}")
        return
    acceptance = stages.stage(check_accepted, model, target, checker)
    if isinstance(stages, Run):
        for each in acceptance.objections:
            stages.say(f"check_accepted: warning of {checker}: {each.describe()}")


def _find_checker(target: ChecksWithoutDevice) -> str | DeviceError:
    try:
        return target.find_checker()
    except DeviceError as error:
        return error
