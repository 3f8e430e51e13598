"""Raises exceptions in a thread, from another thread, at random moments of its calls."""

from __future__ import annotations

import ctypes
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any


class TornOutError(BaseException):
    """An exception that another thread raises in this one, at any moment."""


def torn_out(calls: list[Callable[[], object]], times: int, moments: random.Random) -> None:
    """Run calls in a thread, again and again, and raise ``times`` exceptions in it at random moments."""
    received = 0
    unexpected: list[BaseException] = []
    is_over = False

    def run() -> None:
        while not is_over:
            moments_of_calls.choice(calls)()

    def survive() -> None:
        nonlocal received
        while not is_over:
            try:
                run()
            except (TornOutError, KeyboardInterrupt):
                received += 1
            except BaseException as error:
                unexpected.append(error)
                return

    moments_of_calls = random.Random(moments.random())
    thread = threading.Thread(target=survive)
    thread.start()
    raising = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for number in range(times):
        time.sleep(moments.uniform(0, 0.004))  # the tests need random moments, so this is not a condition
        kind = KeyboardInterrupt if number % 3 == 0 else TornOutError
        begun = time.monotonic()
        while (
            received <= number
        ):  # Python loses an exception that comes during a garbage collection, so it is raised again
            raising(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(kind))
            again = time.monotonic() + 1
            while received <= number and time.monotonic() < again:
                assert not unexpected, repr(unexpected)
                time.sleep(0.0005)
            if time.monotonic() - begun > 20:
                where = "".join(traceback.format_stack(sys._current_frames()[thread.ident or 0]))
                raise AssertionError(f"the thread hangs:\n{where}")
    is_over = True
    thread.join(30)
    assert not unexpected, repr(unexpected)
    assert not thread.is_alive()


def at_once(call: Callable[[], Any], count: int) -> list[Any]:
    """Run a call in ``count`` threads at the same time, five times in each; return all answers."""
    answers: list[Any] = []
    together = threading.Barrier(count)

    def run() -> None:
        together.wait(10)
        answers.extend(call() for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers
