import numpy as np
import pytest

from targets.errors import ModelRefused
from targets.runner.feeds import check_feeds, make_feeds
from targets.target import TensorSpec

IMAGE = TensorSpec("x", "float32", (None, 3, None, 4))


def test_unknown_dimensions_are_1_unless_given() -> None:
    assert make_feeds([IMAGE], {}, seed=0)["x"].shape == (1, 3, 1, 4)
    assert make_feeds([IMAGE], {"x": (2, 3, 9, 4)}, seed=0)["x"].shape == (2, 3, 9, 4)


def test_values_are_seeded_and_fit_their_type() -> None:
    specs = [
        IMAGE,
        TensorSpec("ids", "int64", (1, 50)),
        TensorSpec("bytes", "uint8", (500,)),
        TensorSpec("m", "bool", ()),
    ]
    feeds, again = make_feeds(specs, {}, seed=3), make_feeds(specs, {}, seed=3)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert [feeds[spec.name].dtype.name for spec in specs] == ["float32", "int64", "uint8", "bool"]
    assert set(feeds["ids"].flat) == {0, 1}
    assert feeds["bytes"].max() > 200
    check_feeds(specs, feeds)


@pytest.mark.parametrize(
    ("spec", "shapes", "message"),
    [
        (IMAGE, {"x": (1, 4, 1, 4)}, r"shape of 'x': expected \?x3x\?x4; got 1x4x1x4"),
        (IMAGE, {"y": (1,)}, "expected an input among 'x'"),
        (TensorSpec("text", "object", (1,)), {}, "input 'text': expected numbers of a type that NumPy has"),
        (TensorSpec("half", "bfloat16", (1,)), {}, "got bfloat16"),
    ],
)
def test_what_cannot_be_made_up_is_refused(spec: TensorSpec, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        make_feeds([spec], shapes, seed=0)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"y": np.zeros((1, 3, 1, 4), np.float32)}, r"expected the inputs \['x'\]; got \['y'\]"),
        ({"x": np.zeros((1, 3, 1, 4))}, "feed 'x': expected float32"),
        ({"x": np.zeros((1, 3, 4), np.float32)}, r"expected float32 \?x3x\?x4; got float32 \(1, 3, 4\)"),
        ({"x": np.zeros((4, 1, 3, 1), np.float32).transpose(1, 2, 3, 0)}, "expected a C-contiguous array"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_by_name(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        check_feeds([IMAGE], feeds)
