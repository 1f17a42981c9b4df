"""Two processes under torchrun (gloo) train as one does, with the same batch between them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_fit import LOSSES

from pipeline.models.trained import read_state

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "distributed_fit.py"


def run_fit(
    folder: Path, student: str, losses: str, *, processes: int, num: int = 64, batch_size: int = 16
) -> subprocess.CompletedProcess[str]:
    """Run the fit on `num` images."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), student, losses, str(num), str(batch_size)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def train(folder: Path, student: str, losses: str, *, processes: int, num: int = 64) -> list[dict[str, float]]:
    """Run the fit; return the metrics of its epochs."""
    done = run_fit(folder, student, losses, processes=processes, num=num)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("losses", [name for name in LOSSES if name != "crd"])
def test_two_processes_follow_one_at_the_same_global_batch(tmp_path: Path, losses: str) -> None:
    one, two = (train(tmp_path / str(n), "plain", losses, processes=n) for n in (1, 2))
    for single, double in zip(one, two, strict=True):
        for name in single.keys() - {"seconds", "teacher_seconds"}:
            assert double[name] == pytest.approx(single[name], rel=2e-3), name  # sums in another order, in fp32
    weights = [read_state(tmp_path / n / "model.safetensors") for n in ("1", "2")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=2e-2, atol=2e-4)


def test_contrastive_banks_and_batch_norm_finish_on_two_processes(tmp_path: Path) -> None:
    """Negatives are drawn by each process, and BatchNorm is each process's own: no equality to expect."""
    epochs = train(tmp_path / "2", "resnet", "crd", processes=2)
    assert len(epochs) == 2
    assert epochs[1]["cross_entropy"] < epochs[0]["cross_entropy"]


def test_fewer_images_than_a_batch_and_an_odd_number_of_them_are_shared_evenly(tmp_path: Path) -> None:
    assert len(train(tmp_path / "2", "plain", "dist", processes=2, num=13)) == 2


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    done = run_fit(tmp_path / "2", "plain", "each sample", processes=2, batch_size=15)
    assert done.returncode != 0
    assert "test: batch_size: expected a multiple of the 2 processes that share it; got 15" in done.stderr
