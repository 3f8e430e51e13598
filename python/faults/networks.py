"""Faults of servers and networks: killed servers and connections, replies that are lost, networks that stall."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from faults.connections import Proxy, kill_connections
from faults.figures import Figures, Writer, patient
from faults.processes import write_all
from faults.targets import Target

_WRITERS = ("store", "store", "if_version", "batch")
_READY = 60.0  # seconds that a server may take to come back


@contextmanager
def writing(target: Target, figures: Figures, count: int, **options: Any) -> Iterator[list[Writer]]:
    """Let so many writers write at the same time as the block runs; look at what is there in the end."""
    with target.open(pool_size=count, **options) as memory:
        kinds = [_WRITERS[number % len(_WRITERS)] for number in range(count)]
        writers = [Writer(memory, f"w{number}", figures, kind=kind) for number, kind in enumerate(kinds)]
        is_over = threading.Event()
        thread = threading.Thread(target=write_all, args=(writers, is_over))
        thread.start()
        try:
            yield writers
        finally:
            is_over.set()
            thread.join()
        for writer in writers:
            writer.look()


def kill_servers(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F2: kill the server under twelve writers, which is started again; the first success comes soon after.

    Failures reach the callers while there is no server. ``late`` is the time from its being ready to the first success.
    """
    moments = random.Random(seed)
    with writing(target, figures, 12) as writers:
        for _ in range(rounds):
            time.sleep(moments.uniform(0.3, 1.5))
            target.kill()
            figures.add(faults=1)
            ready = _wait_until_ready(target)
            before = sum(writer.version for writer in writers)
            while sum(writer.version for writer in writers) <= before and time.monotonic() - ready < _READY:
                time.sleep(0.01)
            figures.add(late=time.monotonic() - ready - 1)  # two seconds are allowed


def _wait_until_ready(target: Target) -> float:
    end = time.monotonic() + _READY
    engine = create_engine(target.url, poolclass=NullPool)
    while time.monotonic() < end:
        try:
            with engine.connect():
                return time.monotonic()
        except DBAPIError:
            time.sleep(0.02)
    raise RuntimeError("the server does not come back")


def kill_sessions(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F3: end every connection on the server, again and again, under eight writers."""
    moments = random.Random(seed)
    with writing(target, figures, 8):
        while figures.faults < rounds:
            figures.add(faults=kill_connections(target))
            time.sleep(moments.uniform(0, 0.1))


def lose_replies(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F4: cut the connection before or after a request to the server, at any statement, COMMIT included."""
    moments = random.Random(seed)
    with Proxy(target.url) as proxy, target.open(url=proxy.url, pool_size=1) as memory, target.open() as direct:
        patient(memory.count)
        writers = [
            Writer(_Behind(memory, direct), f"{kind}{place}", figures, kind=kind)
            for place, kind in enumerate(("store", "if_version", "batch"))
        ]
        for _ in range(rounds):
            writer = moments.choice(writers)
            proxy.skip = moments.randrange(4)
            proxy.cut = "request" if moments.random() < 0.5 else "reply"
            writer.write()
            figures.add(faults=int(proxy.cut is None))
            proxy.cut = None
        for writer in writers:
            writer.look()


class _Behind:
    """A memory that writes behind a proxy, and reads beside it."""

    def __init__(self, memory: Any, direct: Any) -> None:
        self.store, self.store_many, self.retrieve = memory.store, memory.store_many, direct.retrieve


def stall(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F4: let the network fall silent in the middle of calls; each ends at its deadline, and the memory works on."""
    timeout = 2.0
    with (
        Proxy(target.url) as proxy,
        target.open(url=proxy.url, timeout=timeout, pool_size=4, lazy=True) as memory,
        target.open() as direct,
    ):
        patient(memory.count)
        for number in range(rounds):
            writer = Writer(_Behind(memory, direct), f"stalled{number}", figures, timeout=timeout)
            patient(memory.count)
            proxy.silent.set()
            writer.write()
            proxy.silent.clear()
            figures.add(faults=1)
            begun = time.monotonic()
            patient(memory.count)
            figures.add(late=time.monotonic() - begun - 2 * timeout)
    figures.reached = 0  # to fail is what these calls must do
