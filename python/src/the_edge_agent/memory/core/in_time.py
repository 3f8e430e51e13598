"""Run work that has no time limit of its own, such as the look-up of a host name, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from the_edge_agent.memory.core import cancelling

Answer = TypeVar("Answer")


class TimedOutError(Exception):
    """The work did not finish in time."""


def call_in_time(work: Callable[[], Answer], *, seconds: float, undo: Callable[[Answer], object]) -> Answer:
    """Run ``work`` in a thread of its own and return its answer.

    If the caller stops waiting (the time is over, or an exception such as KeyboardInterrupt ends the wait), the thread
    runs on. ``work`` and the objects it refers to stay alive until it returns. Its answer is then passed to ``undo``.
    No reference cycle holds an answer, so a connection is closed when its last reference is dropped.

    Args:
        work: the function to run.
        seconds: how long to wait for it.
        undo: called with an answer that nobody waits for, for example to close a connection.

    Raises:
        TimedOutError: ``work`` did not return within ``seconds``.
    """
    answers: SimpleQueue[tuple[Answer]] = SimpleQueue()
    errors: SimpleQueue[BaseException | type[TimedOutError] | None] = SimpleQueue()
    is_abandoned = threading.Event()

    def run() -> None:
        try:
            answers.put((work(),))
        except BaseException as error:  # raised again in the waiting thread
            errors.put(error)
        else:
            errors.put(None)
        if is_abandoned.is_set():
            undo_answer()

    def undo_answer() -> None:
        try:
            (answer,) = answers.get_nowait()  # both threads may try; only one gets the answer
        except Empty:
            return
        undo(answer)

    def stop_waiting() -> None:
        errors.put(TimedOutError)  # no object, whose traceback would refer to this frame, and the frame to it

    try:
        threading.Thread(target=run, daemon=True, name="the-edge-agent connecting").start()
        with cancelling.guarded(stop_waiting):
            error = errors.get(timeout=max(0.0, seconds))
        if error is TimedOutError:
            raise TimedOutError
    except BaseException as reason:
        is_abandoned.set()
        undo_answer()
        if isinstance(reason, Empty):
            raise TimedOutError from None
        raise
    if error is not None:
        raise error
    return answers.get_nowait()[0]
