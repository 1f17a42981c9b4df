"""Threads that drive devices share this machine, and all end with Ctrl-C."""

import os
import signal
import threading
import time
from functools import partial

import pytest

from pipeline.host_work import HostWork, run_all
from targets.devices.stop import Stop
from targets.errors import DeviceError, Interrupted


def test_what_is_the_same_for_all_is_made_once() -> None:
    host, made = HostWork(), []
    run_all([lambda: made.append(host.once("answers", lambda: len(made)))] * 8, 8, host.stop)
    assert made == [0] * 8


def test_one_thread_at_a_time_has_a_turn() -> None:
    host, inside, most = HostWork(), [0], [0]

    def work() -> None:
        with host.turn():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.002)
            inside[0] -= 1

    run_all([work] * 8, 8, host.stop)
    assert most == [1]


def test_what_ends_a_job_is_its_own() -> None:
    def fail() -> None:
        raise DeviceError("gone")

    done: list[int] = []
    ended = run_all([fail, partial(done.append, 1), fail], 1, Stop())
    assert [type(error) for error in ended] == [DeviceError, type(None), DeviceError]
    assert done == [1]


def test_ctrl_c_wakes_who_waits_and_begins_nothing_more() -> None:
    stop, woken, all_wait = Stop(), [], threading.Barrier(3)

    def wait_for_a_device() -> None:
        stop.raise_if_set()
        ended = threading.Event()
        stop.add(ended.set)
        all_wait.wait(10)
        woken.append(ended.wait(10))
        stop.raise_if_set()

    def interrupt() -> None:
        all_wait.wait(10)
        time.sleep(0.3)  # until all five are handed over
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=interrupt)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        run_all([wait_for_a_device] * 5, 2, stop)
    pressing.join()
    assert woken == [True, True]


def test_a_turn_that_comes_after_a_stop_is_none() -> None:
    host = HostWork()
    host.stop.set()
    with pytest.raises(Interrupted), host.turn():
        raise AssertionError("it was given")
