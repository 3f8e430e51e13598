"""No answer depends on the settings that a PostgreSQL database, a user or a client makes for its sessions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import create_engine, literal_column, make_url, select

from databases import Database, expire_all
from run_length import of_this_run
from the_edge_agent.memory import (
    LTMEntry,
    LTMError,
    PostgresBackend,
    PostgresCatalog,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
)
from the_edge_agent.memory.postgres.sessions import READ_COMMITTED
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Prepared

pytestmark = pytest.mark.targets(family="postgresql", portable=False)

LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)
EARLIEST: Final = datetime(1, 1, 1, tzinfo=timezone.utc)
# Values that others have found to change answers of programs.
HOSTILE: Final = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "gin_fuzzy_search_limit": "1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "jit_above_cost": "0",
    "default_text_search_config": "pg_catalog.german",
    "lock_timeout": "900s",
    "row_security": "off",
}
# What is meant to change what a session may do, takes no part in answers, or ends it.
MEANT: Final = re.compile(
    "search_path|role|session_authorization|default_transaction_read_only|transaction_.*|.*_timeout|is_superuser|seed|"
    "default_table_access_method|default_tablespace|temp_tablespaces|temp_file_limit|session_replication_role|"
    ".*preload_libraries|dynamic_library_path|extension_control_path|log_.*|debug_.*|allow_system_table_mods|"
    "ignore_system_indexes|zero_damaged_pages|ignore_checksum_failure|lc_.*|.*_mem|max_stack_depth|tcp_.*|"
    "restrict_nonsystem_relation_kind|client_connection_check_interval|application_name|createrole_self_grant|"
    "allow_in_place_tablespaces|backtrace_functions|jit_provider|event_triggers|.*_io_.*|trace_.*|post_auth_delay"
)


def sample(memory: Any, catalog: Any) -> list[Any]:
    """Return answers that any setting might change, without times of now."""
    for key in ("k1", "gone", "late", "NULL", "back\\slash'"):
        memory.delete(key)
    found = [
        memory.store("k1", {"a": 0.1, "b": [1e22, "back\\slash' 😀"], "é": None}, {"n": 1, "x": None, "t": "a\\'b"}),
        memory.store("back\\slash'", "fox", {"n": 2.5}, ttl=3600),
        memory.store("NULL", "red fox"),
        memory.store("gone", "fox", ttl=100),
    ]
    expire_all(memory)
    found += [
        memory.store("late", "fox", {"n": 1}, ttl=86_400 * 3650),
        memory.store("k1", {"a": 0.1, "b": [1e22, "back\\slash' 😀"]}, {"n": 1, "x": None, "t": "a\\'b"}, if_version=1),
        memory.retrieve_many(["k1", "NULL", "back\\slash'", "late", "gone"]),
        memory.list_keys(),
        memory.search("fox")["results"][0]["score"],
        sorted(result["key"] for result in memory.search("fox")["results"]),
        [memory.search(metadata_filter=wanted)["count"] for wanted in ({"n": 1}, {"x": None}, {"n": {"$gt": 1.5}})],
        [memory.search(metadata_filter=wanted)["count"] for wanted in ({"t": "a\\'b"}, {"n": {"$in": [1, 7]}})],
        memory.search("fox -red", {"n": 1})["count"],
        list(memory.iterate_all("k")),
        memory.cleanup_expired(),
    ]
    for key, moment in (("latest", LATEST), ("earliest", EARLIEST)):
        catalog.track_entry(key, "h", None, 1, {"n": 1}, {"inlined": 0.1}, moment)
    tracked = catalog.list_entries(metadata_filter={"n": 1})
    snapshot = catalog.create_snapshot("s")
    catalog.track_entry("latest", "h2", None, 1, None, expires_at=LATEST)
    changed = catalog.get_changed_entries(snapshot)
    catalog.delete_entry("latest")
    deleted = catalog.get_deleted_entries(snapshot)
    kept = catalog.get_snapshot(snapshot)
    assert abs((kept["created_at"] - datetime.now(timezone.utc)).total_seconds()) < 60
    for entry in (*tracked, *changed, *deleted):
        entry.pop("created_at", None), entry.pop("updated_at", None)
    catalog.delete_snapshot(snapshot)
    return [*found, tracked, changed, deleted, kept["entry_count"]]


@contextmanager
def sessions_with(database: Database, settings: Mapping[str, str]) -> Iterator[None]:
    """Have new sessions of the database start with other settings."""
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        name = connection.info.dbname
        try:
            for setting, value in settings.items():
                connection.execute(f"ALTER DATABASE {name} SET {setting} = {_quoted(setting, value)}")
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET ALL")


def _quoted(setting: str, value: str) -> str:
    return value if setting == "DateStyle" else f"'{value}'"


@contextmanager
def opened(database: Database, driver: str = "psycopg") -> Iterator[tuple[Any, Any]]:
    """Open a memory and a catalog with a driver."""
    url = make_url(database.url).set(drivername=f"postgresql+{driver}" if driver else "postgresql")
    shown = url.render_as_string(hide_password=False)
    classes: Any = (
        (PostgresBackend, PostgresCatalog) if database.target.native else (SQLAlchemyBackend, SQLAlchemyCatalog)
    )
    with classes[0](shown) as memory, classes[1](shown) as catalog:
        yield memory, catalog


@pytest.mark.targets("native")
def test_hostile_settings_change_no_answer(database: Database) -> None:
    with opened(database) as stores:
        expected = sample(*stores)
    for driver in ("psycopg",) if database.target.native else ("psycopg", "psycopg2"):
        with sessions_with(database, HOSTILE), opened(database, driver) as stores:
            assert sample(*stores) == expected


@pytest.mark.targets(native=False)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_nor_on_an_engine_of_the_callers(database: Database, driver: str) -> None:
    with opened(database) as stores:
        expected = sample(*stores)
    hostile = {name: value for name, value in HOSTILE.items() if name != "client_encoding"}
    with sessions_with(database, hostile):
        engine = create_engine(make_url(database.url).set(drivername=f"postgresql+{driver}"))
        with SQLAlchemyBackend(engine=engine) as memory, database.open_catalog() as catalog:
            assert sample(memory, catalog) == expected
            sessions: Any = memory._session_factory
            with sessions() as session:
                times = session.scalars(select(LTMEntry.updated_at)).all()
                assert {moment.tzinfo for moment in times} == {timezone.utc}
        engine.dispose()


@pytest.mark.targets("native")
def test_no_setting_that_a_user_may_change_changes_an_answer(database: Database) -> None:
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with opened(database) as stores:
        expected = sample(*stores)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        rows = connection.execute(
            "SELECT name, vartype, setting, enumvals, min_val, max_val FROM pg_settings "
            "WHERE context IN ('user', 'superuser') ORDER BY name"
        ).fetchall()
    flips = [
        (name, value)
        for name, *about in rows
        if not MEANT.fullmatch(name)
        for value in _others(*about)
        if of_this_run(short=name.startswith(("gin", "enable_ind", "plan")), long=True)
    ]
    assert flips
    for name, value in flips:
        with suppress(psycopg.DatabaseError), sessions_with(database, {name: value}), opened(database) as stores:
            assert sample(*stores) == expected, (name, value)  # the error: the server takes no such value


def _others(kind: str, setting: str, choices: list[str] | None, least: str | None, most: str | None) -> list[str]:
    if kind == "bool":
        return ["off" if setting == "on" else "on"]
    if kind == "enum":
        return [choice for choice in choices or () if choice != setting]
    return [bound for bound in (least, most) if bound not in (None, setting)]


@pytest.mark.targets("native")
def test_where_transactions_are_serializable_single_statements_and_set_ups_are_read_committed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that follows another runs nothing that is serializable, not even what sets up a session."""
    level = "current_setting('transaction_isolation')"
    monkeypatch.setitem(READ_COMMITTED, "application_name", f"' || {level} || '")  # written while it is set up
    for driver in ("",) if database.target.native else ("psycopg", "psycopg2"):
        settings = {"default_transaction_isolation": "serializable"}
        with sessions_with(database, settings), opened(database, driver) as (memory, _):
            memory.store("k", "fox", {"n": 1})
            memory.search("fox", {"n": 1})  # in a snapshot, whose level must not stay
            assert alone(memory, level) == "read committed", driver
            assert alone(memory, "current_setting('application_name')") == "read committed", driver


def alone(memory: Any, expression: str) -> str:
    """Return an expression as a statement has it that runs by itself."""
    if isinstance(memory, PostgresBackend):
        row: Any = memory._database.run(lambda connection: connection.execute(f"SELECT {expression}").fetchone())
        return str(row[0])
    query = BoundQuery(Prepared(select(literal_column(expression))), {})
    return str(memory._database.read(lambda sql: query)[0][0])


@pytest.mark.targets("native")
def test_a_search_path_without_a_schema_is_named_by_every_class(database: Database) -> None:
    for driver in ("",) if database.target.native else ("psycopg", "psycopg2"):
        with (
            sessions_with(database, {"search_path": "tea_no_such"}),
            pytest.raises(LTMError, match="no schema of the search_path exists") as raised,
            opened(database, driver),
        ):
            pass
        assert raised.value.error_type == "configuration_error"
