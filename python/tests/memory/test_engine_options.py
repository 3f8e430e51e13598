"""How a backend gets its engine and tables: options of engine and driver, names, DDL, echo, ORM."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, select, text
from sqlalchemy.pool import NullPool, QueuePool
from typer.testing import CliRunner

from databases import Database
from engines import CANARY, own_dialect, refused
from the_edge_agent.cli.app import app
from the_edge_agent.memory import (
    LTMEntry,
    LTMError,
    PostgresBackend,
    PostgresCatalog,
    SQLAlchemyBackend,
    parse_catalog_config,
    parse_ltm_config,
)
from the_edge_agent.memory.sql.driver.options import MAX_TABLE_NAME

# --- options of engine and driver --------------------------------------------------------------------


@own_dialect
def test_engine_args_reach_the_engine(database: Database) -> None:
    with SQLAlchemyBackend(database.url, engine_args={"pool_recycle": 77, "query_cache_size": 9}) as backend:
        assert isinstance(backend._engine, Engine)
        assert isinstance(backend._engine.pool, QueuePool)
        assert backend._engine.pool._recycle == 77
    with SQLAlchemyBackend(database.url, engine_args={"poolclass": NullPool}) as backend:
        assert isinstance(backend._engine, Engine)
        assert isinstance(backend._engine.pool, NullPool)
        assert backend.store("k", 1)["created"] is True


@own_dialect
def test_connect_args_reach_the_driver(database: Database) -> None:
    arguments, query = {
        "sqlite": ({"isolation_level": "DEFERRED"}, "SELECT 'here'"),
        "postgresql": ({"application_name": "here"}, "SELECT current_setting('application_name')"),
    }.get(database.target.family, ({"init_command": "SET @who = 'here'"}, "SELECT @who"))
    with SQLAlchemyBackend(database.url, connect_args=arguments) as backend:
        assert backend._database.run(lambda connection, _: connection.scalar(text(query))) == "here"


@pytest.mark.parametrize(
    "name", ["url", "echo", "pool_size", "max_overflow", "pool_timeout", "connect_args", "hide_parameters"]
)
def test_engine_args_do_not_replace_what_has_a_name_of_its_own(name: str) -> None:
    assert name in refused(url="sqlite://", lazy=True, engine_args={name: CANARY})


@pytest.mark.parametrize("name", ["engine_args", "connect_args"])
@pytest.mark.parametrize("value", [[], "a=b", 1, {1: 2}])
def test_arguments_that_are_no_mapping_are_refused(name: str, value: Any) -> None:
    assert name in refused(url="sqlite://", lazy=True, **{name: value})


@own_dialect
def test_an_argument_that_engine_or_driver_do_not_know_is_a_configuration_error(database: Database) -> None:
    assert "no_such_option" in refused(url=database.url, engine_args={"no_such_option": CANARY})
    assert CANARY not in refused(url=database.url, connect_args={"no_such_option": CANARY})


# --- tables ------------------------------------------------------------------------------------------


@own_dialect
def test_memories_of_other_table_names_share_a_database_and_nothing_else(database: Database, engine: Engine) -> None:
    with database.open() as usual, database.open(table_name="agent_7") as other:
        usual.store("k", "fox", {"n": 1})
        other.store("k", "hound", {"n": 2}, ttl=60)
        assert other.store("k2", "hound")["created"] is True
        assert usual.search("fox OR hound", match="all")["count"] == usual.search("hound")["count"] == 0
        assert [entry["value"] for entry in usual.search(metadata_filter={"n": {"$gt": 0}})["results"]] == ["fox"]
        assert other.search("hound", {"n": 2})["count"] == 1
        assert (usual.count()["count"], other.count()["count"]) == (1, 2)
    with database.open(table_name="agent_7") as again:
        assert again.list_keys()["keys"] == ["k", "k2"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE agent_7"))
        connection.execute(text("DROP TABLE IF EXISTS agent_7_fts"))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "a b",
            "a;b",
            'a"b',
            "a'b",
            "a`b",
            "a.b",
            "1a",
            "ä",
            "Memory",
            "a\0",
            "x" * (MAX_TABLE_NAME + 1),
            None,
            7,
        ),
        *(
            "ltm_catalog",
            "ltm_settings",
            "ltm_schema_version",
            "sqlite_master",
            "pg_class",
            "ltm_entries_fts",
            "a_fts_data",
            "a_earlier",
        ),
        *("ltm_entries; DROP TABLE ltm_entries", "a--", "a/*"),
    ],
)
def test_a_table_name_that_no_database_reads_alike_is_refused(name: Any) -> None:
    message = refused(url="sqlite://", lazy=True, table_name=name)
    assert "table_name" in message


@own_dialect
def test_the_longest_table_name_works(database: Database, engine: Engine) -> None:
    name = "t" * MAX_TABLE_NAME
    with database.open(table_name=name) as backend:
        backend.store("k", "fox", {"n": 1})
        assert backend.search("fox", {"n": 1})["count"] == 1
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text(f"DROP TABLE IF EXISTS {name}_fts"))


def test_without_create_tables_no_file_is_made(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'typo.db'}", f"sqlite:///file:{tmp_path / 'typo.db'}?uri=true"):
        with pytest.raises(LTMError, match=r"there is no file .*typo\.db") as raised:
            SQLAlchemyBackend(url, create_tables=False)
        assert raised.value.error_type == "configuration_error"
        result = CliRunner().invoke(app, ["memory", "optimize", "--url", url])
        assert result.exit_code == 1
        assert "there is no memory here" in result.stderr
    assert not [*tmp_path.iterdir()]


@own_dialect
def test_without_create_tables_they_must_be_there_and_ddl_makes_them(database: Database, engine: Engine) -> None:
    name = {"table_name": "by_hand"}
    with engine.begin() as connection:
        for table in ("ltm_catalog", "ltm_snapshots", "ltm_snapshot_entries", "ltm_schema_version"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
    with pytest.raises(LTMError, match=r"create_tables is false.*ddl\(\)") as raised:
        database.open(create_tables=False, **name)
    assert raised.value.error_type == "configuration_error"
    with database.open(create_tables=False, lazy=True, **name) as backend:
        statements = backend.ddl()
        assert backend.store("k", 1)["error_type"] == "configuration_error"
        assert not inspect(engine).has_table("by_hand"), "nothing is created"
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))
        assert backend.store("k", "fox", {"n": 1})["created"] is True
        assert backend.search("fox", {"n": 1})["count"] == 1
        assert backend.ddl() == [], "nothing is missing"
    with database.open(create_tables=False, lazy=True, table_name="by_hand_too") as backend:
        missing = backend.ddl()
        assert 0 < len(missing) < len(statements)
        with engine.begin() as connection:
            for statement in missing:
                connection.exec_driver_sql(statement.replace("%", "%%"))
        assert backend.store("k", "hound")["created"] is True
    with pytest.raises(LTMError, match="closed"):
        backend.ddl()
    with database.open(create_tables=True, **name) as backend:
        assert backend.retrieve("k")["value"] == "fox"
    with engine.begin() as connection:
        for table in ("by_hand", "by_hand_too"):
            connection.execute(text(f"DROP TABLE {table}"))
            connection.execute(text(f"DROP TABLE IF EXISTS {table}_fts"))


# --- echo --------------------------------------------------------------------------------------------


@own_dialect
def test_echo_shows_every_statement_and_no_value(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # of a handler that writes to an earlier test's output
    executed: list[str] = []
    with database.open(echo=True) as backend:
        event.listen(backend._engine, "before_cursor_execute", lambda *arguments: executed.append(arguments[2]))
        caplog.clear()
        backend.store("key-" + CANARY, {"value": CANARY}, {"meta": CANARY}, ttl=7777)
        backend.store("key-" + CANARY, CANARY, if_version=1)
        backend.store("key-" + CANARY, CANARY, if_version=1)
        backend.store_many([{"key": f"{CANARY}{n}", "value": CANARY, "metadata": {"m": CANARY}} for n in range(70)])
        backend.retrieve_many([f"{CANARY}{n}" for n in range(70)])
        for query, condition in ((CANARY, None), (f'"{CANARY}"', {"meta": CANARY}), (None, {"l": [CANARY]})):
            backend.search(query, condition, prefix=CANARY[:4])
        backend.list_keys(CANARY, after=CANARY)
        backend.count(CANARY)
        list(backend.iterate_all(CANARY))
        backend.cleanup_expired()
        backend.delete_many([f"{CANARY}{n}" for n in range(70)])
        backend.delete("key-" + CANARY)
    shown = "\n".join(record.getMessage() for record in caplog.records)
    printed = capfd.readouterr()
    assert len(executed) > 15
    for statement in executed:  # a long one is shown by its beginning and its end
        assert statement[:200] in shown
        assert statement[-100:] in shown
    assert sum(record.name == "sqlalchemy.engine.Engine" for record in caplog.records) >= 2 * len(executed)
    for hidden in (CANARY, "7777", "qzc4nary"):
        assert hidden not in shown + printed.out + printed.err


# --- the caller's own queries ------------------------------------------------------------------------


@own_dialect
def test_sessions_query_the_mapped_class(database: Database) -> None:
    backend: Any = database.open(lazy=True)
    before: Any = backend._session_factory
    assert before is None
    backend.store("k", {"a": [1.0, None]}, {"n": 1}, ttl=3600)
    backend.store("k", {"b": 1, "a": "fox"}, {"n": 2}, ttl=3600)
    assert backend.entry_class is LTMEntry
    with backend._session_factory() as session:
        entry = session.scalars(select(LTMEntry).where(LTMEntry.key == "k")).one()
        assert (entry.value, entry.metadata_, entry.version) == ({"b": 1, "a": "fox"}, {"n": 2}, 2)
        assert list(entry.value) == ["b", "a"]
        assert entry.expires_at is not None
        assert (entry.expires_at - entry.updated_at).total_seconds() == 3600
    backend.close()
    assert backend._session_factory is None


@own_dialect
def test_sessions_query_a_table_of_another_name(database: Database, engine: Engine) -> None:
    opened: Any = database.open(table_name="agent_8")
    with opened as backend, backend._session_factory() as session:
        backend.store("k", "fox")
        mapped = backend.entry_class
        assert mapped.__tablename__ == "agent_8"
        assert session.scalars(select(mapped.value)).all() == ["fox"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE agent_8"))
        connection.execute(text("DROP TABLE IF EXISTS agent_8_fts"))


KEPT = "SELECT count(*) FROM pg_prepared_statements"


@pytest.mark.targets("native", family="postgresql", portable=False)
def test_the_server_keeps_a_prepared_statement_only_where_prepare_threshold_asks_for_it(database: Database) -> None:
    catalog = "postgres" if database.target.native else "sqlalchemy"
    for threshold, is_kept in ((None, False), (0, True)):
        one = {"pool_size": 1} if database.target.native else {"pool_size": 1, "max_overflow": 0}
        with database.open(prepare_threshold=threshold, catalog=catalog, **one) as memory:
            for number in range(8):
                memory.store("k", number)
                memory.retrieve("k")
                memory.catalog.get_entry("k")
            memory.store("k", 1, if_version=8)
            if database.target.native:
                kept = memory._database.run(lambda connection: connection.execute(KEPT, prepare=False).fetchone()[0])
            else:
                with memory._engine.connect() as connection:
                    kept = connection.scalar(text(KEPT))
            assert memory.retrieve("k")["version"] == 9
            memory.delete("k")
            assert bool(kept) is is_kept, (threshold, kept)


@pytest.mark.targets(family="postgresql", portable=False)
def test_prepare_threshold_is_refused_where_it_means_nothing(database: Database, engine: Engine) -> None:
    for url in ("sqlite://", engine.url.set(drivername="postgresql+psycopg2")):
        assert "prepare_threshold" in refused(url=url, prepare_threshold=5)
    assert "prepare_threshold" in refused(engine=engine, prepare_threshold=5)
    for wrong in (True, -1, 1.5, "5"):
        assert "prepare_threshold" in refused(url=database.url, prepare_threshold=wrong)
        for native in (PostgresBackend, PostgresCatalog):
            with pytest.raises(LTMError, match="prepare_threshold"):
                native("postgresql://h/d", lazy=True, prepare_threshold=wrong)  # type: ignore[arg-type]


@pytest.mark.targets(family="postgresql", portable=False)
@pytest.mark.parametrize("backend", ["sqlalchemy", "postgres"])
def test_prepare_threshold_in_settings(database: Database, backend: str) -> None:
    nested: dict[str, Any] = {"backend": backend, "url": database.url, "catalog": backend}
    for settings in ({"ltm": {**nested, "prepare_threshold": 5}}, {"ltm": nested, "ltm_prepare_threshold": 5}):
        with parse_ltm_config(settings) as memory:
            assert memory.store("k", 1)["success"] is True
    with pytest.raises(LTMError, match=r"settings\.ltm\.prepare_threshold"):
        parse_ltm_config({"ltm": {**nested, "prepare_threshold": "often"}})
    with parse_catalog_config({"type": backend, "url": database.url, "prepare_threshold": 5}) as catalog:  # type: ignore[attr-defined]
        assert catalog.list_entries() is not None
