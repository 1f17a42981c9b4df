"""The canonical form of a stage's inputs: what counts in a store key, as readable JSON.

Rule: equal content, equal bytes; a type without a rule here is refused, never guessed.

Names that begin with `$` are this form's own; a dictionary's key that begins with `$` is escaped by one more.
"""

import hashlib
import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, JsonValue

from pipeline.errors import DataError

CONTENT_NAMES = ("$sha256", "$fingerprint", "$file", "$folder")
"""Names whose value is a digest: shown to people as "other content"."""

OMITTED_WHEN_DEFAULT = MappingProxyType({"omitted_when_default": True})
"""Metadata of a dataclass's field that counts only where it differs from its default: a field that came later."""

_DIGEST_FIELD = "sha256"


@runtime_checkable
class HasFingerprint(Protocol):
    """A value that knows its own content: a data set, a user's own source file, a device.

    Where it is defined it replaces the fields, so it must cover everything that can change a result.
    """

    def fingerprint(self) -> str:
        """Return a digest that is equal exactly where the content is equal."""
        ...


def canonical_json(value: JsonValue) -> bytes:
    """Return the only JSON of a value: sorted names, no spaces, ASCII, shortest floats that read back equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def canonical_sha256(value: JsonValue) -> str:
    """Return the full-length hexadecimal sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical(value: object, where: str) -> JsonValue:
    """Return what counts of one input; `where` is its path in the inputs, for messages.

    Plain values count as they are; tuples and lists alike. Dataclasses and pydantic models count by class name and
    fields, without fields that are declared not to count (`compare=False`, or pydantic's `exclude=True`); a dataclass
    with a field `sha256` is an artifact and counts by that alone; a Path counts by the content that it leads to.

    Raises TypeError for any other type, ValueError for a float that is not finite or text that is not Unicode, and
    DataError for a Path to nothing.
    """
    if isinstance(value, Enum):
        return {"$class": type(value).__qualname__, "$value": canonical(value.value, where)}
    if value is None or isinstance(value, bool | int | float | str):
        return _plain(value, where)
    if isinstance(value, Path):
        return _content(value, where)
    if isinstance(value, HasFingerprint) and not isinstance(value, type):
        return {"$class": type(value).__qualname__, "$fingerprint": value.fingerprint()}
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return _of_object(value, where)
    if isinstance(value, tuple | list):
        return [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_escaped(name, where): canonical(item, f"{where}.{name}") for name, item in value.items()}
    raise TypeError(
        f"{where}: expected plain values, enums, tuples, lists, dictionaries, paths, pydantic models, frozen "
        f"dataclasses or an object with fingerprint(); got {type(value).__module__}.{type(value).__qualname__}; "
        "give it a fingerprint() that covers its content"
    )


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return the sha256 over relative names and contents of all files; links are followed, empty folders ignored."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return canonical_sha256({path.relative_to(folder).as_posix(): file_sha256(path) for path in files})


def _plain(value: bool | int | float | str | None, where: str) -> JsonValue:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number; got {value!r}, which never equals itself in a key")
        return float(value)  # NumPy's float64 is a float, too
    if isinstance(value, str):
        if not value.isascii():
            _require_unicode(value, where)
        return str(value)
    return value


def _require_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: expected text that UTF-8 can hold; got {text!r}") from error


def _content(path: Path, where: str) -> JsonValue:
    try:
        if path.is_file():
            return {"$file": file_sha256(path)}
        if path.is_dir():
            return {"$folder": folder_sha256(path)}
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable file or folder as input {where}; got {error}; check its permissions"
        ) from error
    raise DataError(f"{path}: expected a file or folder as input {where}; got nothing there; check the path")


def _of_object(value: object, where: str) -> JsonValue:
    form: dict[str, JsonValue] = {"$class": type(value).__qualname__}
    names = _counted_fields(value, where)
    if is_dataclass(value) and _DIGEST_FIELD in names:
        return form | {"$sha256": canonical(getattr(value, _DIGEST_FIELD), f"{where}.{_DIGEST_FIELD}")}
    return form | {name: canonical(getattr(value, name), f"{where}.{name}") for name in names}


def _counted_fields(value: object, where: str) -> list[str]:
    if isinstance(value, BaseModel):
        declared = [name for name, field in type(value).model_fields.items() if not field.exclude]
        return [*declared, *(value.model_extra or {})]
    assert is_dataclass(value)
    assert not isinstance(value, type)
    if not value.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # typeshed does not have it
        raise TypeError(f"{where}: expected a frozen dataclass; got {type(value).__qualname__}, which can change later")
    return [
        field.name
        for field in fields(value)
        if field.compare
        and not (field.metadata == OMITTED_WHEN_DEFAULT and getattr(value, field.name) == field.default)
    ]


def _escaped(name: object, where: str) -> str:
    if not isinstance(name, str) or isinstance(name, Enum):
        raise TypeError(f"{where}: expected text as a dictionary's keys; got {name!r}")
    return f"${name}" if name.startswith("$") else str(name)
