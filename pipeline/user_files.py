"""The user's own files: objects named by path in a recipe, data folders and checkpoints. Rule: they count by content.

Relative paths are looked up in the folder that EDGEPROOF_DATA names, then beside the recipe.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, model_validator

from pipeline.errors import DataError, RecipeError
from pipeline.parts import RecipePart

DATA_VARIABLE = "EDGEPROOF_DATA"


class FromRecipeFolder(RecipePart):
    """A part that names files of the user's; knows the folder of the recipe that it came from."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _keep_folder(self, info: ValidationInfo) -> "FromRecipeFolder":
        if info.context and "folder" in info.context:
            self._folder = Path(info.context["folder"])
        return self

    def find(self, name: str, *, what: str) -> Path:
        """Return the absolute path of `name`.

        Raises:
            DataError: nothing is there; lists the places tried.
        """
        return find_file(name, self._folder, what=what)


def find_file(name: str, folder: Path, *, what: str) -> Path:
    """Look `name` up in the data folder of the environment, then in `folder`; absolute paths stand for themselves."""
    data = os.environ.get(DATA_VARIABLE)
    places = [*([Path(data)] if data else []), folder]
    tried = list(dict.fromkeys((place / Path(name).expanduser()).absolute() for place in places))
    for path in tried:
        if path.exists():
            return path
    raise DataError(
        f"{what} {name!r} not found; looked at {', '.join(map(str, tried))}. "
        f"Put it there, name an absolute path in the recipe, or set {DATA_VARIABLE} to the folder that holds it"
        + (f" (it is {data!r} now)." if data else " (it is not set now).")
    )


class UserObject(FromRecipeFolder):
    """Something of the user's own, `FILE.py:NAME`, called with `arguments`."""

    kind: str = Field(pattern=r"^.+\.py:[A-Za-z_]\w*$", examples=["./my_models.py:build_student"])
    """File (relative to the recipe) and name of a callable in it, as `./my_models.py:build_student`."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the call."""

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return find_file(self.kind.rpartition(":")[0], self._folder, what="the file of")

    def fingerprint(self) -> str:
        """Digest of the file's content, the name and the arguments."""
        name = self.kind.rpartition(":")[2]
        arguments = self.model_dump_json(include={"arguments"})
        return hashlib.sha256(f"{name}@{file_digest(self.path)}{arguments}".encode()).hexdigest()

    @cached_property
    def _object(self) -> object:
        name = self.kind.rpartition(":")[2]
        path = self.path
        spec = importlib.util.spec_from_file_location(f"edgeproof_user_{file_digest(path)[:16]}", path)
        if spec is None or spec.loader is None:
            raise RecipeError(f"{path}: expected a Python file; got something that Python cannot import")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses and pydantic look annotations up
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, ImportError) as error:
            raise RecipeError(f"{self.kind}: expected a file that Python can import; {path}: {error}") from error
        if not callable(found := getattr(module, name, None)):
            names = ", ".join(sorted(n for n, value in vars(module).items() if callable(value) and n[0] != "_"))
            raise RecipeError(f"{self.kind}: expected a callable named {name!r} in {path}; it has {names or 'none'}")
        return found

    def build(self) -> object:
        """Call the user's object with its arguments and return what it gives.

        Raises:
            RecipeError: the file has no such callable, or refuses the arguments.
        """
        found = self._object
        assert callable(found)
        try:
            return found(**self.arguments)
        except TypeError as error:
            raise RecipeError(f"{self.kind}: the call with arguments {self.arguments} failed: {error}") from error


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder, sorted.

    Raises:
        DataError: it is a file, or cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read; got: {error.strerror}") from error


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(paths: Sequence[Path], root: Path) -> str:
    """Return one sha256 over the relative names and contents of `paths`, whatever their order."""
    lines = sorted(f"{path.relative_to(root).as_posix()}\0{file_digest(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
