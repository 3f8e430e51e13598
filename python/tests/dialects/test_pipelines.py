"""A connection that is lost while many rows are sent: psycopg logs none of our data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import make_url

from databases import Database
from faults.connections import Proxy
from the_edge_agent.memory import PostgresBackend

pytestmark = pytest.mark.targets("native", family="postgresql", portable=False)

CATALOGS = {False: "sqlalchemy", True: "postgres"}
ENDS_THE_SESSION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.key = 'k7' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()
"""


@pytest.fixture(params=["ltm_entries", "ltm_catalog"])
def ending(database: Database, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table whose eighth row ends the session that writes it."""
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with database.open(catalog=CATALOGS[database.target.native]) as memory:
        memory.store("first", 1)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(ENDS_THE_SESSION.format(name="tea_ends", table=request.param))
        yield request.param
        connection.execute("DROP FUNCTION tea_ends CASCADE")


def test_nothing_is_logged_of_what_the_result_says(
    database: Database, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = database.open(catalog=CATALOGS[database.target.native], timeout=1)
    with opened as memory, caplog.at_level(logging.WARNING):
        result = memory.store_many([{"key": f"k{number}", "value": number} for number in range(20)])
    assert not result["success"]
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.targets(native=True)
def test_nor_of_a_call_that_ends_at_its_timeout(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with Proxy(database.url) as proxy, PostgresBackend(proxy.url, timeout=1) as memory:
        for _ in range(5):
            memory.count()
        proxy.silent.set()
        with caplog.at_level(logging.WARNING):
            result = memory.store_many([{"key": f"k{number}", "value": "x" * 2_000} for number in range(400)])
    assert result["error_type"] == "connection_timeout"
    assert [record.getMessage() for record in caplog.records] == []


def test_psycopg_logs_what_becomes_of_connections_of_the_application(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with database.open(), closing(psycopg.connect(url)) as connection, caplog.at_level(logging.WARNING):
        connection.execute("SELECT 1")
        with pytest.raises(ZeroDivisionError):
            lose_in_a_pipeline(connection)
    assert {record.name for record in caplog.records} == {"psycopg"}


def lose_in_a_pipeline(connection: psycopg.Connection[object]) -> None:
    with connection.pipeline():
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        raise ZeroDivisionError
