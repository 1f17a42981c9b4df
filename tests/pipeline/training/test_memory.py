"""Memory of a training process, counted by the kernel and by Python's collector."""

import gc
import os
import platform
import subprocess
import sys
import weakref

import pytest

from pipeline.training.memory import unscanned_objects

STEPS = """
import resource, sys, torch
from pipeline.training.memory import keep_freed_memory
if sys.argv[1] == "keeps":
    keep_freed_memory()
def steps(num):
    for _ in range(num):
        kept = [torch.empty(2 << 20).fill_(1.0) for _ in range(8)]
        del kept
steps(12)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""glibc's first threshold, which else adapts to what is freed and so may keep the blocks by luck."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    """20 steps of 64 MB: all their pages, where every step asks the kernel anew; next to none, where it does not."""

    def faults(how: str) -> int:
        command, environment = [sys.executable, "-c", STEPS, how], os.environ | RETURNING
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert faults("keeps") < faults("returns") / 10


class Node:
    """Holds itself: only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("error", [None, KeyboardInterrupt], ids=["ends", "interrupted"])
def test_the_collector_leaves_alone_what_exists_but_not_what_is_made_meanwhile(
    error: type[BaseException] | None,
) -> None:
    kept = Node()
    before, outcomes = weakref.ref(kept), []
    try:
        with unscanned_objects():
            del kept
            made = weakref.ref(Node())
            gc.collect()
            outcomes = [gc.get_freeze_count() > 0, before() is not None, made() is None]
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    gc.collect()
    assert outcomes == [True, True, True]
    assert gc.get_freeze_count() == 0
    assert before() is None
