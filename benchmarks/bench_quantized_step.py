"""One training step on an int8 grid beside one in float: same network, same batch, one process, alternating.

Run: OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/bench_quantized_step.py [--rounds 12] [--batch 128]
The bar is 1.7 for the ratio in float32, the precision in which quantized students are trained.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.side_by_side import Row, interleave, publish
from calibration.scheme import Scheme
from pipeline.models.mobilenet import MobileNetV2
from pipeline.models.resnet import ResNet
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import Scales, activation_quantizers, learn_scales
from pipeline.training.layout import to_channels_last
from pipeline.training.memory import keep_freed_memory
from pipeline.training.quantized_model import make_quantized

STUDENTS: dict[str, ResNet | MobileNetV2] = {
    "resnet-8": ResNet(depth=8),
    "resnet-20": ResNet(depth=20),
    "mobilenet-v2": MobileNetV2(width=0.25, last_channels=256),
}
BAR = 1.7


def main() -> None:
    """Compare steps of each student: followed and learned scales in float32, followed ones under autocast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--students", nargs="*", choices=STUDENTS, default=list(STUDENTS)[:2])
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = [row for name in arguments.students for row in compare(name, arguments.batch, arguments.rounds)]
    followed = [row.ratio for row in rows if row.name.endswith("fp32")]
    notes = [
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), batch {arguments.batch}, 3 x 32 x 32; "
        "ours: BatchNorm folded, fake quantization, ranges moving; peer: the float network in the same precision",
        f"bar: at most {BAR} in fp32: {'holds' if max(followed) <= BAR else 'does not hold'} ({max(followed):.2f})",
    ]
    publish("quantized_step", "ms a step, medians", rows, notes)


def compare(name: str, batch: int, rounds: int) -> list[Row]:
    """Return the rows of one student."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    network = STUDENTS[name].build(3, 10)
    rows = []
    settings: tuple[tuple[str, Scales, bool], ...] = (
        ("fp32", "ema", False),
        ("learned", "learned", False),
        ("bf16", "ema", True),
    )
    for words, scales, in_bf16 in settings:
        ours = stepper(quantized(network, images, scales), images, in_bf16=in_bf16)
        peer = stepper(copy.deepcopy(network), images, in_bf16=in_bf16)
        for step in (ours, peer, ours, peer):
            step()
        rows.append(interleave(f"{name} {words}", ours, peer, rounds))
    return rows


def quantized(network: nn.Module, images: Tensor, scales: Scales) -> nn.Module:
    """Return the network as quantized training starts with it."""
    model = make_quantized(network, Scheme())
    calibrate(model, lambda index: images[index], len(images), Calibration(samples=64))
    if scales == "learned":
        learn_scales(model)
    for quantizer in activation_quantizers(model).values():
        quantizer.moving = True
    return model


def stepper(network: nn.Module, images: Tensor, *, in_bf16: bool) -> Callable[[], float]:
    """Return what takes one step of training and gives its milliseconds."""
    model = to_channels_last(network).train()
    labels = torch.arange(len(images)) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True)

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            logits = model(images)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(logits.float(), labels))
        optimizer.step()
        return 1e3 * (time.perf_counter() - started)

    return step


if __name__ == "__main__":
    main()
