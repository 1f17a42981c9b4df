"""Two processes as two threads, with a gather that really exchanges: for losses that compare samples."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import torch
from torch import Tensor

from pipeline.distillation.loss import Batch, Term


def values_in_two_processes(terms: tuple[Term, Term], batch: Batch) -> list[float]:
    """Return what each process computes on its half of the batch."""
    slots: list[Tensor] = [torch.empty(0)] * 2
    barrier = Barrier(2, timeout=10)

    def run(rank: int) -> float:
        def gather(value: Tensor) -> Tensor:
            slots[rank] = value
            barrier.wait()
            whole = torch.cat(slots)
            barrier.wait()
            return whole

        return terms[rank](replace(_half(batch, rank), gather=gather)).item()

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, (0, 1)))


def _half(batch: Batch, rank: int) -> Batch:
    assert batch.index is not None
    mine = slice(rank * len(batch.labels) // 2, (rank + 1) * len(batch.labels) // 2)
    return replace(
        batch,
        student=batch.student[mine],
        teacher=None,
        labels=batch.labels[mine],
        index=batch.index[mine],
        student_features=tuple(feature[mine] for feature in batch.student_features),
        teacher_features=tuple(feature[mine] for feature in batch.teacher_features),
    )
