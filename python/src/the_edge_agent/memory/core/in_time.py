"""Work that nothing else bounds, such as the look-up of a host's name, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")


class LateError(Exception):
    """The time is over."""


def call_in_time(work: Callable[[], Answer], *, seconds: float, undo: Callable[[Answer], object]) -> Answer:
    """Return the answer of ``work``, which runs in a thread of its own; undo one that nobody waits for any more.

    ``work`` and what it refers to stay alive until it has returned, also when an exception such as KeyboardInterrupt
    ends the wait. No reference cycle holds an answer, so that a connection is closed at the latest when it is dropped.

    Raises:
        LateError: it took longer than that many seconds.
    """
    answers: SimpleQueue[tuple[Answer]] = SimpleQueue()
    errors: SimpleQueue[BaseException | None] = SimpleQueue()
    is_abandoned = threading.Event()

    def run() -> None:
        try:
            answers.put((work(),))
        except BaseException as error:  # raised where it is waited for
            errors.put(error)
        else:
            errors.put(None)
        if is_abandoned.is_set():
            undo_answer()

    def undo_answer() -> None:
        try:
            (answer,) = answers.get_nowait()  # which only one of the two threads gets
        except Empty:
            return
        undo(answer)

    try:
        threading.Thread(target=run, daemon=True, name="the-edge-agent connecting").start()
        error = errors.get(timeout=max(0.0, seconds))
    except BaseException as reason:
        is_abandoned.set()
        undo_answer()
        if isinstance(reason, Empty):
            raise LateError from None
        raise
    if error is not None:
        raise error
    return answers.get_nowait()[0]
