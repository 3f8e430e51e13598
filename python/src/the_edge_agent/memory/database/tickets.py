"""Tickets: who holds one may have a connection. A ticket that was lost with the frame that held it is made anew."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final
from weakref import ref

_LOOK: Final = 0.1  # seconds between two looks for lost tickets, while somebody waits for one


class Ticket:
    """The right to have one connection, while this object is alive and not given back."""

    __slots__ = ("__weakref__",)


class Tickets:
    """A fixed number of tickets.

    An exception can come at any moment, also between two lines of a ``finally``: KeyboardInterrupt does. So no count
    is kept, which such an exception would leave wrong. A ticket is free, or somebody refers to it, or it is lost.
    """

    def __init__(self, count: int) -> None:
        """Make that many."""
        self._free: SimpleQueue[Ticket] = SimpleQueue()  # whose methods are C: each is done or not done
        self._lock = Lock()
        self._known = [ref(Ticket()) for _ in range(count)]
        self._renew()

    def take_free(self) -> Ticket | None:
        """Return a ticket, None if none is free now."""
        try:
            return self._free.get_nowait()
        except Empty:
            return None

    def take(self, seconds: float) -> Ticket | None:
        """Return a ticket, None if none became free in this time."""
        ticket = self.take_free()
        if ticket is not None:
            return ticket
        end = time.monotonic() + seconds
        while True:
            self._renew()
            remaining = end - time.monotonic()
            try:
                return self._free.get(timeout=max(0.0, min(_LOOK, remaining)))
            except Empty:
                if remaining <= 0:
                    return None

    def give_back(self, ticket: Ticket) -> None:
        """Let others have the ticket, which the caller must not use again."""
        self._free.put(ticket)

    def taken(self) -> int:
        """Return how many are held."""
        return sum(known() is not None for known in self._known) - self._free.qsize()

    def _renew(self) -> None:
        with self._lock:
            for place, known in enumerate(self._known):
                if known() is None:
                    ticket = Ticket()
                    self._known[place] = ref(ticket)
                    self._free.put(ticket)
