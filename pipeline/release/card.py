"""How a model came about, and what it is for: the words of its model card. Rule: no path of a host, and no figure.

Figures are the report's; what a recipe does not say is null, and the card says so.
"""

from pipeline.release.part import ReleasePart


class NetworkFacts(ReleasePart):
    """A network that took part."""

    architecture: str
    """Kind and settings, as the recipe says them."""
    origin: str
    """How it got its weights."""
    parameters: int | None = None
    """Weights and biases; null where nobody counted."""


class DataFacts(ReleasePart):
    """The images that a model was trained, chosen and judged by."""

    name: str
    """Kind of the data set, or the name of the user's own."""
    train_images: int
    validation_images: int
    test_images: int
    """Held out until the end: accuracies are on these."""
    image_shape: tuple[int, int, int]
    """Height, width and channels as the model meets them."""
    classes: int


class Card(ReleasePart):
    """What a model card says beside figures and licences."""

    description: str | None
    """What the model does, in the recipe's words."""
    intended_use: str | None
    """Who may use it for what, in the recipe's words."""
    limitations: tuple[str, ...]
    """What it must not be used for, in the recipe's words."""
    task: str
    data: DataFacts
    teachers: tuple[NetworkFacts, ...]
    """The first is the one whose accuracy is given."""
    student: NetworkFacts
    losses: tuple[str, ...]
    """What the student minimised, each with its weight."""
    quantization: str | None
    """How it became int8; null where float ships."""
