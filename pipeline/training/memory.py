"""Memory of a training process: freed blocks stay with it, since small networks pay more for asking than computing."""

import ctypes
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""
LARGEST_HEAP_BLOCK = 32 * 2**20
"""The most that glibc accepts as the size from which a block is mapped on its own."""


def keep_freed_memory() -> None:
    """Let glibc's malloc re-use the blocks of the last step instead of returning them to the kernel; else do nothing.

    Every step of a small network frees and takes again tensors of some megabytes; mapped on their own, each of their
    pages would be cleared by the kernel again and again.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    settings = ((M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20))
    if not all(libc.mallopt(parameter, value) for parameter, value in settings):
        logger.info("malloc keeps its defaults: mallopt refused")


@contextmanager
def unscanned_objects() -> Iterator[None]:
    """Let Python's collector leave alone what exists now, modules above all: else it looks through it every few steps.

    That took 4 % of a small network's training. What is made meanwhile is collected as ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
