"""Faults of servers and networks: killed servers and connections, lost replies, silent networks."""

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
    """Let ``count`` writers write while the block runs; then check what the database has."""
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
    """F2: twelve writers write; kill the server, which is started again. Soon after that a write must succeed.

    Failures may reach the callers while there is no server. ``late`` is based on the time from the moment when the
    server is ready again to the first success.
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
            # Two seconds are allowed: one is subtracted here, and `late` may be up to one second.
            figures.add(late=time.monotonic() - ready - 1)


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
    """F3: eight writers write; end every connection on the server, again and again."""
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
            Writer(_WritesThroughProxy(memory, direct), f"{kind}{number}", figures, kind=kind)
            for number, kind in enumerate(("store", "if_version", "batch"))
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


class _WritesThroughProxy:
    """Writes with a memory that uses the proxy, and reads with one that is connected directly."""

    def __init__(self, memory: Any, direct: Any) -> None:
        self.store, self.store_many, self.retrieve = memory.store, memory.store_many, direct.retrieve


def stall(target: Target, figures: Figures, rounds: int, seed: int) -> None:
    """F4s: let the network fall silent during calls. Each call must end at its deadline; later calls must succeed."""
    timeout = 2.0
    with (
        Proxy(target.url) as proxy,
        target.open(url=proxy.url, timeout=timeout, pool_size=4, lazy=True) as memory,
        target.open() as direct,
    ):
        patient(memory.count)
        for number in range(rounds):
            writer = Writer(_WritesThroughProxy(memory, direct), f"stalled{number}", figures, timeout=timeout)
            patient(memory.count)
            proxy.silent.set()
            writer.write()
            proxy.silent.clear()
            figures.add(faults=1)
            begun = time.monotonic()
            patient(memory.count)
            figures.add(late=time.monotonic() - begun - 2 * timeout)
    figures.reached = 0  # these calls must fail, so their failures are not counted
