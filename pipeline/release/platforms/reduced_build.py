"""What a reduced build of the runtime needs beside the portable model. Rule: written by the measured runtime alone.

Fusions differ between versions of the runtime, so that another one would give the same release another package.
"""

from pipeline.release.payload import Payload
from targets.errors import EdgeproofError
from targets.onnxruntime import OnnxRuntime
from targets.onnxruntime_ort import OrtPlatform, convert_to_ort

ORT_MODEL = "model.ort"
OPERATORS = "required_operators_and_types.config"


def reduced_build_files(payload: Payload, platform: OrtPlatform | None) -> dict[str, bytes]:
    """Return the model in the runtime's own format, and the operators that a build for it must include, by name.

    Raises:
        DeviceError: the runtime is not installed here.
        EdgeproofError: another version of it is than the one that the release was measured with.
        ModelRefused: it cannot convert the model.
    """
    measured, installed = payload.manifest.runtime.version, OnnxRuntime().runtime_version()
    if installed != measured:
        raise EdgeproofError(
            f"{payload.manifest.name}: {ORT_MODEL}: expected onnxruntime {measured}, which measured the release, to "
            f"write it; got {installed}; pip install onnxruntime=={measured}, or set ort = false for the platform"
        )
    converted = convert_to_ort(payload.model, platform)
    return {ORT_MODEL: converted.content, OPERATORS: converted.operators.encode()}
