"""An engine of the caller: it is used, shared and left unchanged; it is refused if data would be lost."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from databases import Database
from engines import CANARY, own_dialect, refused
from the_edge_agent.memory import LTMError, PostgresBackend, PostgresCatalog, SQLAlchemyBackend


def listeners(engine: Engine) -> list[int]:
    """Return how many listen to each event of an engine and its pool."""
    names = ["begin", "commit", "before_cursor_execute", "after_cursor_execute", "engine_connect"]
    found = [len(getattr(engine.dispatch, name)) for name in names]
    return found + [len(getattr(engine.pool.dispatch, name)) for name in ("connect", "checkout", "checkin", "reset")]


@own_dialect
def test_a_callers_engine_is_used_shared_and_left_as_it_was(engine: Engine, database: Database) -> None:
    with engine.connect() as connection:
        before, pool = listeners(engine), engine.pool
        journal = (
            connection.exec_driver_sql("PRAGMA journal_mode").scalar() if engine.dialect.name == "sqlite" else None
        )
    with SQLAlchemyBackend(engine=engine) as backend, SQLAlchemyBackend(engine=engine) as other:
        assert backend._engine is engine
        assert backend.store("k", {"a": 1.0}, {"n": 1})["created"] is True
        assert other.search("a", {"n": 1})["results"] == backend.search("a", {"n": 1})["results"]
        assert [result["version"] for result in other.store_many([{"key": "k", "value": 2}])["results"]] == [2]
        assert other.store("k", 3, if_version=1)["error_type"] == "conflict"
    assert (listeners(engine), engine.pool) == (before, pool)
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    assert backend.retrieve("k")["error_type"] == "connection_error"
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ltm_entries")) == 1
        if journal:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == journal
    with database.open() as backend:
        assert backend.retrieve("k")["value"] == 2


@own_dialect
@pytest.mark.parametrize("where", ["create_engine", "execution_options"])
def test_on_an_engine_that_commits_each_statement_a_call_is_one_transaction_still(
    database: Database, where: str
) -> None:
    committing = {"isolation_level": "AUTOCOMMIT"}
    made = create_engine(database.url, **(committing if where == "create_engine" else {}))
    engine = made if where == "create_engine" else made.execution_options(**committing)

    with SQLAlchemyBackend(engine=engine) as backend:
        backend.store("there", 1)
        transaction = backend.transaction()
        transaction.store("a", 1)
        transaction.store("there", 2, if_version=7)
        assert transaction.commit()["error_type"] == "conflict"
        assert backend.list_keys()["keys"] == ["there"]
        assert backend.search("there")["count"] == 1
        assert backend._engine is engine
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM ltm_entries"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ltm_entries")) == 0, "the engine itself commits as before"
    made.dispose()


def test_url_and_engine_exclude_each_other_and_one_is_needed() -> None:
    engine = create_engine("sqlite://")
    for options in ({}, {"url": "sqlite://", "engine": engine}):
        assert "one of url and engine" in refused(**options)
    with engine.connect() as connection:
        for wrong in ("sqlite://", connection, 1):
            assert "engine must be a SQLAlchemy Engine" in refused(engine=wrong)
    engine.dispose()


def test_what_is_no_pool_class_and_no_port_is_refused() -> None:
    assert "engine cannot be created" in refused(url="sqlite://", engine_args={"poolclass": 5})
    for scheme in ("postgresql", "mysql"):
        for port in (0, 65_536, 99_999):
            assert "port" in refused(url=f"{scheme}://user:secret@127.0.0.1:{port}/x", lazy=True)


@pytest.mark.parametrize(
    "option",
    [
        {"pool_size": 7},
        {"max_overflow": 0},
        {"pool_timeout": 1},
        {"connect_timeout": 1},
        {"echo": True},
        {"engine_args": {"pool_recycle": 1}},
        {"connect_args": {"timeout": 1}},
    ],
    ids=lambda option: next(iter(option)),
)
def test_with_an_engine_its_own_options_are_refused(option: dict[str, Any]) -> None:
    message = refused(engine=create_engine("sqlite://"), lazy=True, **option)
    assert next(iter(option)) in message


@own_dialect
@pytest.mark.parametrize("how", ["connect_args", "listener"])
def test_a_driver_that_commits_each_statement_is_refused(database: Database, how: str) -> None:
    if database.target.family == "sqlite" and sys.version_info < (3, 12):
        return  # its option is newer
    engine = create_engine(database.url, connect_args={"autocommit": True} if how == "connect_args" else {})
    if how == "listener":

        @event.listens_for(engine, "connect")
        def commit_alone(driver_connection: Any, record: Any) -> None:
            if callable(getattr(driver_connection, "autocommit", None)):
                driver_connection.autocommit(True)
            else:
                driver_connection.autocommit = True

    assert "autocommit" in refused(engine=engine)
    engine.dispose()
    if how == "connect_args" and database.target.family == "postgresql":
        assert "autocommit" in refused(url=database.url, connect_args={"autocommit": True})


@own_dialect
def test_a_transaction_of_the_application_on_the_only_connection_is_left_alone(database: Database) -> None:
    engine = create_engine(database.url, poolclass=StaticPool)
    with SQLAlchemyBackend(engine=engine) as backend:
        assert backend.store("k", 1)["created"] is True
        with engine.connect() as connection:
            connection.execute(text("UPDATE ltm_entries SET version = 7"))
            result = backend.store("k", 2)
            connection.rollback()
        assert result["error_type"] == "configuration_error"
        assert "in a transaction" in result["error"]
        assert backend.store("k", 2)["version"] == 2
    engine.dispose()


@own_dialect
@pytest.mark.parametrize(
    "options", [{"stream_results": True}, {"yield_per": 1}], ids=lambda options: next(iter(options))
)
def test_an_engine_that_streams_results_serves_too(database: Database, options: dict[str, Any]) -> None:
    engine = create_engine(database.url, execution_options=options)
    with SQLAlchemyBackend(engine=engine) as backend:
        assert backend.store("k", "fox", {"n": [1]})["created"] is True
        assert backend.store_many([{"key": "k", "value": "fox"}, {"key": "l", "value": "fox"}])["stored_count"] == 2
        assert backend.search("fox", {"n": None})["count"] == 2
        assert len(list(backend.iterate_all())) == 2
    engine.dispose()


@own_dialect
def test_an_engine_without_insertmanyvalues_serves_too(database: Database) -> None:
    engine = create_engine(database.url, use_insertmanyvalues=False)
    with SQLAlchemyBackend(engine=engine) as backend:
        entries = [{"key": key, "value": 1} for key in ("b", "a", "b")]
        results = backend.store_many(entries)["results"]
        assert [(result["key"], result["version"]) for result in results] == [("b", 1), ("a", 1), ("b", 2)]
    engine.dispose()
    assert "use_insertmanyvalues" in refused(url=database.url, engine_args={"use_insertmanyvalues": False})


@pytest.mark.targets(family="sqlite", portable=False, in_memory=False)
def test_the_busy_timeout_of_a_callers_connections_stays(engine: Engine) -> None:
    with engine.connect() as connection:
        before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    with SQLAlchemyBackend(engine=engine) as backend:
        backend.store("k", 1)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == before


@pytest.mark.targets(family="postgresql", portable=False)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_session_in_which_text_would_be_lost_is_refused_and_of_our_own_engine_set_right(
    database: Database, driver: str
) -> None:
    url = make_url(database.url).set(drivername=f"postgresql+{driver}")
    latin = {"options": "-c client_encoding=LATIN1"}
    engine = create_engine(url, connect_args=latin)
    message = refused(engine=engine)
    engine.dispose()
    assert "LATIN1" in message
    assert "client_encoding" in message
    with SQLAlchemyBackend(url, connect_args=latin) as backend:
        assert backend.store("k", "😀")["created"] is True
        assert backend.retrieve("k")["value"] == "😀"


@pytest.mark.targets(family="postgresql", portable=False)
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(engine: Engine, encoding: str) -> None:
    name = f"tea_test_encoding_{secrets.token_hex(4)}"
    administration = engine.execution_options(isolation_level="AUTOCOMMIT")
    with administration.connect() as connection:
        options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    try:
        for driver in ("psycopg", "psycopg2"):
            url = engine.url.set(database=name, drivername=f"postgresql+{driver}")
            callers = create_engine(url)
            messages = [refused(url=url), refused(engine=callers)]
            callers.dispose()
            assert all(f"UTF8, not {encoding}" in message for message in messages), messages
        for native in (PostgresBackend, PostgresCatalog):
            with pytest.raises(LTMError, match=f"UTF8, not {encoding}") as raised:
                native(url.set(drivername="postgresql").render_as_string(hide_password=False))
            assert raised.value.error_type == "configuration_error"
    finally:
        with administration.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@own_dialect
def test_a_refused_statement_of_a_callers_engine_shows_no_value(database: Database, engine: Engine) -> None:
    with SQLAlchemyBackend(engine=engine) as backend:

        def fail(*arguments: Any) -> None:
            raise OperationalError("", {"canary": CANARY}, Exception(CANARY))

        event.listen(engine, "before_cursor_execute", fail)
        result = backend.store("k", CANARY)
        event.remove(engine, "before_cursor_execute", fail)
        assert result["error_type"] == "query_error"
        assert CANARY not in str(result)


# --- settings of SQLAlchemy -----------------------------------------------------------------------------


def check_that_it_works(engine: Engine) -> None:
    with SQLAlchemyBackend(engine=engine, catalog="sqlalchemy") as backend:
        entries = [{"key": f"k{n}", "value": {"text": f"red fox {n}", "n": n}, "metadata": {"n": n}} for n in range(5)]
        assert backend.store_many(entries)["success"] is True
        assert backend.store("k0", {"text": "red dog", "n": 7}, {"n": 7}, ttl=3600)["version"] == 2
        assert backend.store("k0", 1, if_version=1)["error_type"] == "conflict"
        assert [found["key"] for found in backend.search("fox", {"n": {"$gte": 3}}, match="all")["results"]] == [
            "k3",
            "k4",
        ]
        assert backend.search("dog -fox")["count"] == 1
        assert [key for key, _, _ in backend.iterate_all("k")] == [f"k{n}" for n in range(5)]
        catalog: Any = backend.catalog
        snapshot = catalog.create_snapshot("s")
        assert backend.delete_many(["k1", "k2"])["success"] is True
        assert [gone["key"] for gone in catalog.get_deleted_entries(snapshot)] == ["k1", "k2"]
        assert catalog.get_snapshot(snapshot)["entry_count"] == 5
        assert [entry["key"] for entry in catalog.list_entries("k", {"n": 7})] == ["k0"]
        assert backend.cleanup_expired() == {"success": True, "deleted_count": 0, "remaining_count": 0}
        assert backend.optimize()["success"] is True
    engine.dispose()


@own_dialect
def test_short_labels_change_nothing(database: Database) -> None:
    check_that_it_works(create_engine(database.url, label_length=8))


@pytest.mark.targets(family="sqlite", portable=False, in_memory=False)
@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
def test_an_engine_of_sqlite_whose_listeners_begin_the_transactions_works(database: Database, begin: str) -> None:
    engine = create_engine(database.url)  # the recipe of SQLAlchemy's documentation

    @event.listens_for(engine, "connect")
    def connected(driver_connection: Any, record: Any) -> None:
        driver_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    check_that_it_works(engine)


@own_dialect
def test_tables_of_another_schema_and_numbered_parameters_are_refused_by_name(database: Database) -> None:
    engine = create_engine(database.url)
    there = {None: "another", "shop": "shop_of_somebody"}
    assert "schema_translate_map" in refused(engine=engine.execution_options(schema_translate_map=there))
    harmless = {"shop": "another", None: inspect(engine).default_schema_name}
    with SQLAlchemyBackend(engine=engine.execution_options(schema_translate_map=harmless)) as backend:
        assert backend.store("k", 1)["success"] is True
        assert backend.retrieve("k")["value"] == 1
    engine.dispose()
    made: Any = create_engine("sqlite://", paramstyle="numeric")
    assert "paramstyle" in refused(engine=made)
