"""Constants for wrappers: the same in Java, Swift, Python and JavaScript. Rule: all of them are the manifest's.

Every wrapper does the same with them:

1. refuses a model whose sha256 is not `model_sha256`, before a runtime loads it;
2. takes uint8 pixels, height x width x channels, row by row. `float32_nchw`: value = pixel * scale[c] + bias[c], in
   float32, channels first; `uint8_nhwc`: the bytes as they are;
3. feeds `input_name` with N x ... and reads `output_name`, float32 N x classes. Where `batch` is a number, the model
   takes exactly so many images at once: the rest of a batch is filled with zeros;
4. the class is the first of the largest outputs; `softmax`: its score is 1 / sum(exp(output[k] - largest)); `none`:
   the output itself.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from pipeline.budget import Scope
from pipeline.release.manifest import Manifest
from targets.errors import EdgeproofError


@dataclass(frozen=True)
class WrapperConstants:
    """What a wrapper's template is rendered from."""

    name: str
    """Of the recipe."""
    version: str
    deployment: str
    input_name: str
    layout: Literal["float32_nchw", "uint8_nhwc"]
    height: int
    width: int
    channels: int
    batch: int | None
    """None where the model takes any number of images at once."""
    scale: tuple[float, ...]
    """Of each channel; float32(scale) is what the chain computed with."""
    bias: tuple[float, ...]
    output_name: str
    activation: Literal["softmax", "none"]
    labels: tuple[str, ...]
    model_sha256: str
    model_bytes: int
    verdict: str
    """pass, or undecided where that was accepted."""
    measured_on: str
    """The device that the verdict came from, in words."""
    runtime: str
    """Kind of the runtime and its version there."""
    threads: int
    """Of one inference, as it was measured."""
    scope: Scope
    """What a sample of latency holds, as the budget counts it."""

    def not_measured(self, platform: str) -> str:
        """Return what there is to say to who runs the model elsewhere."""
        return f"not measured on {platform}: the verdict ({self.verdict}) is of {self.measured_on}"


def constants_of(manifest: Manifest) -> WrapperConstants:
    """Return the constants of a manifest whose image size is known.

    Raises:
        EdgeproofError: the model takes images of any size, which no wrapper can prepare.
    """
    interface, facts = manifest.interface, manifest.files[manifest.model]
    image, processing = interface.inputs[0], interface.processing
    batch, *sizes = image.shape
    channels, height, width = sizes if processing.input == "float32_nchw" else (sizes[2], sizes[0], sizes[1])
    if height is None or width is None or channels is None:
        raise EdgeproofError(
            f"{manifest.name}: input {image.name}: expected images of one size; got {image.shape}; export it with one"
        )
    if interface.outputs[0].dtype != "float32" or image.dtype not in ("float32", "uint8"):
        got = f"{image.dtype} and {interface.outputs[0].dtype}"
        raise EdgeproofError(
            f"{manifest.name}: expected a model from float32 or uint8 to float32; got {got}; deploy it in fp32 or int8"
        )
    runtime = f"{manifest.runtime.target} {manifest.runtime.version}"
    return WrapperConstants(
        name=manifest.name,
        version=manifest.version,
        deployment=manifest.deployment,
        input_name=image.name,
        layout=processing.input,
        height=height,
        width=width,
        channels=channels,
        batch=batch,
        scale=processing.scale,
        bias=processing.bias,
        output_name=interface.outputs[0].name,
        activation=processing.activation,
        labels=interface.labels,
        model_sha256=facts.sha256,
        model_bytes=facts.size_bytes,
        verdict=manifest.verdict.value,
        measured_on=f"{device_words(manifest.context)}, {runtime}",
        runtime=runtime,
        threads=manifest.latency.threads if manifest.latency else 1,
        scope=manifest.budget.latency.scope if manifest.budget and manifest.budget.latency else "model",
    )


def device_words(context: dict[str, JsonValue]) -> str:
    """Return processor, architecture and system, as far as the device named them."""
    said = (context.get(name) for name in ("cpu", "arch", "os"))
    return ", ".join(str(each) for each in said if each) or "a device that did not name itself"
