"""Under which licences a release is. Rule: what nobody said is null, and is shown as unknown.

Expressions are SPDX's (annex D of its specification); a licence that SPDX does not list is named LicenseRef-NAME.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from pipeline.parts import RecipePart
from pipeline.release.part import ReleasePart
from pipeline.release.text import brief

if TYPE_CHECKING:
    from license_expression import LicenseExpression, Licensing

UNKNOWN = "unknown"
"""Stands in `forbid` for what nobody said the licence of."""
DATA_LICENCES = {"digits": "CC-BY-4.0"}
"""Of data sets that tasks know, by kind. Digits are UCI's Optical Recognition of Handwritten Digits (Alpaydin and
Kaynak 1998, doi.org/10.24432/C50P49), which UCI gives under CC BY 4.0. CIFAR-10's authors name no licence: unknown."""
DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt", "null": "onnx"}
"""What runs a release, as Python's package index names it, by kind of the target."""
LONGEST = 1000
"""Letters of an expression: releases of others are read, too."""
_OWN = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_NO_LETTER = re.compile("[^A-Za-z0-9.-]")
_WORD = re.compile(r"[^\s()]+")
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Trove classifiers that name one licence; "BSD License" names several."""
_NAMES = {"MIT License": "MIT", "Apache License v2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0"}
"""What distributions write in place of an SPDX expression."""


def spdx(text: str) -> str:
    """Return an SPDX expression as SPDX writes it; raises ValueError for any other text."""
    return str(_parse(text))


def _one_licence(text: str) -> str:
    if text == UNKNOWN:
        return text
    found = spdx(text)
    if " AND " in found or " OR " in found:
        raise ValueError(f"expected one licence of SPDX's list; got {brief(text)}: name each by itself")
    return found


Expression = Annotated[str, Field(max_length=LONGEST), AfterValidator(spdx)]
"""Of the recipe."""
Name = Annotated[str, Field(max_length=200), AfterValidator(_one_licence)]


class Licences(ReleasePart):
    """Of what is in a release, and of what it was made from: SPDX expressions or names; null where nobody said."""

    model: str | None = None
    """Of the released model, as the recipe says it."""
    teacher: str | None = None
    """Of the teacher's weights."""
    data: str | None = None
    """Of the data that it was trained on."""
    dependencies: dict[str, str | None] = Field(default_factory=dict)
    """Of the software that runs it, by name."""

    def each(self) -> Iterator[tuple[str, str | None]]:
        """Yield what each is of, in words, and the licence."""
        yield "model", self.model
        yield "teacher's weights", self.teacher
        yield "data", self.data
        for name, licence in sorted(self.dependencies.items()):
            yield f"dependency {name}", licence


class LicencePolicy(RecipePart):
    """What a release was made from is licensed as, and which licences it must do without.

    Of `A OR B` one must be allowed, of `A AND B` both; a licence that is listed counts with and without an exception.
    """

    teacher: Expression | None = Field(default=None, examples=["BSD-3-Clause"])
    """SPDX expression of the teacher's weights; if left out, the release's own where the teacher is trained here, and
    unknown where it comes from a checkpoint."""
    data: Expression | None = Field(default=None, examples=["CC-BY-4.0"])
    """SPDX expression of the data; known of `digits`."""
    forbid: tuple[Name, ...] = Field(default=(), examples=[["GPL-3.0-only", "AGPL-3.0-only"]])
    """SPDX licences that stop a deploy before anything is trained; "unknown" stops what nobody said the licence of."""
    allow: tuple[Name, ...] = Field(default=(), examples=[["MIT", "Apache-2.0", "CC-BY-4.0"]])
    """Where there are any, all others stop a deploy; what is unknown stops it only where `forbid` says so."""

    def refusals(self, licences: Licences) -> list[str]:
        """Return what may not be used, one text each: `WHAT: expected ...; got ...`."""
        refused = []
        for what, licence in licences.each():
            if licence is None:
                if UNKNOWN in self.forbid:
                    refused.append(
                        f'{what}: expected a licence that somebody said, as forbid has "{UNKNOWN}"; got none'
                    )
            elif not _holds(_parse_or_name(licence), self.forbid, self.allow):
                rule = f"none of {', '.join(self.forbid)}" if self.forbid else ""
                only = f"of {', '.join(self.allow)}" if self.allow else ""
                refused.append(f"{what}: expected a licence {' and '.join(filter(None, (only, rule)))}; got {licence}")
        return refused


def data_licence(kind: str, said: str | None) -> str | None:
    """Return the licence of data: what the recipe says, else what is known of data of this kind."""
    return said or DATA_LICENCES.get(kind)


def distribution_licence(name: str) -> str | None:
    """Return the licence of an installed distribution by its own metadata; None where that does not tell."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classified = {_CLASSIFIERS.get(text) for text in said.get_all("Classifier", []) if text.startswith("License ::")}
    for text in (*said.get_all("License-Expression", []), *said.get_all("License", [])):
        try:
            return spdx(_NAMES.get(text.strip(), text.strip()))
        except ValueError:  # the whole text of a licence, or a name that SPDX does not have
            continue
    return classified.pop() if len(classified) == 1 else None


def unknown(licences: Licences) -> list[str]:
    """Return what nobody said the licence of."""
    return [what for what, licence in licences.each() if licence is None]


@cache
def _licensing() -> "Licensing":
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _parse(text: str) -> "LicenseExpression":
    from license_expression import ExpressionError, LicenseWithExceptionSymbol

    expected = f"expected an SPDX licence expression, as Apache-2.0 or LicenseRef-NAME; got {brief(text)}"
    if len(text) > LONGEST:
        raise ValueError(f"{expected}: longer than {LONGEST} letters")
    try:
        parsed = _licensing().parse(text)
    except (
        ExpressionError,
        IndexError,
        AssertionError,
    ) as error:  # the latter two of "()" and "(OR x)", boolean.py 5.0
        raise ValueError(f"{expected}: {(str(error).splitlines() or ['no expression'])[0]}") from error
    if parsed is None:
        raise ValueError(expected)
    known = _licensing().known_symbols
    if vague := [word for word in _WORD.findall(text) if not _is_said(word, known)]:
        raise ValueError(f"{expected}: {brief(vague[0])} is no licence of SPDX's")
    for symbol in parsed.symbols:
        parts = (
            (symbol.license_symbol, symbol.exception_symbol)
            if isinstance(symbol, LicenseWithExceptionSymbol)
            else (symbol,)
        )
        for index, part in enumerate(parts):
            if not (part.key in known and part.is_exception == bool(index)) and not _OWN.fullmatch(part.key):
                raise ValueError(f"{expected}: {brief(part.key)} is no {'exception' if index else 'licence'} of SPDX's")
    return parsed


def _is_said(word: str, known: Collection[str]) -> bool:
    """Whether a word names one licence; the library takes GPL for GPL-1.0-or-later, which nobody means by it."""
    is_name = word.casefold() in {key.casefold() for key in (*known, "and", "or", "with")}
    return is_name or _OWN.fullmatch(word) is not None or any(letter.isdigit() for letter in word)


def _parse_or_name(text: str) -> "LicenseExpression":
    """Return an expression; a name that is none counts as a licence of its own."""
    try:
        return _parse(text)
    except ValueError:
        from license_expression import LicenseSymbol

        return LicenseSymbol("LicenseRef-" + _NO_LETTER.sub("-", text))


def _holds(expression: "LicenseExpression", forbid: Sequence[str], allow: Sequence[str]) -> bool:
    """Tell whether one may be used under it: one side of OR, both of AND."""
    from license_expression import LicenseWithExceptionSymbol

    licensing = _licensing()
    if isinstance(expression, licensing.OR):
        return any(_holds(part, forbid, allow) for part in expression.args)
    if isinstance(expression, licensing.AND):
        return all(_holds(part, forbid, allow) for part in expression.args)
    words = {str(expression)}
    if isinstance(expression, LicenseWithExceptionSymbol):
        words.add(str(expression.license_symbol))
    return not words & set(forbid) and (not allow or bool(words & set(allow)))


def same_licence(one: str | None, other: str | None) -> bool:
    """Tell whether two texts name the same licence."""
    if one is None or other is None:
        return one is other
    return bool(_parse_or_name(one).simplify() == _parse_or_name(other).simplify())
