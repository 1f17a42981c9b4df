"""Licences: read as SPDX means them, refused before anything is trained, and unknown where nobody said."""

import json
import re
from pathlib import Path

import pytest

from pipeline.describe import check_licences, describe_card, find_licences
from pipeline.errors import RecipeError
from pipeline.recipe import load_recipe
from pipeline.release.licences import LicencePolicy, Licences, distribution_licence, same_licence, spdx, unknown

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "recipes" / "digits.toml"
OWN = ROOT / "docs" / "examples" / "own_model" / "recipe.toml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("mit and (BSD-3-Clause or ISC)", "MIT AND (BSD-3-Clause OR ISC)"),
        ("GPL-2.0-only with Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("LicenseRef-our-terms", "LicenseRef-our-terms"),
    ],
)
def test_expressions_are_written_as_spdx_writes_them(text: str, expected: str) -> None:
    assert spdx(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Apache 2.0",
        "proprietary",
        "MIT AND",
        "MIT WITH Apache-2.0",
        "Classpath-exception-2.0",
        "(MIT",
        "()",
        "(OR MIT)",
    ],
)
def test_what_spdx_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected an SPDX licence expression.*; got {re.escape(ascii(text))}"):
        spdx(text)


@pytest.mark.parametrize(
    ("licence", "forbid", "allow", "is_refused"),
    [
        ("MIT", (), (), False),
        ("GPL-3.0-only", ("GPL-3.0-only",), (), True),
        ("GPL-3.0-only OR MIT", ("GPL-3.0-only",), (), False),
        ("GPL-3.0-only AND MIT", ("GPL-3.0-only",), (), True),
        ("(GPL-3.0-only OR MIT) AND ISC", ("MIT", "GPL-3.0-only"), (), True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("GPL-2.0-only",), (), True),
        ("Apache-2.0", (), ("MIT",), True),
        ("Apache-2.0 OR MIT", (), ("MIT",), False),
        ("a name that SPDX does not have", (), ("MIT",), True),
        (None, ("MIT",), ("Apache-2.0",), False),
        (None, ("unknown",), (), True),
    ],
)
def test_one_side_of_or_and_both_of_and_must_be_allowed(
    licence: str | None, forbid: tuple[str, ...], allow: tuple[str, ...], is_refused: bool
) -> None:
    policy = LicencePolicy(forbid=forbid, allow=allow)
    licences = Licences(model="ISC" if "MIT" in forbid else "MIT", teacher="MIT", data=licence, dependencies={})
    refused = [each for each in policy.refusals(licences) if each.startswith("data: ")]
    assert bool(refused) == is_refused


def test_licences_come_from_installed_distributions_and_absent_ones_are_unknown() -> None:
    assert distribution_licence("onnx") == "Apache-2.0"  # License-Expression, or a name of the classifier
    assert distribution_licence("jsonschema") == "MIT"
    assert distribution_licence("no-such-distribution") is None


def test_licences_that_mean_the_same_are_the_same() -> None:
    assert same_licence("MIT OR Apache-2.0", "Apache-2.0 OR MIT")
    assert not same_licence("MIT", "ISC")
    assert not same_licence("MIT", None)
    assert same_licence("our own", "our own")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            'release.licences.forbid=["CC-BY-4.0"]',
            "release.licences: data: expected a licence none of CC-BY-4.0; got CC-BY-4.0",
        ),
        ('release.licences.allow=["MIT"]', "release.licences: model: expected a licence of MIT"),
        ('release.licences.forbid=["GPL"]', "release.licences.forbid[0]: expected an SPDX licence expression"),
        ('release.licences.forbid=["MIT OR ISC"]', "release.licences.forbid[0]: expected one licence of SPDX's list"),
        ('release.licences.teacher="mine"', "release.licences.teacher: expected an SPDX licence expression"),
        ('license="proprietary"', "license: expected an SPDX licence expression, as Apache-2.0 or LicenseRef-NAME"),
    ],
)
def test_forbidden_and_misspelt_licences_stop_a_recipe_when_it_is_read(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(DIGITS, [override])


def test_runtime_that_the_recipe_forbids_stops_a_deploy_before_it_trains() -> None:
    recipe = load_recipe(DIGITS, ['release.licences.forbid=["Apache-2.0"]', 'license="BSD-3-Clause"'])
    cpu, intel = (next(each for each in recipe.deployments if each.name == name) for name in ("cpu", "intel"))
    check_licences(recipe, cpu, lambda line: None)
    assert find_licences(recipe, cpu).dependencies == {"onnxruntime": "MIT"}
    with pytest.raises(RecipeError, match=r"dependency openvino: expected .* none of Apache-2.0; got Apache-2.0"):
        check_licences(recipe, intel, lambda line: None)


def test_unknown_licences_are_said(shared_data: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "cifar10.toml")
    told: list[str] = []
    check_licences(recipe, recipe.deployments[0], told.append)
    assert unknown(find_licences(recipe, recipe.deployments[0])) == ["teacher's weights", "data"]
    assert told == [
        "licences: unknown of teacher's weights, data; the release will say so (to say them: release.licences)"
    ]


def test_card_has_the_recipes_words_and_no_path_of_the_host() -> None:
    words = ['release.description="Reads meters."', 'release.limitations=["Fails in the dark."]']
    for path in (DIGITS, OWN):
        recipe = load_recipe(path, words)
        card = describe_card(recipe, recipe.deployments[0], parameters=7)
        assert (card.description, card.limitations) == ("Reads meters.", ("Fails in the dark.",))
        assert "/" not in json.dumps(card.model_dump()), path
    assert card.student.architecture.startswith("my_models.py:")


def test_card_says_how_the_digits_were_trained() -> None:
    recipe = load_recipe(DIGITS)
    card = describe_card(recipe, recipe.deployments[0])
    assert card.teachers[0].architecture == "resnet (depth 20, width 16)"
    assert card.teachers[0].origin == "trained from nothing for 30 epochs in batches of 64 by sgd, seed 0"
    assert card.losses == ("cross_entropy (weight 0.1)", "kd (weight 0.9, temperature 4)")
    data = card.data
    assert (data.train_images + data.validation_images + data.test_images, data.test_images) == (1797, 360)
    assert (data.image_shape, data.classes) == ((8, 8, 1), 10)
