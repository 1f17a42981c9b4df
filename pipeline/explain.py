"""Pydantic's complaints in the words of a recipe's author. Rule: where, what was expected, what came, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue
from pydantic_core import ErrorDetails

from pipeline.schema import Place, Step, dotted, nearest, toml

_TYPES = {
    "bool_type": "true or false",
    "dataclass_type": "a table",
    "dict_type": "a table",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table",
    "path_type": "a path in quotes",
    "string_type": "text in quotes",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("a number greater than {}", "gt"),
    "greater_than_equal": ("a number of at least {}", "ge"),
    "less_than": ("a number less than {}", "lt"),
    "less_than_equal": ("a number of at most {}", "le"),
    "multiple_of": ("a multiple of {}", "multiple_of"),
    "too_short": ("a list of at least {} items", "min_length"),
    "too_long": ("a list of at most {} items", "max_length"),
    "string_too_short": ("text of at least {} characters", "min_length"),
    "string_too_long": ("text of at most {} characters", "max_length"),
}
_LONGEST_VALUE = 80


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a recipe."""

    path: tuple[Step, ...]
    expected: str
    got: str = ""

    def __str__(self) -> str:
        text = f"{self.expected}; {self.got}" if self.got else self.expected
        return f"{dotted(self.path)}: {text}" if self.path else text


def explain(errors: Sequence[ErrorDetails], data: JsonValue, recipe: Place) -> list[Problem]:
    """Turn pydantic's errors about `data` into one problem a place, in the order of the file."""
    problems: dict[tuple[Step, ...], Problem] = {}
    for error in errors:
        if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
            continue  # pydantic 2.14 counts only the items without errors, and those are reported themselves
        problem = _problem(error, data, recipe)
        known = problems.get(problem.path)
        if known is None:
            problems[problem.path] = problem
        elif known.got == problem.got and known.expected != problem.expected:  # branches of a union
            problems[problem.path] = replace(known, expected=f"{known.expected} or {_bare(problem.expected)}")
    return sorted(problems.values(), key=lambda problem: _position(problem.path, data))


def _problem(error: ErrorDetails, data: JsonValue, recipe: Place) -> Problem:
    kind, context = error["type"], error.get("ctx", {})
    path, value, place = _locate(error["loc"], data, recipe, is_missing=kind == "missing")
    if kind == "missing":
        return _missing(path, place)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        *_, table_value, table = _locate(error["loc"][:-1], data, recipe, is_missing=False)
        keys = table.keys(table_value) if table else ()
        return Problem(path, f"unknown key; expected one of {', '.join(keys)}{nearest(str(path[-1]), keys)}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(path, value, place)
    if kind == "value_error":
        return _refused(path, str(context["error"]), value, place)
    if kind == "string_pattern_mismatch":
        example = f"text like {toml(place.example())}" if place else f"text that matches {context['pattern']}"
        return Problem(path, f"expected {example}", _got(value))
    if kind in ("literal_error", "enum"):
        words = tuple(str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", "))
        expected = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
        hint = nearest(value, words) if isinstance(value, str) else ""
        return Problem(path, f"expected {expected}", _got(value) + hint)
    if kind in _BOUNDS:
        text, limit = _BOUNDS[kind]
        came = f"got {len(value)}" if isinstance(value, list) else _got(value)
        bound = context[limit]
        shown = f"{bound:g}" if isinstance(bound, float) else bound
        return Problem(path, f"expected {text.format(shown)}", came)
    if kind in _TYPES:
        return Problem(path, f"expected {_TYPES[kind]}", _got(value))
    return Problem(path, error["msg"][:1].lower() + error["msg"][1:], _got(value))


def _locate(
    loc: Sequence[Step], data: JsonValue, recipe: Place, *, is_missing: bool
) -> tuple[tuple[Step, ...], JsonValue, Place | None]:
    """Follow pydantic's location in the data; steps that are only tags of a union are not in it, and are dropped."""
    path: list[Step] = []
    value = data
    found: Place | None = recipe
    for number, step in enumerate(loc):
        is_last_key = is_missing and number == len(loc) - 1
        if isinstance(value, dict) and isinstance(step, str) and (step in value or is_last_key):
            path.append(step)
            found = found.at(step, value) if found else None
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path.append(step)
            found = found.at(step, value) if found else None
            value = value[step]
    return tuple(path), value, found


def _refused(path: tuple[Step, ...], text: str, value: JsonValue, place: Place | None) -> Problem:
    """Take a validator's own words; where they begin with a key of the table, as `depth: ...`, that is the path."""
    key, colon, rest = text.partition(": ")
    if colon and place and key in place.keys(value):
        return Problem((*path, key), rest)
    return Problem(path, text)


def _missing(path: tuple[Step, ...], place: Place | None) -> Problem:
    if place is None:
        return Problem(path, "missing")
    description = place.description()
    is_word = description[1:2].islower()  # of a sentence, and no abbreviation
    what = f"missing: {description[:1].lower() if is_word else description[:1]}{description[1:]}".removesuffix(": ")
    return Problem(path, f"{what}; for example {path[-1]} = {toml(place.example())}")


def _wrong_kind(path: tuple[Step, ...], value: JsonValue, place: Place | None) -> Problem:
    kinds = place.all_kinds() if place else ()
    if not isinstance(value, dict):
        return Problem(path, f'expected a table like {{ kind = "{kinds[0] if kinds else "..."}" }}', _got(value))
    expected = f"expected one of {', '.join(kinds)}"
    if "kind" not in value:
        return Problem((*path, "kind"), f"missing: {expected}")
    kind = value["kind"]
    return Problem((*path, "kind"), expected, _got(kind) + (nearest(kind, kinds) if isinstance(kind, str) else ""))


def _got(value: JsonValue) -> str:
    text = toml(value)
    return f"got {text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + '...'}"


def _bare(expected: str) -> str:
    return expected.removeprefix("expected ")


def _position(path: tuple[Step, ...], data: JsonValue) -> tuple[int, ...]:
    """Sort key of the file's order; what is missing comes after what its table has."""
    position: list[int] = []
    value = data
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            position.append(list(value).index(step) if step in value else len(value))
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            position.append(step)
            value = value[step] if step < len(value) else None
    return tuple(position)
