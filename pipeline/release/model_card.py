"""MODEL_CARD.md of a release (Mitchell et al. 2019, arXiv 1810.03993). Rule: it says what the manifest says, no more.

What nobody said and what was not measured stands in it as that.
"""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from pipeline.measuring.proportions import wilson_interval
from pipeline.measuring.verdict import Check
from pipeline.release.bill_model_card import measured_limits, tensor_words
from pipeline.release.constants import device_words
from pipeline.release.manifest import Manifest
from pipeline.report.wording import CHECK_NAMES, byte_words, figure, limit_words, measured_words, plan_words

MODEL_CARD = "MODEL_CARD.md"
_TEMPLATE = "model_card.md.jinja"


def render_model_card(manifest: Manifest) -> bytes:
    """Return MODEL_CARD.md; of the manifest's files only the model's need be listed yet."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # Markdown
    environment.filters |= {
        "bytes": byte_words,
        "cell": _cell,
        "check_name": _check_name,
        "limit": limit_words,
        "measured": measured_words,
        "ms": _ms,
        "tensor": tensor_words,
        "wilson": _wilson,
    }
    template = files("pipeline.release").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields}
    return (
        environment.from_string(template)
        .render(
            fields,
            device_words=device_words(manifest.context),
            limits=measured_limits(manifest),
            precision_words=plan_words(manifest.precision, manifest.float_layers, manifest.rest),
            size_bytes=manifest.files[manifest.model].size_bytes,
        )
        .encode()
    )


def _cell(text: str) -> str:
    """Return text so that it stays in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _check_name(check: Check) -> str:
    return CHECK_NAMES.get(check.name, check.name)


def _ms(value: float) -> str:
    return figure(value, "ms")


def _wilson(share: float, num_samples: int) -> str:
    low, high = wilson_interval(share * num_samples, num_samples)
    return f"{100 * low:.2f} to {100 * high:.2f} %"
