"""Tickets limit the number of connections: a thread that holds a ticket may have one.

A ticket may be lost together with the stack frame that held it. Then a new one replaces it.
"""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final
from weakref import ref

_CHECK_INTERVAL: Final = 0.1  # seconds between two searches for lost tickets, while a thread waits for one


class Ticket:
    """The right to have one connection, as long as this object is alive and was not given back."""

    __slots__ = ("__weakref__",)


class Tickets:
    """A fixed number of tickets.

    An exception such as KeyboardInterrupt can come at any moment, even inside a ``finally``. A counter could be left
    wrong by it, so there is none. A ticket is free, or something refers to it, or it is lost.
    """

    def __init__(self, count: int) -> None:
        """Make ``count`` tickets."""
        self._free: SimpleQueue[Ticket] = SimpleQueue()  # its methods are written in C: no interrupt comes inside them
        self._lock = Lock()
        self._issued = [ref(Ticket()) for _ in range(count)]
        self._renew()

    def take_free(self) -> Ticket | None:
        """Return a ticket, or None if none is free now."""
        try:
            return self._free.get_nowait()
        except Empty:
            return None

    def take(self, seconds: float) -> Ticket | None:
        """Return a ticket, or None if none becomes free within ``seconds``."""
        ticket = self.take_free()
        if ticket is not None:
            return ticket
        end = time.monotonic() + seconds
        while True:
            self._renew()
            remaining = end - time.monotonic()
            try:
                return self._free.get(timeout=max(0.0, min(_CHECK_INTERVAL, remaining)))
            except Empty:
                if remaining <= 0:
                    return None

    def give_back(self, ticket: Ticket) -> None:
        """Make the ticket free again. The caller must not use it any more."""
        self._free.put(ticket)

    def taken(self) -> int:
        """Return how many tickets are held."""
        return sum(ticket() is not None for ticket in self._issued) - self._free.qsize()

    def _renew(self) -> None:
        with self._lock:
            for place, issued in enumerate(self._issued):
                if issued() is None:
                    ticket = Ticket()
                    self._issued[place] = ref(ticket)
                    self._free.put(ticket)
