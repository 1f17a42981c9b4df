"""What `edgeproof methods` says of each method is what its class says, and the recipe lines that it gives work."""

import json
import tomllib
from pathlib import Path

import pytest

from pipeline.cli import run
from pipeline.errors import DataError
from pipeline.recipe import Distillation
from pipeline.verbs.methods import TABLE_STARTS, describe_methods, markdown_table, snippet, with_table

METHODS = {method.kind: method for method in describe_methods()}
PAGE = Path(__file__).parents[2] / "docs" / "distillation.md"
TRAINING = {"epochs": 1}


def distillation_of(text: str) -> Distillation:
    tables = {"losses": [{"kind": "cross_entropy"}], **tomllib.loads(text)}
    return Distillation.model_validate_json(json.dumps({"training": TRAINING, **tables}))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["methods", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", METHODS)
def test_the_recipe_lines_of_a_method_give_its_own_defaults(kind: str) -> None:
    shown = distillation_of(snippet(METHODS[kind]))
    part = shown.data_free or shown.losses[-1]
    required = {name: getattr(part, name) for name, field in type(part).model_fields.items() if field.is_required()}
    assert part == type(part)(**required)
    assert part.kind == kind


def test_every_setting_of_every_method_is_documented() -> None:
    assert [f"{m.kind}.{s.name}" for m in METHODS.values() for s in m.settings if not s.text] == []


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    command = ".venv/bin/edgeproof methods --markdown docs/distillation.md"
    assert with_table(page, tuple(METHODS.values()), where=str(PAGE)) == page, f"write it anew: {command}"


def test_writing_the_table_leaves_the_rest_of_the_page_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n" + PAGE.read_text("utf-8").replace("KD", "KO") + "after\n", "utf-8")
    assert run(["methods", "--markdown", str(page)]) == 0
    text = page.read_text("utf-8")
    assert markdown_table(tuple(METHODS.values())) in text
    assert text.startswith("before\n# Distillation\n")
    assert text.endswith("\nafter\n")


def test_a_page_without_a_place_for_the_table_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"notes\.md: expected the lines .* got a page without them"):
        with_table(f"text\n{TABLE_STARTS}\n", (), where="notes.md")


def test_a_bar_in_a_formula_does_not_end_its_cell() -> None:
    row = next(line for line in markdown_table((METHODS["kd"],)).splitlines() if "`kd`" in line)
    assert row.replace("\\|", "").count("|") == 9
    assert "[arXiv 1503.02531](https://arxiv.org/abs/1503.02531)" in row


@pytest.mark.parametrize("width", [80, 120, 160, 200])
def test_the_table_fits_the_terminal_and_names_every_method(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = printed(capsys).splitlines()
    assert max(map(len, lines)) <= width
    assert METHODS.keys() <= {line.split(" ")[0] for line in lines}
    assert ("formula" in lines[0], "source" in lines[0]) == (width >= 120, width >= 160)


def test_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["kind"]: row for row in json.loads(printed(capsys, "--json"))}
    assert rows.keys() == METHODS.keys()
    one = json.loads(printed(capsys, "kd", "--json"))
    assert one == rows["kd"]
    assert one["source"].startswith("Hinton et al. 2015, arXiv 1503.02531")
    temperature = next(setting for setting in one["settings"] if setting["name"] == "temperature")
    assert (temperature["default"], temperature["values"]) == (4.0, "number > 0")


def test_one_method_is_shown_with_its_settings_and_lines_for_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "dkd")
    assert all(setting.name in text for setting in METHODS["dkd"].settings)
    assert snippet(METHODS["dkd"]) in text


def test_an_unknown_method_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "dkdd"]) == 2
    assert 'got dkdd (did you mean "dkd"?)' in capsys.readouterr().err
