"""Our distillation beside torchdistill 1.1.5: ResNet-56 to ResNet-20 and to ResNet-8 on CIFAR-10, images/s of training.

Run: make bench-distillation ARGS="--rounds 5 --steps 24 --threads 2"
Data and teacher come from EDGEPROOF_DATA (cifar10/, teachers/derived/resnet56_ft_jpeg.pt); random ones do for speed.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.environment import peer_python
from benchmarks.roofline import Machine, measure_machine, training_work
from benchmarks.side_by_side import RESULTS, Row, publish, summarize
from benchmarks.worker import Worker, python_worker
from pipeline.models.resnet import ResNet
from pipeline.models.trained import read_state
from pipeline.tasks.cifar10 import ARCHIVES, Cifar10
from pipeline.training.int8_teacher import has_int8

HERE = Path(__file__).parent
DEPTHS = (20, 8)
TEACHER = Path("teachers") / "derived" / "resnet56_ft_jpeg.pt"
WARMUP_STEPS = 4
LOADER_WORKERS = (0, 1, 2)
CIFAR_IMAGES = 50_000
MODES = {"live": "int8" if has_int8() else "bf16", "live-bf16": "bf16", "stored": "bf16"}
"""What the teacher computes in."""
QUIET_CORES, TRIES = 0.2, 3
"""A turn during which others kept more cores busy is taken again, so often at most; the quietest counts."""
NOTES = (
    "plain KD (T 4, CE 0.1 + KD 0.9), batch 128, crop (padding 4) and flip. live: a teacher's pass for every image of "
    f"every epoch, in {MODES['live']} (teacher_precision; live-bf16: in bf16); stored: from a table that was filled in "
    "bf16. All beside the same live torchdistill, whose own cache stores outputs by image alone and is wrong under "
    "augmentation.",
    "ours: fit(), an epoch from its start to its last step, after one epoch of warm-up. peer: fp32, its models, loss, "
    "box, transforms and loader, the calls of its example script; the number of loader workers that was best here; "
    "the same teacher, its parameter-free shortcuts written as the convolutions that torchdistill's ResNet has.",
    "its example script never calls teacher.eval(), so its teacher would see batch statistics and be slower; here it "
    "is in eval mode.",
)


def main() -> None:
    """Compare images/s of both, live and stored, for both students."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24, help="timed steps of a turn")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    python = peer_python(RESULTS / "peer-venv", HERE / "peers" / "torchdistill.txt")
    machine = measure_machine()
    with tempfile.TemporaryDirectory() as folder:
        options, origin = prepare_data(Path(folder), arguments.steps * 128)
        ours = python_worker("ours", sys.executable, HERE / "ours_kd.py", options, arguments.threads)
        peer = python_worker("peer", python, HERE / "peers" / "torchdistill_kd.py", options, arguments.threads)
        comparison = Comparison(ours, peer, arguments.steps)
        rows = [row for depth in DEPTHS for row in comparison.compare(depth, arguments.rounds)]
        for depth in DEPTHS:
            comparison.split(depth)
        ours.close()
        peer.close()
    figures = {**comparison.figures, **roofline(machine, rows)}
    run = (
        f"torch {torch.__version__}, torchdistill 1.1.5, torchvision 0.28.0, {platform.machine()} "
        f"{cpu_name()}, {arguments.threads} threads, {arguments.rounds} interleaved rounds of {arguments.steps} steps, "
        f"medians; {comparison.num_repeated} turns repeated, for others were busy; {origin}; "
        f"edgeproof {version('edgeproof')}; make bench-distillation ARGS='{' '.join(sys.argv[1:])}'"
    )
    publish("distillation", "images/s", sorted(rows, key=lambda row: row.name), [*NOTES, run], figures)


class Comparison:
    """Takes turns between the two workers, and gathers what else they say."""

    def __init__(self, ours: Worker, peer: Worker, steps: int) -> None:
        self._ours, self._peer, self._steps = ours, peer, steps
        self.figures: dict[str, dict[str, float]] = {}
        self.num_repeated = 0

    def compare(self, depth: int, rounds: int) -> list[Row]:
        """Return the rows of one student: live and stored beside the same turns of the peer, orders rotated."""
        num_workers = self._best_loader(depth)
        turns = {
            "peer": lambda: self._ask_peer(depth, num_workers),
            **{
                mode: partial(self._quiet, self._ours, depth=depth, stored=mode == "stored", precision=precision)
                for mode, precision in MODES.items()
            },
        }
        names = list(turns)
        answers: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
        for round_ in range(rounds):
            for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
                answers[name].append(turns[name]())
        filling = statistics.median(answer["filling_s_per_1000"] for answer in answers["stored"])
        saved = 1000 / images_per_s(answers["live-bf16"]) - 1000 / images_per_s(answers["stored"])
        self.figures[f"table of stored-r{depth}"] = {
            "filling a column of 50,000 images, s": filling * CIFAR_IMAGES / 1000,
            "epochs after which filling has paid off": filling / saved,
        }
        self.figures[f"r{depth}: loss"] = {
            f"{who}, {when} step": answers[name][-1][f"{when}_loss"]
            for who, name in (("ours", "stored"), ("peer", "peer"))
            for when in ("first", "last")
        }
        rates = {name: [answer["images_per_s"] for answer in answers[name]] for name in names}
        self.figures[f"r{depth}: fastest turn, images/s"] = {name: max(rates[name]) for name in names}
        self.figures[f"r{depth}: cores that others kept busy, mean over the turns"] = {
            name: statistics.mean(answer["others_cores"] for answer in answers[name]) for name in names
        }
        return [summarize(f"{mode}-r{depth}", list(zip(rates[mode], rates["peer"], strict=True))) for mode in MODES]

    def split(self, depth: int) -> None:
        """Ask ours where the time of an epoch goes, by operator."""
        shares = self._ours.ask(depth=depth, steps=self._steps, stored=True, precision="bf16", split=True)
        shown = {name: share for name, share in shares.items() if name != "others_cores"}
        self.figures[f"ours, stored-r{depth}: shares of an epoch's time"] = shown

    def _best_loader(self, depth: int) -> int:
        """Return the number of loader workers that is fastest for the peer, each measured twice."""
        rates = {num: max(self._ask_peer(depth, num)["images_per_s"] for _ in range(2)) for num in LOADER_WORKERS}
        best = max(rates, key=lambda num: rates[num])
        as_example = self._ask_peer(depth, best, teacher_trains=True)["images_per_s"]
        self.figures[f"peer, r{depth}: images/s by loader workers"] = {
            **{f"{num} workers": rate for num, rate in rates.items()},
            f"{best} workers, teacher left in training mode": as_example,
        }
        return best

    def _ask_peer(self, depth: int, num_workers: int, *, teacher_trains: bool = False) -> Mapping[str, float]:
        return self._quiet(
            self._peer, depth=depth, warmup=WARMUP_STEPS, num_workers=num_workers, teacher_trains=teacher_trains
        )

    def _quiet(self, worker: Worker, **request: float) -> Mapping[str, float]:
        """Return the turn during which others did least: the first of at most three that was quiet."""
        answers: list[Mapping[str, float]] = []
        for _ in range(TRIES):
            answers.append(worker.ask(steps=self._steps, **request))
            if answers[-1]["others_cores"] <= QUIET_CORES:
                break
        self.num_repeated += len(answers) - 1
        return min(answers, key=lambda answer: answer["others_cores"])


def images_per_s(answers: list[Mapping[str, float]]) -> float:
    """Return the median of some turns."""
    return statistics.median(answer["images_per_s"] for answer in answers)


def roofline(machine: Machine, rows: list[Row]) -> dict[str, dict[str, float]]:
    """Return the machine's limits and, for each row, its bounds in images/s and our share of the closest."""
    figures = {
        "machine": {
            "bf16 products, TFLOP/s": machine.bf16_flops / 1e12,
            "fp32 products, TFLOP/s": machine.fp32_flops / 1e12,
            "copy (read + written), GB/s": machine.copy_bytes_per_s / 1e9,
        }
    }
    teacher = ResNet(depth=56, width=16, shortcut="A").build(3, 10).eval()
    for row in rows:
        mode, _, depth = row.name.partition("-r")
        student = ResNet(depth=int(depth), width=16).build(3, 10)
        work = training_work(student, None if mode == "stored" else teacher)
        bounds = work.bounds(machine)
        figures[f"{row.name}: bounds, images/s"] = {
            "work of a step, GFLOP": work.flops * 128 / 1e9,
            **bounds,
            "ours, as a share of the bf16 bound": row.ours / bounds["bound by bf16 products"],
        }
    return figures


def prepare_data(folder: Path, num_images: int) -> tuple[dict[str, str], str]:
    """Write images.npy and labels.npy; return the workers' options and where data and teacher come from."""
    data = Path(os.environ.get("EDGEPROOF_DATA", ""))
    if all((data / "cifar10" / name).is_file() for name in ARCHIVES):
        split = Cifar10(folder=str((data / "cifar10").absolute())).load().train
        images, labels, origin = split.images, split.labels, "CIFAR-10"
    else:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
        labels, origin = generator.integers(0, 10, num_images), "random images: EDGEPROOF_DATA has no CIFAR-10"
    order = np.random.default_rng(0).permutation(len(labels))  # the archives are sorted by class
    np.save(folder / "images.npy", images[order])
    np.save(folder / "labels.npy", labels[order])
    options = {"data": str(folder)}
    given = (data / TEACHER).is_file()
    torch.save(read_state(data / TEACHER) if given else random_teacher(images[:256]), folder / "teacher.pt")
    words = f"teacher {TEACHER.name}" if given else "a teacher of random weights (as fast)"
    return {**options, "teacher": str(folder / "teacher.pt")}, f"{origin}, {words}"


@torch.no_grad()
def random_teacher(images_NHWC: np.ndarray) -> dict[str, torch.Tensor]:
    """Return a state whose BatchNorm has statistics of these images: without, logits grow beyond float16."""
    torch.manual_seed(0)
    teacher = ResNet(depth=56, width=16, shortcut="A").build(3, 10).train()
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    teacher(torch.from_numpy(images_NHWC).permute(0, 3, 1, 2) / 255)
    return teacher.state_dict()


def cpu_name() -> str:
    """Return the processor's name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
