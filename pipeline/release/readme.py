"""The README.md of a release, rendered from its manifest. Rule: it says nothing that the manifest does not."""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from pipeline.measuring.verdict import Unit
from pipeline.release.manifest import Manifest
from pipeline.report.wording import plan_words

_TEMPLATE = "README.md.jinja"


def render_readme(manifest: Manifest) -> bytes:
    """Return README.md, with a program that runs the model as it lies in the release."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # Markdown
    environment.filters["figure"] = _figure
    template = files("pipeline.release").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    batch, *sizes = (size or 1 for size in manifest.interface.inputs[0].shape)
    takes_bytes = manifest.interface.processing.input == "uint8_nhwc"
    height, width, channels = sizes if takes_bytes else (*sizes[1:], sizes[0])
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields}
    image_shape = (batch, height, width, channels)
    return (
        environment.from_string(template)
        .render(
            fields,
            image_shape=image_shape,
            precision_words=plan_words(manifest.precision, manifest.float_layers, manifest.rest),
        )
        .encode()
    )


def _figure(value: float | None, unit: Unit) -> str:
    if value is None:
        return "not measured"
    return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.6g} {unit.replace('_', ' ')}"
