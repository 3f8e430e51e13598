"""Work that nothing else bounds, such as the look-up of a host's name, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")


class LateError(Exception):
    """The time is over."""


def call_in_time(work: Callable[[], Answer], *, seconds: float, undo: Callable[[Answer], object]) -> Answer:
    """Return the answer of ``work``, which runs in a thread of its own; undo one that comes too late.

    Raises:
        LateError: it took longer than that many seconds.
    """
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            answer = work()
        except BaseException as error:  # raised where it is waited for
            with suppress(InvalidStateError):
                outcome.set_exception(error)
            return
        try:
            outcome.set_result(answer)
        except InvalidStateError:
            undo(answer)

    threading.Thread(target=run, daemon=True, name="the-edge-agent connecting").start()
    wait([outcome], max(0.0, seconds))
    if outcome.cancel():
        raise LateError
    return outcome.result()
