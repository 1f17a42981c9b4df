"""What this machine does while several devices are driven at once: one piece at a time, and what is the same once.

Rule: nobody holds this machine's turn while a device works.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar, cast

from targets.devices.stop import Stop

Kept = TypeVar("Kept")

HERE = "this machine"
WAKE_S = 0.5


class HostWork:
    """Turns for the threads of one run, and what they share; `stop` ends all that wait for their turn."""

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop = stop or Stop()
        self._turns: dict[str, threading.RLock] = {}
        self._kept: dict[str, object] = {}

    @contextmanager
    def turn(self, of: str = HERE) -> Iterator[None]:
        """Hold the only turn of that name: of this machine, or of devices that are alike, whose results are one.

        Raises:
            Interrupted: the run was ended meanwhile.
        """
        with self._turns.setdefault(of, threading.RLock()):
            self.stop.raise_if_set()
            yield

    def once(self, name: str, work: Callable[[], Kept]) -> Kept:
        """Return what `work` gives, from the first thread that asks for that name; it has this machine's turn."""
        with self.turn():
            if name not in self._kept:
                self._kept[name] = work()
            return cast(Kept, self._kept[name])


def run_all(jobs: Sequence[Callable[[], None]], at_once: int, stop: Stop) -> list[BaseException | None]:
    """Run every job in a thread, so many at the same time; return what each was ended by, None where it came through.

    Ctrl-C sets `stop`, waits until all have left their devices, and is raised then.
    """
    with ThreadPoolExecutor(max(1, at_once), thread_name_prefix="device") as pool:
        try:
            futures = [pool.submit(job) for job in jobs]
            while wait(futures, timeout=WAKE_S).not_done:
                pass  # Python raises Ctrl-C here, once this thread wakes: a signal that another took wakes nobody
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.exception() for future in futures]
