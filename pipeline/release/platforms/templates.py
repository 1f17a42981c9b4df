"""Render the text files of packages. Rule: only from constants of the manifest and the recipe's own fields."""

import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined


def render(template: str, **values: object) -> bytes:
    """Return a template of this folder, rendered, in UTF-8.

    Filters write a value as Python or Swift does; `float32` rounds numbers as NumPy does, so that no other parser of
    decimals can round them otherwise.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    environment.filters.update(python=repr, swift=swift_literal, float32=as_float32)
    return environment.from_string(read(template).decode()).render(values).encode()


def read(path: str) -> bytes:
    """Return a file of this folder as it is."""
    return files("pipeline.release.platforms").joinpath(path).read_bytes()


def swift_literal(value: object) -> str:
    """Return text, a number, a truth value or an array of these as Swift reads it.

    That is JSON but for escapes: Swift writes code points as \\u{1F600}, and a backslash and a parenthesis interpolate.
    """
    if isinstance(value, str):
        return '"' + "".join(map(_swift_letter, value)) + '"'
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(swift_literal, value)) + "]"
    return json.dumps(value, allow_nan=False)


def as_float32(values: Sequence[float]) -> tuple[float, ...]:
    """Return each value rounded to float32."""
    return tuple(float(np.float32(value)) for value in values)


def _swift_letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\u{{{ord(letter):X}}}"
