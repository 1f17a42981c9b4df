"""Memory of a training process, counted by the kernel: pages that a step has to ask for."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from pipeline.training.memory import keep_freed_memory
if sys.argv[1] == "keeps":
    keep_freed_memory()
def steps(num):
    for _ in range(num):
        torch.empty(4 << 20).fill_(1.0)
steps(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    """20 steps of 16 MB: 4,096 pages each, where every step asks the kernel anew."""

    def faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keeps") < faults("returns") / 10
