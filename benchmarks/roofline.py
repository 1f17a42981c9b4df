"""The machine's limits, measured, and what they leave for a training step: floating-point work and memory traffic."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

GEMM_SIZE = 2048
COPIED_BYTES = 256 * 2**20
REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """What this machine reaches with the threads in use."""

    bf16_flops: float
    fp32_flops: float
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""


@dataclass(frozen=True)
class Work:
    """What one image of a step costs."""

    flops: float
    bytes_moved: float
    """If every operator reads its inputs from memory and writes its outputs there, in bf16: no cache, nothing fused."""

    def bounds(self, machine: Machine) -> dict[str, float]:
        """Return images/s that no step can exceed by each limit; caches and fusing may lift the last."""
        return {
            "bound by bf16 products": machine.bf16_flops / self.flops,
            "bound by fp32 products": machine.fp32_flops / self.flops,
            "memory alone, no cache, nothing fused": machine.copy_bytes_per_s / self.bytes_moved,
        }


def measure_machine() -> Machine:
    """Measure products of 2048 x 2048 matrices and a copy of 256 MiB; medians of 7."""
    flops = {}
    for dtype in (torch.bfloat16, torch.float32):
        factors = torch.randn(2, GEMM_SIZE, GEMM_SIZE).to(dtype)
        flops[dtype] = 2 * GEMM_SIZE**3 / _median_seconds(partial(torch.matmul, *factors))
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = 2 * COPIED_BYTES / _median_seconds(partial(target.copy_, source))
    return Machine(flops[torch.bfloat16], flops[torch.float32], copied)


def training_work(student: nn.Module, teacher: nn.Module | None, batch_size: int = 128) -> Work:
    """Count a step of plain distillation on images of CIFAR's size, the teacher's forward pass included if given."""
    images, labels = torch.randn(batch_size, 3, 32, 32), torch.zeros(batch_size, dtype=torch.int64)
    traffic = _Traffic()
    with FlopCounterMode(display=False) as counter, traffic:
        if teacher:
            with torch.no_grad():
                teacher(images)
        torch.autograd.backward(F.cross_entropy(student(images), labels))
    return Work(counter.get_total_flops() / batch_size, traffic.num_elements * 2 / batch_size)


class _Traffic(TorchDispatchMode):
    """Counts the elements that operators read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.num_elements += sum(tensor.numel() for tensor in _tensors((*args, result)))
        return result


def _tensors(values: Iterable[object]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _median_seconds(function: Callable[[], object]) -> float:
    function()
    samples = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        samples.append(time.perf_counter() - started)
    return statistics.median(samples)
