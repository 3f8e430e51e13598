"""What the socket of a database connection tells, and how to shut it down."""

from __future__ import annotations

import select
import socket


def has_ended(descriptor: int) -> bool:
    """Return whether an idle connection's socket has something to read: the server's farewell, or its end.

    A database server sends nothing unasked to a living connection, but for rare notices: to take a living connection
    for a dead one costs one new connection. Costs no round trip. Always false for -1.
    """
    if descriptor < 0:
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


def shut_down(descriptor: int) -> None:
    """Shut a socket down, which wakes the thread that waits for it; the owner still closes it."""
    if descriptor < 0:
        return
    borrowed = socket.socket(fileno=descriptor)
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
        borrowed.detach()
