"""Reading a data source once: every stage of a run asks for the same ones."""

import threading

from pipeline.canonical import canonical, canonical_sha256
from pipeline.errors import RecipeError
from pipeline.parts import RecipePart
from pipeline.tasks.dataset import Dataset
from pipeline.user_files import UserObject

KEPT = 2
"""Data sets in memory: a teacher's, and what its student sees of it."""
_loaded: dict[str, Dataset] = {}
_LOADING = threading.RLock()
"""Threads that prove many devices read a data set once, not each for itself at the same time; a source may read
another one."""


def load_once(source: RecipePart) -> Dataset:
    """Return what a source gives: from memory where its content is that of one of the last two.

    Raises:
        DataError: it is missing or damaged.
        RecipeError: the user's own callable gave something else.
    """
    key = canonical_sha256(canonical(source, "data"))
    with _LOADING:
        if key not in _loaded:
            found = source.build() if isinstance(source, UserObject) else source.load()  # type: ignore[attr-defined]
            if not isinstance(found, Dataset):
                raise RecipeError(f"task.data: expected a pipeline.tasks.dataset.Dataset; got {type(found).__name__}")
            while len(_loaded) >= KEPT:
                _loaded.pop(next(iter(_loaded)))
            _loaded[key] = found
        return _loaded[key]
