"""Behaviour of other libraries that we use although they do not promise it: a test fails if a library changes it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from databases import Database, Target
from the_edge_agent.memory.postgres.pool import ENDS_A_PIPELINE
from the_edge_agent.memory.sql.dialects import for_dialect
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.pool import CallPool


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    engine = create_engine(f"sqlite:///{tmp_path}/internals.db", poolclass=CallPool, isolation_level="SERIALIZABLE")
    yield engine
    engine.dispose()


def do_nothing(*arguments: Any) -> None:
    pass


@pytest.mark.parametrize(
    "name", ["before_cursor_execute", "after_cursor_execute", "before_execute", "after_execute", "engine_connect"]
)
def test_an_engine_knows_whether_somebody_listens(engine: Engine, name: str) -> None:
    assert not internals.has_events(engine)
    event.listen(engine, name, do_nothing)
    assert internals.has_events(engine)


def test_an_engine_knows_of_listeners_of_all_engines(engine: Engine) -> None:
    event.listen(Engine, "after_execute", do_nothing)
    try:
        assert internals.has_events(engine)
    finally:
        event.remove(Engine, "after_execute", do_nothing)
        Engine._has_events = False


def test_an_engine_knows_whether_it_logs(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert not internals.logs_statements(engine)
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine.Engine"):
        logged = create_engine("sqlite://")
        assert internals.logs_statements(logged)


def test_the_isolation_level_of_an_engine_is_known(engine: Engine) -> None:
    assert internals.isolation_level_of(engine) == "SERIALIZABLE"
    assert internals.isolation_level_of(create_engine("sqlite://")) is None


def test_a_copy_with_execution_options_knows_its_engine(engine: Engine) -> None:
    copy = engine.execution_options(stream_results=True)
    other = create_engine("sqlite://")
    assert internals.parent_of(engine) is None
    assert internals.parent_of(copy) is engine
    internals.set_parent(copy, other)
    assert copy.pool is other.pool


def test_connections_older_than_a_lost_one_are_not_used_again(engine: Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        older = [each.connection.driver_connection for each in (first, second)]
    lost = engine.raw_connection()
    internals.invalidate_older(engine.pool, lost, RuntimeError("lost"))
    assert not lost.is_valid
    lost.close()
    with engine.connect() as first, engine.connect() as second:
        newer = [each.connection.driver_connection for each in (first, second)]
    assert not any(connection is another for connection in newer for another in older)


@pytest.mark.parametrize("name", ["checkout", "reset"])
def test_a_pool_with_such_listeners_needs_its_proxy(engine: Engine, name: str) -> None:
    assert not internals.needs_proxy(engine.pool)
    event.listen(engine, name, do_nothing)
    assert internals.needs_proxy(engine.pool)


def test_a_pool_that_pings_needs_its_proxy() -> None:
    pinging = create_engine("sqlite:///:memory:", poolclass=QueuePool, pool_pre_ping=True)
    assert internals.needs_proxy(pinging.pool)


class TestALoan:
    """A connection that one statement has without SQLAlchemy's proxy."""

    def test_is_a_connection_that_was_idle(self, engine: Engine) -> None:
        pool: Any = engine.pool
        assert pool.loan() is None
        with engine.connect() as connection:
            driver_connection = connection.connection.driver_connection
        loan = pool.loan()
        assert loan.driver_connection is driver_connection
        assert (pool.checkedout(), pool.checkedin()) == (1, 0)
        loan.close()
        assert (pool.checkedout(), pool.checkedin()) == (0, 1)

    def test_tells_the_listeners_that_it_comes_back(self, engine: Engine) -> None:
        told: list[Any] = []
        event.listen(engine, "checkin", lambda driver_connection, record: told.append(driver_connection))
        engine.connect().close()
        pool: Any = engine.pool
        loan = pool.loan()
        driver_connection = loan.driver_connection
        loan.close()
        assert told == [driver_connection, driver_connection]

    def test_goes_back_when_it_is_forgotten(self, engine: Engine) -> None:
        engine.connect().close()
        pool: Any = engine.pool
        assert pool.loan().is_valid
        assert (pool.checkedout(), pool.checkedin()) == (0, 1)

    def test_that_was_given_up_is_another_connection_the_next_time(self, engine: Engine) -> None:
        engine.connect().close()
        pool: Any = engine.pool
        loan = pool.loan()
        lost = loan.driver_connection
        loan.invalidate(RuntimeError("lost"))
        assert not loan.is_valid
        loan.close()
        again = pool.loan()
        assert again.driver_connection is not lost
        again.close()


@pytest.mark.targets("other", in_memory=False)
def test_the_socket_of_each_driver_is_found(database: Database, target: Target) -> None:
    memory: Any
    with database.open() as memory, memory._engine.connect() as connection:
        dialect_class = for_dialect(connection.dialect)
        socket = dialect_class.sessions.socket_of(connection.connection.driver_connection)
        assert (socket > 0) == (connection.dialect.driver in dialect_class.features.socket_drivers)


@pytest.mark.targets("other", family="duckdb")
def test_a_transaction_of_duckdb_is_known(database: Database) -> None:
    memory: Any
    with database.open() as memory, memory._engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        assert not internals.is_in_transaction_of_duckdb(driver_connection)
        driver_connection.begin()
        assert internals.is_in_transaction_of_duckdb(driver_connection)
        driver_connection.rollback()


@pytest.mark.targets(of_mysql=True)
def test_connections_of_pymysql_share_what_they_use_for_tls(database: Database) -> None:
    memory: Any
    with database.open() as memory, memory._engine.connect() as connection:
        encrypted = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1] != ""
    contexts = []
    for _ in range(2):
        with database.open() as memory:
            memory.count()
            with memory._engine.connect() as connection:
                driver_connection = connection.connection.driver_connection
                contexts.append(driver_connection.ctx)
                assert connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1] != "" or not encrypted
    assert contexts[0] is contexts[1]


def test_psycopg_ends_a_pipeline_with_a_generator_of_this_name() -> None:
    assert hasattr(psycopg.Pipeline, ENDS_A_PIPELINE)
