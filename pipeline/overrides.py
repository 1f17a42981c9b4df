"""`--set path=value`: single values laid over a recipe before it is validated. Rule: what has no place is refused."""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.errors import RecipeError
from pipeline.schema import Place, Step, dotted, nearest, toml


@dataclass(frozen=True)
class Override:
    """One `--set`, as typed and as understood."""

    text: str
    steps: tuple[str, ...]
    """Keys, indices and names of list items, as typed."""
    value: JsonValue


def parse_override(text: str) -> Override:
    """Read `path=value`; a value that is not TOML is text.

    Raises:
        RecipeError: there is no `=` or no path.
    """
    path, equals, value = text.partition("=")
    steps = tuple(step.strip() for step in path.replace("[", ".").replace("]", "").split("."))
    if not equals or not all(steps):
        raise RecipeError(f"--set {text}: expected path=value, for example deployments.cpu.budget.latency.max_ms=5")
    return Override(text, steps, _parse_value(value.strip()))


def apply_overrides(
    data: Mapping[str, JsonValue], overrides: Sequence[Override], recipe: Place
) -> tuple[dict[str, JsonValue], dict[tuple[Step, ...], Override]]:
    """Return a copy of `data` with all overrides laid over it, and which place came from which.

    Raises:
        RecipeError: a path that no recipe has, a name that no list item has, a step into what is not a table.
    """
    changed = copy.deepcopy(dict(data))
    origins = {_apply(changed, override, recipe): override for override in overrides}
    return changed, origins


def _apply(data: dict[str, JsonValue], override: Override, recipe: Place) -> tuple[Step, ...]:
    """Set the value; return the place that is new: its path, or that of the outermost table made for it."""
    path: tuple[Step, ...] = ()
    new: tuple[Step, ...] | None = None
    value: JsonValue = data
    place: Place | None = recipe
    for typed in override.steps[:-1]:
        step = _find(typed, value, place, path, override)
        place = place.at(step, value) if place else None
        path = (*path, step)
        if isinstance(value, dict):  # an optional table that the recipe left out comes into being
            new = new or (None if step in value else path)
            value = value.setdefault(str(step), {})
        elif isinstance(value, list):
            value = value[int(step)]
    step = _find(override.steps[-1], value, place, path, override)
    if isinstance(value, dict):
        value[str(step)] = override.value
    elif isinstance(value, list):
        value[int(step)] = override.value
    return new or (*path, step)


def _find(typed: str, value: JsonValue, place: Place | None, path: tuple[Step, ...], override: Override) -> Step:
    """Return the key or index that `typed` means in `value`, which stands at `path`."""
    where = f"--set {override.text}: {dotted((*path, typed))}"
    if isinstance(value, list):
        names = [item.get("name", item.get("kind")) if isinstance(item, dict) else None for item in value]
        if typed.isdecimal() and int(typed) < len(value):
            return int(typed)
        if names.count(typed) == 1:
            return names.index(typed)
        known = tuple(name for name in names if isinstance(name, str))
        choices = ", ".join([*known, f"or an index up to {len(value) - 1}"]) if value else "nothing: the list is empty"
        raise RecipeError(f"{where}: expected {choices}; got {toml(typed)}{nearest(typed, known)}")
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: expected a table at {dotted(path)} to set a key of; it is {toml(value)}")
    keys = place.keys(value) if place else ()
    if typed not in keys and (place is None or place.at(typed, value) is None):
        raise RecipeError(f"{where}: unknown key; expected one of {', '.join(keys) or 'none'}{nearest(typed, keys)}")
    return typed


def _parse_value(text: str) -> JsonValue:
    try:
        value: JsonValue = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value
