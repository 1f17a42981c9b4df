"""RecipePart: what every table of a recipe is. Frozen, strict, keyword-only; an unknown key is an error."""

from pydantic import BaseModel, ConfigDict


class RecipePart(BaseModel):
    """A plug-in or a value of the recipe: its fields are its table, its methods are its behaviour."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
