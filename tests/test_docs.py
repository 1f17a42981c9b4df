"""The docs say what is there: links resolve, commands exist, recipes validate, Python compiles."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from pipeline.cli import app
from pipeline.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted([*(ROOT / "recipes").glob("*.toml"), *(ROOT / "docs").rglob("recipe.toml")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"(?:^(?:\$ )?|`)(?:\.venv/bin/)?edgeproof ((?:store |devices |keys )?[a-z]+)([^`\n]*)", re.MULTILINE
)
MAKE = re.compile(r"(?:^|[`\s])make ([a-z-]+)\b(?=[^`\n]*`|[^`\n]*$)", re.MULTILINE)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(path.read_text("utf-8")) if found == language]


def headings(path: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def verbs_of(group: object) -> dict[str, object]:
    assert isinstance(group, TyperGroup)
    return dict(group.commands)


def options_of(words: str) -> set[str]:
    """Return the options of a verb; raises KeyError where there is no such verb."""
    command: object = typer.main.get_command(app)
    for word in words.split():
        command = verbs_of(command)[word]
    names = {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
    return names | {"--help", "--debug"}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_relative_link_resolves(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text("utf-8")) if "://" not in target]
    for target in targets:
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in headings(path), target


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_and_option_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for words, rest in COMMAND.findall(text):
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= options_of(words), f"edgeproof {words}{rest}"
    verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(MAKE.findall("\n".join(blocks(page, "sh") + re.findall(r"`(make [^`]+)`", text)))) <= set(verbs)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_recipe_shown_validates(page: Path) -> None:
    """A fragment's tables stand in for those of recipes/digits.toml."""
    for text in blocks(page, "toml"):
        shown_values = tomllib.loads(text)
        is_whole = {"name", "task", "student"} <= shown_values.keys()
        other_values = {} if is_whole else tomllib.loads(read("recipes/digits.toml"))
        Recipe.model_validate_json(json.dumps(other_values | shown_values))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_python_block_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        ast.parse(text)


@pytest.mark.parametrize("path", RECIPES, ids=shown)
def test_every_recipe_that_ships_is_valid_and_names_the_schema(path: Path) -> None:
    assert load_recipe(path).deployments
    named = path.read_text("utf-8").splitlines()[0].removeprefix("#:schema ")
    assert (path.parent / named).resolve() == ROOT / "docs" / "recipe.schema.json"


def test_the_readme_lists_every_verb_and_every_exit_code() -> None:
    text = read("README.md")
    verbs = [verb for verb in verbs_of(typer.main.get_command(app)) if f"`edgeproof {verb}" not in text]
    codes = [code for code in (0, 1, 2, 3, 4, 5, 130) if f"| {code} |" not in text]
    assert (verbs, codes) == ([], [])


def test_the_makefile_verbs_are_explained_in_make_help() -> None:
    text = read("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")
