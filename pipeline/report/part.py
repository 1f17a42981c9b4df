"""What every table of the report is made of."""

from pydantic import BaseModel, ConfigDict


class ReportPart(BaseModel):
    """A table of the report: frozen, and nothing in it that is not declared."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )
