"""Several artifacts timed in turns in one process on the device."""

from pathlib import Path

import pytest

from targets.devices.device import Device, Entrant, ProfileRequest
from targets.errors import ModelRefused
from targets.null import Null
from targets.target import RunOptions

REQUEST = ProfileRequest(num_samples=5, max_seconds=4.0)


def test_each_artifact_gives_samples_in_each_round(device: Device, linear_model: Path) -> None:
    entrants = [Entrant(linear_model, RunOptions()), Entrant(linear_model, RunOptions(threads=2))]
    found = device.compare(Null(latency_ms=1), entrants, REQUEST, rounds=3)
    assert [[len(samples_ns) for samples_ns in turns.samples_ns] for turns in found] == [[5, 5, 5], [5, 5, 5]]
    assert all(samples_ns.min() >= 1_000_000 for turns in found for samples_ns in turns.samples_ns)
    assert [turns.refusal for turns in found] == [None, None]


def test_a_refused_artifact_says_why_and_does_not_stop_the_others(device: Device, linear_model: Path) -> None:
    entrants = [Entrant(linear_model, RunOptions()), Entrant(linear_model, RunOptions(precision="bf16"))]
    runs, refused = device.compare(Null(), entrants, REQUEST, rounds=2)
    assert len(runs.samples_ns) == 2
    assert refused.samples_ns == ()
    assert refused.refusal is not None
    assert "expected fp32, which null evaluates in" in refused.refusal


def test_where_all_are_refused_every_one_says_why(device: Device, linear_model: Path) -> None:
    found = device.compare(Null(), [Entrant(linear_model, RunOptions(precision="fp16"))], REQUEST, rounds=2)
    assert [bool(turns.refusal) for turns in found] == [True]


def test_time_is_shared_by_all(device: Device, linear_model: Path) -> None:
    request = ProfileRequest(num_samples=10_000, max_seconds=0.5)
    turns = device.compare(Null(latency_ms=20), [Entrant(linear_model, RunOptions())] * 2, request, rounds=2)
    assert sum(len(samples_ns) for each in turns for samples_ns in each.samples_ns) <= 0.5 / 0.02 + 4


def test_a_file_that_is_no_model_is_refused(device: Device, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    (turns,) = device.compare(Null(), [Entrant(tmp_path / "m.onnx", RunOptions())], REQUEST, rounds=1)
    assert turns.refusal is not None
    assert "refuses the model" in turns.refusal
    with pytest.raises(ModelRefused):
        device.profile(Null(), tmp_path / "m.onnx", RunOptions(), REQUEST)
