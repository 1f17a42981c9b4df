import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pipeline.canonical import OMITTED_WHEN_DEFAULT, canonical, canonical_json
from pipeline.errors import DataError

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
nested = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


class Color(Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5
    label: str = field(default="", compare=False)


@dataclass(frozen=True)
class Weights:
    path: Path
    sha256: str
    accuracy: float


class Training(BaseModel):
    model_config = ConfigDict(frozen=True)
    epochs: int
    folder: Path = Field(default=Path("nowhere"), exclude=True)


class Digits:
    def __init__(self, content: str) -> None:
        self.content = content

    def fingerprint(self) -> str:
        return self.content


def form(value: object) -> bytes:
    return canonical_json(canonical(value, "input"))


@settings(deadline=None)  # a busy machine is no failure
@given(nested, nested)
def test_forms_are_equal_exactly_where_values_are_equal_in_type_and_content(a: object, b: object) -> None:
    assert form(a) == form(json.loads(json.dumps(a)))
    assert (form(a) == form(b)) == (repr(_sorted(a)) == repr(_sorted(b)))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 1.0), (1, True), (1, "1"), (None, "null"), (Color.RED, 1), (0.0, -0.0), (Point(1), Point(2)), ((), None)],
)
def test_values_that_python_or_json_could_confuse_differ(a: object, b: object) -> None:
    assert form(a) != form(b)


@given(st.dictionaries(st.sampled_from(["$class", "$$class", "x", "y"]), st.just("Point") | st.just(1) | st.just(0.5)))
def test_no_dictionary_looks_like_a_dataclass(value: dict[str, object]) -> None:
    assert form(value) != form(Point(1, 0.5))
    assert form(value) == form(dict(reversed(value.items())))


def test_equal_objects_count_as_equal_and_fields_declared_out_do_not_count() -> None:
    assert form(Point(1, label="a")) == form(Point(1, label="b"))
    assert form(Training(epochs=1, folder=Path("a"))) == form(Training(epochs=1, folder=Path("b")))
    assert form(Training(epochs=1)) != form(Training(epochs=2))


def test_the_form_is_readable_json() -> None:
    assert form({"p": Point(1), "t": (True, None)}) == b'{"p":{"$class":"Point","x":1,"y":0.5},"t":[true,null]}'


def test_an_artifact_counts_by_its_digest_alone() -> None:
    assert form(Weights(Path("a"), "ab12", 0.9)) == form(Weights(Path("b"), "ab12", 0.8))
    assert form(Weights(Path("a"), "ab12", 0.9)) != form(Weights(Path("a"), "ab13", 0.9))


@dataclass(frozen=True)
class Earlier:
    x: int


@dataclass(frozen=True)
class Later:
    x: int
    plan: tuple[str, ...] = field(default=(), metadata=OMITTED_WHEN_DEFAULT)


def test_a_field_that_came_later_counts_only_where_it_differs_from_its_default() -> None:
    assert form(Later(1)) == form(Earlier(1)).replace(b"Earlier", b"Later")
    assert len({form(Later(1)), form(Later(1, ("a",))), form(Later(1, ("b",)))}) == 3


def test_an_object_with_a_fingerprint_counts_by_it() -> None:
    assert form(Digits("a")) == form(Digits("a")) != form(Digits("b"))


def test_a_path_counts_by_content_not_by_name(tmp_path: Path) -> None:
    for name, content in {"a/x": b"1", "b/x": b"1", "c/x": b"2", "d/y": b"1"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    same, other, renamed = (form(tmp_path / name) for name in "bcd")
    assert form(tmp_path / "a") == same
    assert len({same, other, renamed}) == 3
    assert form(tmp_path / "a" / "x") == form(tmp_path / "d" / "y")


def test_a_path_to_nothing_says_which_input_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: expected a file or folder as input data; got nothing there"):
        canonical(tmp_path / "gone", "data")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_values_without_a_stable_json_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"teacher\.rate\[0\]: expected"):
        canonical({"rate": [value]}, "teacher")


@pytest.mark.parametrize("value", [b"x", {1}, object(), {1: 2}, print, Point, type("Loose", (), {})()])
def test_an_unknown_type_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"teacher\.data\[1\]: expected"):
        canonical({"data": [0, value]}, "teacher")
