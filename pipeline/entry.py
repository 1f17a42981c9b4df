"""What the store keeps of one result: its record (entry.json) and the artifact as typed JSON.

Rule: nothing here is believed before its digest is checked, and no code is ever loaded (no pickle).
"""

import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.canonical import canonical_sha256, file_sha256
from pipeline.stage_call import StageCall

RECORD_NAME = "entry.json"
_SCALARS = (bool, int, float, str, type(None))


class StoredFile(BaseModel):
    """Digest and size of one file of an entry."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str
    size_bytes: int


class Entry(BaseModel):
    """The record of one result, readable by people; written last, so that it proves the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    stage: str
    key: str
    version: int
    toolchain: dict[str, str]
    inputs: dict[str, JsonValue]
    artifact_type: str
    artifact: JsonValue
    """Fields of the artifact; paths relative to the entry's folder."""
    files: dict[str, StoredFile]
    created_at: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time of the run that finished it."""
    sha256: str = ""
    """Over the canonical JSON of all other fields."""

    @property
    def call(self) -> StageCall:
        """The application of the stage that this is the result of."""
        return StageCall(self.stage, self.version, self.toolchain, self.inputs)

    def sealed(self) -> "Entry":
        """Return the same record with its own digest."""
        return self.model_copy(update={"sha256": self._own_sha256()})

    def is_sealed(self) -> bool:
        """Tell whether the record is as it was written."""
        return self.sha256 == self._own_sha256() and self.key == self.call.key

    def _own_sha256(self) -> str:
        return canonical_sha256(self.model_dump(mode="json", exclude={"sha256"}))


@dataclass(frozen=True)
class Damage:
    """Why an entry cannot be trusted."""

    reason: str


def read_record(folder: Path) -> Entry | Damage:
    """Return an entry's record, checked in itself, without a look at its files."""
    try:
        entry = Entry.model_validate_json((folder / RECORD_NAME).read_bytes())
    except FileNotFoundError:
        return Damage(f"{RECORD_NAME} is missing")
    except OSError as error:
        return Damage(f"{RECORD_NAME} cannot be read: {error.strerror}")
    except ValidationError as error:
        return Damage(f"{RECORD_NAME} cannot be read: {error.errors()[0]['msg']}")
    return entry if entry.is_sealed() else Damage(f"{RECORD_NAME} was changed")


def read_verified(folder: Path, key: str) -> Entry | Damage:
    """Return an entry's record once every byte of it and of its files is what was written."""
    entry = read_record(folder)
    if isinstance(entry, Damage):
        return entry
    if entry.key != key:
        return Damage(f"{RECORD_NAME} belongs to the key {entry.key}")
    for name, expected in entry.files.items():
        if reason := _damage_of_file(folder / name, expected):
            return Damage(f"{name} {reason}")
    return entry


def files_of(folder: Path) -> dict[str, StoredFile]:
    """Return digest and size of every file of a result; links are refused, since their content lies elsewhere."""
    found: dict[str, StoredFile] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path}: expected plain files and folders as a stage's results; got a link or a device")
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = StoredFile(sha256=file_sha256(path), size_bytes=path.stat().st_size)
    return found


def require_true_digest(artifact: object, files: dict[str, StoredFile], folder: Path) -> None:
    """Raise ValueError where an artifact names one file and a digest that is not that file's: later keys rest on it."""
    path, declared = getattr(artifact, "path", None), getattr(artifact, "sha256", None)
    if not isinstance(path, Path) or not path.is_file() or declared is None:
        return
    actual = files[path.relative_to(folder).as_posix()].sha256
    if declared != actual:
        raise ValueError(f"{path}: expected the artifact's sha256 to be its file's, {actual}; got {declared}")


def require_storable(annotation: object, where: str) -> None:
    """Raise TypeError unless values of this type survive the store; asked before hours are spent on a value."""
    if annotation in _SCALARS or annotation is Path or _is_enum(annotation):
        return
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return
    if origin is tuple or origin in (typing.Union, types.UnionType):
        for part in parts:
            if part is not Ellipsis:
                require_storable(part, where)
    elif isinstance(annotation, type) and is_dataclass(annotation):
        for name, hint in _typed_fields(annotation):
            require_storable(hint, f"{where}.{name}")
    else:
        raise TypeError(
            f"{where}: expected str, int, float, bool, None, an enum, Path, a tuple or a frozen dataclass of these; "
            f"got {annotation}, which the store cannot keep as JSON; write it to a file and keep its path"
        )


def artifact_to_json(artifact: object, folder: Path) -> JsonValue:
    """Return an artifact's fields as JSON, its paths relative to the stage's folder, in which they must lie."""
    if isinstance(artifact, Path):
        if not artifact.is_relative_to(folder) or not artifact.exists():
            raise ValueError(f"{artifact}: expected an existing file or folder in {folder}, where the stage writes")
        return artifact.relative_to(folder).as_posix()
    if isinstance(artifact, Enum):
        return artifact_to_json(artifact.value, folder)
    if isinstance(artifact, float) and not math.isfinite(artifact):
        raise ValueError(f"expected finite figures in an artifact; got {artifact!r}")
    if artifact is None or isinstance(artifact, bool | int | float | str):
        return artifact
    if isinstance(artifact, tuple):
        return [artifact_to_json(item, folder) for item in artifact]
    if is_dataclass(artifact) and not isinstance(artifact, type):
        return {field.name: artifact_to_json(getattr(artifact, field.name), folder) for field in fields(artifact)}
    raise TypeError(f"expected a value that the store can keep as JSON; got {type(artifact).__qualname__}")


def artifact_from_json(annotation: object, form: JsonValue, folder: Path) -> object:
    """Return the value that `artifact_to_json` was given, by its type; ValueError where the form does not fit."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(parts, form, folder)
    if origin is tuple and isinstance(form, list):
        each = [parts[0]] * len(form) if parts[1:] == (Ellipsis,) else parts
        return tuple(artifact_from_json(part, item, folder) for part, item in zip(each, form, strict=True))
    if origin is Literal and form in parts:
        return form
    if annotation is Path and isinstance(form, str):
        return _inside(folder, form)
    if isinstance(annotation, type):
        if annotation in _SCALARS and type(form) is annotation:
            return form
        if issubclass(annotation, Enum):
            return annotation(form)
        if is_dataclass(annotation) and isinstance(form, dict):
            hints = dict(_typed_fields(annotation))
            if hints.keys() == form.keys():
                return annotation(**{name: artifact_from_json(hints[name], form[name], folder) for name in hints})
    raise ValueError(f"expected {annotation}; got {form!r}")


def _damage_of_file(path: Path, expected: StoredFile) -> str | None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != expected.size_bytes:
            return f"has {size_bytes} bytes, not {expected.size_bytes}"
        return None if file_sha256(path) == expected.sha256 else "has other content than was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _first_fit(parts: tuple[object, ...], form: JsonValue, folder: Path) -> object:
    for part in parts:
        try:
            return artifact_from_json(part, form, folder)
        except ValueError:
            continue
    raise ValueError(f"expected one of {parts}; got {form!r}")


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if ".." in Path(name).parts or not path.is_relative_to(folder):
        raise ValueError(f"expected a path in the entry's folder; got {name!r}")
    return path


def _is_enum(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def _typed_fields(dataclass_type: type) -> Iterator[tuple[str, object]]:
    hints = typing.get_type_hints(dataclass_type)
    for field in fields(dataclass_type):
        yield field.name, hints[field.name]
