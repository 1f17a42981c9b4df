"""What a logger writes is what it was told, in the tool's own format."""

import csv
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.training.loggers import open_loggers

EPOCHS = [
    {"epoch": 0, "kd": 2.5, "kd'": 0.5, "validation_accuracy": 0.25, "seconds": 1.5, "learning_rate": 0.1},
    {"epoch": 1, "kd": 1.25, "kd'": 0.25, "validation_accuracy": 0.5, "seconds": 1.5, "learning_rate": 0.05},
]


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, checksum of it, bytes, checksum of them."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 16 + length


def test_csv_holds_a_row_an_epoch_as_soon_as_it_ended(tmp_path: Path) -> None:
    on_metrics = open_loggers(["csv"], tmp_path, "distill_student")
    for epoch in EPOCHS:
        on_metrics(epoch)
    found = rows(tmp_path / "csv/distill_student/version_0/metrics.csv")  # not closed: a crash would leave this
    assert [row["step"] for row in found] == [0, 1]
    assert [row["kd"] for row in found] == [2.5, 1.25]
    assert [row["kd_"] for row in found] == [0.5, 0.25]
    assert [row["validation_accuracy"] for row in found] == [0.25, 0.5]


def test_a_resumed_training_leaves_the_rows_of_the_first_start_alone(tmp_path: Path) -> None:
    for epoch in EPOCHS:
        with open_loggers(["csv"], tmp_path, "run") as on_metrics:
            on_metrics(epoch)
    found = [rows(tmp_path / f"csv/run/version_{start}/metrics.csv") for start in (0, 1)]
    assert [[row["step"] for row in start] for start in found] == [[0], [1]]


def test_tensorboard_reads_every_term_at_its_epoch(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
    with open_loggers(["tensorboard"], tmp_path, "run") as on_metrics:
        for epoch in EPOCHS:
            on_metrics(epoch)
    (file,) = tmp_path.glob("tensorboard/run/version_0/events.out.tfevents.*")
    events = [event_pb2.Event.FromString(record) for record in records(file)]
    found = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}
    assert found["kd", 1] == 1.25
    assert found["kd_", 0] == 0.5
    assert len(found) == 5 * 2


def test_a_tool_that_fails_is_left_out_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_loggers(["csv"], tmp_path, "run") as on_metrics:
        on_metrics(EPOCHS[0])
        (file,) = tmp_path.rglob("metrics.csv")
        file.unlink()
        file.mkdir()  # so that it cannot be written any more
        on_metrics(EPOCHS[1])
        on_metrics(EPOCHS[1])
    assert [record.message for record in caplog.records if "--log csv: " in record.message] == [caplog.messages[-1]]


def test_an_unknown_logger_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected some of csv, tensorboard, mlflow, wandb; got tensorbord"):
        open_loggers(["csv", "tensorbord"], tmp_path, "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_names_the_extra_to_install(name: str, tmp_path: Path) -> None:
    if find_spec(name) and find_spec("pytorch_lightning"):
        pytest.skip(f"{name} is installed")
    with pytest.raises(UsageError, match=rf"--log {name}: .* is not installed: pip install 'edgeproof\[{name}\]'"):
        open_loggers([name], tmp_path, "run")
