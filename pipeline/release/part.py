"""What every table of a release's JSON files is made of, and the words in them. Rule: strict, frozen, finite."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.release.archive import is_safe_name, parse_time


class ReleasePart(BaseModel):
    """A table of the manifest, or of another JSON file of a release."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _is_time(text: str) -> str:
    parse_time(text)
    return text


def _is_path(name: str) -> str:
    if not is_safe_name(name):
        raise ValueError("expected a plain relative path: ASCII words between slashes, none starting with a dot")
    return name


def _is_folder(name: str) -> str:
    if name and not (name.endswith("/") and is_safe_name(name.removesuffix("/"))):
        raise ValueError('expected a plain relative folder that ends with a slash, or "" for the top')
    return name


Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]
"""What can stand in the name of a file."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in hex."""
Time = Annotated[str, AfterValidator(_is_time)]
"""ISO 8601 with its zone."""
FilePath = Annotated[str, AfterValidator(_is_path)]
FolderPath = Annotated[str, AfterValidator(_is_folder)]
