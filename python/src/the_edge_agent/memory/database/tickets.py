"""Tickets limit the number of connections: a thread that holds a ticket may have one.

A ticket may be lost together with the stack frame that held it. Then a new one replaces it.
"""

from __future__ import annotations

import gc
import time
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final
from weakref import ref

from the_edge_agent.memory.core.cancelling import is_stopped
from the_edge_agent.memory.core.results import interrupts

_CHECK_INTERVAL: Final = 0.1  # seconds between two searches for lost tickets, while a thread waits for one


class Ticket:
    """The right to have one connection, as long as this object is alive and was not given back."""

    __slots__ = ("__weakref__", "place")

    def __init__(self, place: int) -> None:
        """Make the ticket with this number."""
        self.place = place


class Tickets:
    """A fixed number of tickets.

    An exception such as KeyboardInterrupt can come at any moment, even inside a ``finally``. A counter could be left
    wrong by it, so there is none. A ticket is free, or something refers to it, or it is lost.
    """

    def __init__(self, count: int) -> None:
        """Make ``count`` tickets."""
        self._free: SimpleQueue[Ticket] = SimpleQueue()  # its methods are written in C: no interrupt comes inside them
        self._lock = Lock()
        self._issued = [ref(Ticket(place)) for place in range(count)]
        self._interrupts = interrupts.count
        self._waits: dict[object, None] = {}  # one for each thread that waits; its methods are atomic
        self._renew()

    def take_free(self) -> Ticket | None:
        """Return a ticket, or None if none is free now."""
        try:
            return self._free.get_nowait()
        except Empty:
            return None

    def take(self, seconds: float) -> Ticket | None:
        """Return a ticket, or None if none becomes free within ``seconds`` or the call is cancelled."""
        ticket = self.take_free()
        if ticket is not None:
            return ticket
        wait = object()
        self._waits[wait] = None
        try:
            return self._wait_for_one(seconds)
        finally:
            self._waits.pop(wait, None)

    def _wait_for_one(self, seconds: float) -> Ticket | None:
        end = time.monotonic() + seconds
        while True:
            if self._interrupts != interrupts.count:
                self._interrupts = interrupts.count
                gc.collect()  # a reference cycle that an interrupt has left may hold a lost ticket
            self._renew()
            remaining = end - time.monotonic()
            try:
                return self._free.get(timeout=max(0.0, min(_CHECK_INTERVAL, remaining)))
            except Empty:
                if remaining <= 0 or is_stopped():
                    return None

    def give_back(self, ticket: Ticket) -> None:
        """Make the ticket free again, unless it was lost and replaced. The caller must not use it any more."""
        if self._issued[ticket.place]() is not ticket:
            return  # the garbage collector may find a connection, and so its ticket
        # A new one, because an error that is in a reference cycle may have a frame that refers to this one.
        new = Ticket(ticket.place)
        self._issued[new.place] = ref(new)
        self._free.put(new)

    def waiting(self) -> int:
        """Return how many threads wait for a ticket."""
        return len(self._waits)

    def taken(self) -> int:
        """Return how many tickets are held."""
        return sum(ticket() is not None for ticket in self._issued) - self._free.qsize()

    def _renew(self) -> None:
        with self._lock:
            for place, issued in enumerate(self._issued):
                if issued() is None:
                    ticket = Ticket(place)
                    self._issued[place] = ref(ticket)
                    self._free.put(ticket)
