"""Stage: asks, where no device is needed for it, whether a runtime takes an exported model."""

from pathlib import Path

from pipeline.artifacts import OnnxModel
from targets.acceptance import Acceptance, ChecksWithoutDevice
from targets.errors import ModelRefused

STAGE_VERSION = 1
TOOLCHAIN = ()  # the tool that is asked is an input

TIMEOUT_S = 300.0


def check_accepted(out_dir: Path, model: OnnxModel, target: ChecksWithoutDevice, checker: str) -> Acceptance:
    """Return the answer, with what its user should know.

    Args:
        out_dir: stays empty.
        model: the file, with fixed sizes or an open batch.
        target: the runtime.
        checker: name and version of the tool that answers, which an answer is as good as.

    Raises:
        DeviceError: the tool is not installed.
        ModelRefused: the runtime would refuse the model on its device; says where, why and what to do.
    """
    acceptance = target.check_model(model.path, {}, timeout_s=TIMEOUT_S)
    if acceptance.verdict != "refused":
        return acceptance
    fatal = [each for each in acceptance.objections if each.is_fatal]
    others = f" (and {len(fatal) - 1} objections more)" if len(fatal) > 1 else ""
    raise ModelRefused(
        f"{model.path}: expected a model that the device will take; {checker}, which answers without it, refuses: "
        f"{fatal[0].describe()}{others}"
    )
