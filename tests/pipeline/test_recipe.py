"""A recipe says what is wrong with it: where, what was expected, what came, what to do."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from pipeline.errors import RecipeError
from pipeline.recipe import Recipe, load_recipe, recipe_schema_json

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = """
name = "digits"
version = "0.1.0"
license = "Apache-2.0"
[task]
kind = "classification"
data = { kind = "digits" }
normalization = { mean = [0.5], std = [0.5] }
[teacher]
model = { kind = "resnet", depth = 20, width = 32 }
training = { epochs = 30 }
[student]
model = { kind = "resnet", depth = 8, width = 16 }
[distillation]
training = { epochs = 40 }
losses = [ { kind = "cross_entropy", weight = 0.1 }, { kind = "kd", weight = 0.9, temperature = 4.0 } ]
[quantization]
training = { epochs = 5 }
losses = [ { kind = "kd", weight = 1.0, temperature = 1.0 } ]
[[deployments]]
name = "cpu"
target = { kind = "onnxruntime" }
budget = { latency = { max_ms = 5.0 } }
[[deployments]]
name = "intel"
target = { kind = "openvino" }
budget = { latency = { max_ms = 5.0 } }
"""


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(GOOD)
    return path


def refused(path: Path, *overrides: str) -> list[str]:
    """Return the lines of the error without the file's folder."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def refused_after(path: Path, old: str, new: str) -> list[str]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return refused(path)


def test_a_good_recipe_becomes_typed_values_that_know_their_folder(recipe_path: Path) -> None:
    recipe = load_recipe(recipe_path)
    assert recipe.student.model.kind == "resnet"
    assert [deployment.target.kind for deployment in recipe.deployments] == ["onnxruntime", "openvino"]
    assert recipe.deployments[0].budget.latency is not None
    assert recipe.deployments[0].budget.latency.percentile == 99
    assert recipe.folder == recipe_path.parent
    assert str(recipe_path.parent) not in recipe.model_dump_json()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            'kind = "onnxruntime"',
            'kind = "onnx"',
            "deployments[0].target.kind: expected one of onnxruntime, openvino, tensorrt, null; "
            'got "onnx" (did you mean "onnxruntime"?)',
        ),
        (
            "depth = 8",
            "dept = 8",
            'student.model.dept: unknown key; expected one of kind, depth, width, shortcut (did you mean "depth"?)',
        ),
        ("epochs = 40", 'epochs = "40"', 'distillation.training.epochs: expected a whole number; got "40"'),
        ("epochs = 40", "epochs = -1", "distillation.training.epochs: expected a number of at least 0; got -1"),
        ("epochs = 40", "", "distillation.training.epochs: missing: passes over the training images; "),
        ('license = "Apache-2.0"', "", 'license: missing: SPDX licence of the released model; for example license = "'),
        ("max_ms = 5.0", "max_ms = nan", "deployments[0].budget.latency.max_ms: expected a finite number; got nan"),
        (
            '"0.1.0"',
            "2026-01-01",
            "version: expected text, a number, a list or a table; got the date or time 2026-01-01",
        ),
        ('"0.1.0"', '"1"', 'version: expected text like "0.1.0"; got "1"'),
        ('"digits" }', '"digit" }', 'task.data.kind: expected one of digits, cifar10, image_folder, "./my_file.py:my_'),
        ("depth = 8", "depth = 9", "student.model.depth: expected 6n + 2 (8, 14, 20, 32, 44, 56, 110); got 9"),
        ("{ latency = { max_ms = 5.0 } }", "{}", "deployments[0].budget: expected at least one of latency, accuracy"),
        ('"cpu"', '"c/p"', 'deployments[0].name: expected letters, digits, ".", "_" and "-", beginning with a letter'),
        ('"intel"', '"CPU"', 'deployments: expected a name of its own for each; got "CPU" in deployments[0] and dep'),
        ("training = { epochs = 30 }", "", "teacher: expected training = { epochs = 30 } (to train it) or checkpoint"),
        ("epochs = 30 }", 'epochs = 30 }\ncheckpoint = "t.pt"', "teacher: expected either training or checkpoint; got"),
        ("{ epochs = 5 }", "7", "quantization.training: expected a table; got 7"),
    ],
)
def test_each_mistake_names_place_expectation_and_what_came(recipe_path: Path, old: str, new: str, line: str) -> None:
    lines = refused_after(recipe_path, old, new)
    assert len(lines) == 1
    assert lines[0].startswith(f"digits.toml: {line}")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(recipe_path: Path) -> None:
    text = (
        recipe_path.read_text()
        .replace("width = 16", 'width = "x"')
        .replace('"kd", weight = 0.9', '"kdd", weight = 0.9')
    )
    recipe_path.write_text(text.replace("version", "verison").replace("openvino", "openvin"))
    places = [line.split(": ")[1] for line in refused(recipe_path)]
    assert places == [
        "verison",
        "student.model.width",
        "distillation.losses[1].kind",
        "deployments[1].target.kind",
        "version",  # missing: after everything that is there
    ]


def test_int8_without_quantization_is_refused_and_fp32_is_not(recipe_path: Path) -> None:
    start, end = GOOD.index("[quantization]"), GOOD.index("[[deployments]]")
    recipe_path.write_text(GOOD[:start] + GOOD[end:])
    missing = "digits.toml: quantization: missing: deployments cpu, intel may ship int8"
    assert refused(recipe_path)[0].startswith(missing)
    fp32 = [f'deployments.{name}.precision="fp32"' for name in ("cpu", "intel")]
    assert load_recipe(recipe_path, fp32).quantization is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"\nversion = = 2\n', "line 2, column 11: not TOML"),
        ("losses = [1,", "end of document: not TOML"),
        ('name = "\x80"', "expected TOML in UTF-8; byte 8 is not"),
        ("a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))
    assert words in refused(path)[0]


def test_a_missing_file_suggests_the_nearest_recipe(recipe_path: Path) -> None:
    assert 'did you mean "digits.toml"?' in refused(recipe_path.with_name("digit.toml"))[0]
    assert "edgeproof init" in refused(recipe_path.parent / "empty" / "x.toml")[0]


def test_set_overrides_by_name_and_by_index(recipe_path: Path) -> None:
    overrides = [
        "deployments.cpu.budget.latency.max_ms=7",
        "deployments[1].threads=2",
        "distillation.losses.kd.weight=0.5",
    ]
    recipe = load_recipe(recipe_path, overrides)
    assert recipe.deployments[0].budget.latency is not None
    assert recipe.deployments[0].budget.latency.max_ms == 7
    assert recipe.deployments[1].threads == 2
    assert recipe.distillation.losses[1].weight == 0.5  # type: ignore[union-attr]  # the user's own has none


def test_set_makes_optional_tables_and_takes_bare_words_and_toml(recipe_path: Path) -> None:
    overrides = ["deployments.cpu.profile.max_seconds=3", "name=other", "student.model={kind='resnet', depth=14}"]
    recipe = load_recipe(recipe_path, overrides)
    assert recipe.deployments[0].profile.max_seconds == 3
    assert (recipe.name, recipe.student.model.model_dump()["depth"]) == ("other", 14)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "student.model.dept=8",
            "student.model.dept: unknown key; expected one of kind, depth, width, shortcut (did you",
        ),
        ("deployments.cup.threads=2", 'deployments.cup: expected cpu, intel, or an index up to 1; got "cup" (did you'),
        (
            "student.model.depth.x=1",
            "student.model.depth.x: expected a table at student.model.depth to set a key of; it is 8",
        ),
        ("deployments.cpu.threads=two", 'deployments[0].threads: expected a whole number; got "two"'),
        ("deployments.cpu.budget.memory.above=zero", "deployments[0].budget.memory.max_bytes: missing: upper limit in"),
        ("name", "expected path=value, for example deployments.cpu.budget.latency.max_ms=5"),
    ],
)
def test_a_bad_override_is_named_as_typed(recipe_path: Path, override: str, line: str) -> None:
    lines = refused(recipe_path, override)
    assert len(lines) == 1
    assert line in lines[0]
    assert lines[0].startswith(f"--set {override}: ")


def test_the_schema_in_the_docs_is_that_of_the_recipe() -> None:
    path = Path(__file__).parents[2] / "docs" / "recipe.schema.json"
    command = (
        "from pipeline.recipe import recipe_schema_json as text; open('docs/recipe.schema.json', 'w').write(text())"
    )
    assert path.read_text("utf-8") == recipe_schema_json(), f'write it anew: .venv/bin/python -c "{command}"'


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_ship_are_valid_for_us_and_for_editors(path: Path) -> None:
    assert load_recipe(path).name == path.stem
    assert path.read_text("utf-8").startswith("#:schema ../docs/recipe.schema.json\n")
    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), json.loads(recipe_schema_json()))


def test_every_key_of_a_recipe_is_described() -> None:
    schema = Recipe.model_json_schema()
    tables = {"Recipe": schema, **schema["$defs"]}
    silent = [
        f"{table}.{key}"
        for table, values in tables.items()
        for key, value in values.get("properties", {}).items()
        if key not in ("kind", "latency", "accuracy", "parity", "size", "memory", "load") and "description" not in value
    ]
    assert silent == []
