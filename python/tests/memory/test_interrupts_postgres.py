"""Exceptions at any moment, such as KeyboardInterrupt, on servers: each connection is returned or closed."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from databases import Database
from interrupts import at_once, torn_out
from run_length import SEED, of_this_run
from the_edge_agent.memory.core.results import interrupts
from the_edge_agent.memory.database.tickets import Tickets

INTERRUPTS = of_this_run(15, 1000)  # of each class
CONNECTIONS = 3


def sessions(url: str) -> int:
    """Return how many sessions of others the server has for the database."""
    engine = create_engine(make_url(url), poolclass=NullPool)
    of_postgresql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    of_mysql = (
        "SELECT count(*) FROM performance_schema.threads "
        "WHERE processlist_db = database() AND processlist_id <> connection_id()"
    )
    of_mariadb = "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
    with engine.connect() as connection:
        of_others = of_mariadb if getattr(engine.dialect, "is_mariadb", False) else of_mysql
        return int(connection.scalar(text(of_postgresql if engine.dialect.name == "postgresql" else of_others)) or 0)


def in_use(store: Any) -> int:
    """Return how many connections of its pool are in use."""
    if hasattr(store._database, "engine"):
        return int(store._database.engine.pool.checkedout())
    return 0


def options_of(database: Database) -> dict[str, Any]:
    pool = {"pool_size": CONNECTIONS} if database.target.native else {"pool_size": 2, "max_overflow": CONNECTIONS - 2}
    return {**pool, "timeout": 10}


def check(store: Any, call: Callable[[], Any], database: Database, before: int) -> None:
    """Check that all connections that there may be can be had, and that there are no others."""
    gc.collect()
    answers = at_once(call, CONNECTIONS)
    assert len(answers) == 5 * CONNECTIONS
    assert all(answers), answers
    assert in_use(store) == 0
    gc.collect()
    patience = time.monotonic() + 10  # a server notices the end of a session some time later
    while sessions(database.url) - before > CONNECTIONS:
        assert time.monotonic() < patience
        time.sleep(0.01)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_garbage"),
    pytest.mark.targets("native", portable=False, in_memory=False, server=True),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_memory_outlives_exceptions_at_any_moment(database: Database) -> None:
    before = sessions(database.url)
    moments = random.Random(SEED)
    with database.open(**options_of(database)) as memory:
        acknowledged = {f"k{number}": 0 for number in range(4)}

        def store(key: str) -> None:
            result = memory.store(key, "fox", {"n": 1})
            if result["success"]:
                acknowledged[key] = max(acknowledged[key], result["version"])

        def transact() -> None:
            memory.store_many([{"key": "b1", "value": 1}, {"key": "b2", "value": 1}])

        calls: list[Callable[[], object]] = [
            *(lambda key=key: store(key) for key in acknowledged),
            lambda: memory.retrieve("k1"),
            lambda: memory.search("fox", {"n": 1}),
            lambda: list(memory.iterate_all()),
            lambda: memory.store("k2", 1, if_version=0),
            transact,
        ]
        torn_out(calls, INTERRUPTS, moments)
        check(memory, lambda: memory.retrieve("k0")["success"], database, before)
        for key, version in acknowledged.items():
            assert (memory.retrieve(key)["version"] or 0) >= version
        batch = memory.retrieve_many(["b1", "b2"])["entries"].values()
        assert len({entry and entry["version"] for entry in batch}) == 1


def test_a_catalog_outlives_exceptions_at_any_moment(database: Database) -> None:
    before = sessions(database.url)
    moments = random.Random(SEED)
    with database.open_catalog(**options_of(database)) as catalog:
        calls: list[Callable[[], object]] = [
            lambda: catalog.track_entry("k", "h", None, 1, {"a": 1}),
            lambda: catalog.get_entry("k"),
            lambda: catalog.list_entries(metadata_filter={"a": 1}),
            lambda: catalog.delete_entry("k"),
        ]
        torn_out(calls, INTERRUPTS, moments)
        check(catalog, lambda: catalog.list_snapshots() == [], database, before)


@pytest.mark.targets(native=True, family="postgresql")
def test_a_ticket_that_nobody_refers_to_is_made_anew(database: Database) -> None:
    tickets = Tickets(2)
    first, second = tickets.take(0), tickets.take(0)
    assert first is not None
    assert second is not None
    assert (tickets.take(0), tickets.taken()) == (None, 2)
    del second
    assert tickets.taken() == 1
    third = tickets.take(0)
    assert (third is not None, tickets.taken()) == (True, 2)
    tickets.give_back(first)
    del first
    assert tickets.taken() == 1


def test_a_reference_to_a_ticket_that_was_given_back_takes_no_place() -> None:
    tickets = Tickets(1)
    held = tickets.take(0)
    assert held is not None
    tickets.give_back(held)
    lost = tickets.take(0)
    del lost
    assert tickets.taken() == 0
    assert tickets.take(0) is not None


@pytest.mark.targets(native=True, family="postgresql")
def test_a_ticket_that_comes_back_after_it_was_replaced_is_not_used(database: Database) -> None:
    class Holder:
        """As a connection does, it gives its ticket back when the garbage collector finds it in a cycle."""

        def __init__(self, tickets: Tickets) -> None:
            self.tickets, self.ticket, self.itself = tickets, tickets.take(0), self

        def __del__(self) -> None:
            assert self.ticket is not None
            self.tickets.give_back(self.ticket)

    tickets = Tickets(1)
    Holder(tickets)
    gc.collect()
    assert tickets.taken() == 0
    only = tickets.take(0)
    assert (only is not None, tickets.take(0), tickets.taken()) == (True, None, 1)


@pytest.mark.targets(native=True, family="postgresql")
def test_a_ticket_in_a_cycle_that_an_interrupt_has_left_is_found_soon(database: Database) -> None:
    class Frame:
        """As a suspended frame does, it refers to a ticket and to itself."""

        def __init__(self, tickets: Tickets) -> None:
            self.ticket, self.itself = tickets.take(0), self

    tickets = Tickets(1)
    gc.disable()
    try:
        Frame(tickets)
        interrupts.note(KeyboardInterrupt())
        assert tickets.take(0.2) is not None
    finally:
        gc.enable()
