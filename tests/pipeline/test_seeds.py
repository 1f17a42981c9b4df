"""One distillation from several seeds, and every scheme of the chain's first half, on a tiny recipe."""

import json
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.chain import distill, synthesize, teach
from pipeline.cli import run as run_command
from pipeline.errors import RecipeError
from pipeline.models import build_model
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.recipe import Recipe, load_recipe
from pipeline.run import Missing, Run, Stages, open_plan, open_run
from pipeline.seeds import distill_seeds, spread_of
from targets.errors import EdgeproofError

RECIPE = """
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"

[task]
kind = "classification"
data = { kind = "digits" }
normalization = { mean = [0.3], std = [0.37] }

[teacher]
model = { kind = "resnet", depth = 8, width = 8 }
training = { epochs = 1, precision = "32-true" }

[student]
model = { kind = "resnet", depth = 8, width = 4 }

[distillation]
training = { epochs = 1, precision = "32-true", seed = 5 }
losses = [{ kind = "cross_entropy" }, { kind = "kd" }]

[[deployments]]
name = "fake"
target = { kind = "null" }
precision = "fp32"
budget = { latency = { max_ms = 1000.0 } }
"""
SECOND_TEACHER = 'more_teachers=[{model={kind="resnet",width=4},training={epochs=1,precision="32-true",seed=1}}]'
DATA_FREE = 'distillation.data_free={kind="deep_inversion",images=40,batch_size=40,steps=3,jitter=0,flip=false}'


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def make_run(folder: Path) -> Run:
    return open_run(Console(quiet=True), folder)


def learn(recipe: Recipe, stages: Stages) -> TrainedModel:
    teachers = teach(recipe, stages)
    return distill(recipe, teachers, synthesize(recipe, teachers[0], stages), stages)


def test_students_differ_by_seed_alone_and_the_teacher_is_paid_once(recipe_path: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "build")
    _, figures = distill_seeds(load_recipe(recipe_path), 3, run)
    assert [each.seed for each in figures] == [5, 6, 7]
    assert len({(each.test, each.validation) for each in figures}) > 1
    assert [stage.name for stage in run.stages].count("train_teacher") == 1
    columns = list((tmp_path / "build" / "teacher_outputs").rglob("*.safetensors"))
    assert len(columns) == 1  # one view of each image, met by all three


def test_spread_is_of_a_sample() -> None:
    spread = spread_of([0.8, 0.9, 0.85])
    assert (spread.mean, spread.n) == (pytest.approx(0.85), 3)
    assert spread.std == pytest.approx(statistics.stdev([0.8, 0.9, 0.85]))
    assert spread_of([0.8]).std is None


def test_the_command_writes_every_seed_for_machines(
    recipe_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["distill", str(recipe_path), "--seeds", "2", "--build", str(tmp_path / "build"), "--json"]
    assert run_command([*arguments, "--log", "csv"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test_accuracy"]["n"] == len(found["seeds"]) == 2
    mean = sum(each["test"] for each in found["seeds"]) / 2
    assert found["test_accuracy"]["mean"] == pytest.approx(mean)
    logs = list((tmp_path / "build" / "logs" / "csv").rglob("metrics.csv"))
    assert len(logs) == 3  # the teacher and two students


@pytest.mark.parametrize(
    ("overrides", "trained"),
    [
        ((), ["train_teacher", "distill_student"]),
        (
            ('distillation.assistants=[{model={kind="resnet",width=6}}]',),
            ["train_teacher", "distill_student", "distill_student"],
        ),
        (
            (SECOND_TEACHER, 'distillation.losses=[{kind="ensemble_kd"}]'),
            ["train_teacher", "train_teacher", "distill_student"],
        ),
        ((DATA_FREE, 'distillation.losses=[{kind="kd"}]'), ["train_teacher", "synthesize_images", "distill_student"]),
        (("task.views={mixup=0.5,in_use=1}", "distillation.live_teacher=true"), ["train_teacher", "distill_student"]),
    ],
    ids=["plain", "assistant", "two teachers", "data-free", "live teacher of mixed images"],
)
@pytest.mark.filterwarnings("ignore")
def test_every_scheme_trains_what_it_planned(
    recipe_path: Path, tmp_path: Path, overrides: tuple[str, ...], trained: list[str]
) -> None:
    recipe: Recipe = load_recipe(recipe_path, overrides)
    plan = open_plan(tmp_path / "build")
    assert isinstance(learn(recipe, plan).checkpoint, Missing)
    assert [stage.name for stage in plan.stages] == trained
    run = make_run(tmp_path / "build")
    student = learn(recipe, run)
    assert [stage.name for stage in run.stages] == trained
    assert student.checkpoint.classes == tuple("0123456789")
    after = open_plan(tmp_path / "build")
    assert learn(recipe, after).checkpoint == student.checkpoint


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('distillation.losses=[{kind="fitnet",student_layers=["stage:9"]}]', r"stage:1 to stage:3, or stage:last; got"),
        ('distillation.losses=[{kind="ensemble_kd",teacher_weights=[1.0,2.0]}]', r"one weight a teacher, 1; got 2"),
        ("task.student_sees={shrink=3,normalization={mean=[0.3],std=[0.3]}}", r"expected sides that 3 divides"),
        (
            'distillation.assistants=[{model={kind="./nothing.py:Model"}}]',
            r"the file of './nothing.py' not found|nothing.py",
        ),
    ],
    ids=["layer", "weights", "shrink", "assistant"],
)
def test_what_cannot_be_trained_is_refused_before_the_teacher_is(
    recipe_path: Path, tmp_path: Path, override: str, message: str
) -> None:
    run = make_run(tmp_path / "build")
    with pytest.raises(EdgeproofError, match=message):
        distill_seeds(load_recipe(recipe_path, (override,)), 1, run)
    assert run.stages == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (
                "task.student_sees={shrink=2,normalization={mean=[0.3],std=[0.3]}}",
                'distillation.assistants=[{model={kind="resnet"}}]',
            ),
            r"expected none where the student sees less than its teacher",
        ),
        (("teacher.num_classes=8",), r"num_classes: expected it beside checkpoint alone"),
    ],
    ids=["assistants that see less", "classes of a teacher trained here"],
)
def test_what_a_recipe_cannot_mean_is_refused(recipe_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_path, overrides)


def test_more_classes_of_a_teacher_than_of_the_data_are_refused(recipe_path: Path, tmp_path: Path) -> None:
    weights = tmp_path / "eight.safetensors"
    eight_classes(load_recipe(recipe_path), weights)
    teacher = f'teacher={{model={{kind="resnet",width=8}},checkpoint="{weights}",num_classes=11}}'
    with pytest.raises(RecipeError, match=r"teacher.num_classes: expected at most the data's 10; got 11"):
        teach(load_recipe(recipe_path, (teacher,)), make_run(tmp_path / "build"))


def test_teachers_of_other_classes_than_the_first_are_refused(recipe_path: Path, tmp_path: Path) -> None:
    weights = tmp_path / "eight.safetensors"
    eight_classes(load_recipe(recipe_path), weights)
    more = f'more_teachers=[{{model={{kind="resnet",width=8}},checkpoint="{weights}",num_classes=8}}]'
    recipe = load_recipe(recipe_path, (more,))
    run = make_run(tmp_path / "build")
    with pytest.raises(RecipeError, match=r"more_teachers\[0\]: expected the first teacher's 10 classes.*; got 8"):
        learn(recipe, run)


def test_a_teacher_of_the_first_classes_teaches_them_alone(recipe_path: Path, tmp_path: Path) -> None:
    first = load_recipe(recipe_path)
    run = make_run(tmp_path / "build")
    lwf = 'distillation.losses=[{kind="cross_entropy"},{kind="lwf"}]'
    weights = tmp_path / "eight.safetensors"
    eight_classes(first, weights)
    teacher = f'teacher={{model={{kind="resnet",width=8}},checkpoint="{weights}",num_classes=8}}'
    recipe = load_recipe(recipe_path, (teacher, lwf))
    teachers = teach(recipe, run)
    assert len(teachers[0].checkpoint.classes) == 8
    assert len(distill(recipe, teachers, None, run).checkpoint.classes) == 10


def eight_classes(recipe: Recipe, path: Path) -> None:
    """Write weights of a network that knows eight classes."""
    save_weights(path, build_model(recipe.teacher.model, 1, 8))
