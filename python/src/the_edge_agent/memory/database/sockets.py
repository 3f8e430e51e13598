"""Test the socket of a database connection, and shut it down."""

from __future__ import annotations

import select
import socket


def has_ended(descriptor: int) -> bool:
    """Return whether the server has probably ended an idle connection: its socket has something to read.

    A server sends nothing to an idle connection, except rare notices and the message or signal that the connection
    ends. If a notice makes a live connection look dead, this costs one new connection. The test sends nothing to the
    server. It is false for a descriptor of -1.
    """
    if descriptor < 0:
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


def shut_down(descriptor: int) -> None:
    """Shut a socket down. This wakes a thread that waits for it. The owner must still close the socket."""
    if descriptor < 0:
        return
    borrowed = socket.socket(fileno=descriptor)
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
        borrowed.detach()
