"""How a dialect searches and filters depends on the tables of the database, and on what the server accepts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import CursorResult, DateTime, Engine, TypeDecorator, create_engine, event, make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from databases import Database, Target
from the_edge_agent.memory import LTMError, SQLAlchemyBackend
from the_edge_agent.memory.core.tokens import score
from the_edge_agent.memory.sql.dialects.sqlite.dialect import SQLiteDialect
from the_edge_agent.memory.sql.driver.url import missing_driver

_LIKE: Final = "LIKE over search tokens"
_PATHS: Final = {
    "sqlite": ("full-text index (FTS5)", "json_each"),
    "postgresql": ("full-text index (tsvector)", "JSONB"),
    "mysql": (f"index of words, then {_LIKE}", "JSON functions, behind metadata hashes"),
    "mariadb": (f"index of words, then {_LIKE}", "JSON functions, behind metadata hashes"),
}
_NO_INDEX: Final = "no full-text index: searches use LIKE over search tokens"
_NO_JSON: Final = "no JSON functions: metadata filters are decided in Python"
_FULL_TEXT: Final = {"sqlite": "fts5", "postgresql": "tsvector|using gin"}  # what a lesser engine refuses
_JSON: Final = {"sqlite": "json_each", "postgresql": "jsonb", "mysql": "json_", "mariadb": "json_"}

own_dialect = pytest.mark.targets(portable=False, in_memory=False)


def paths(backend: SQLAlchemyBackend) -> tuple[str, str]:
    dialect = backend._database.start().schema.dialect
    return dialect.features.search_path, dialect.features.filter_path


def answers(backend: SQLAlchemyBackend) -> list[tuple[str, float]]:
    found = backend.search("red -hound", {"n": {"$lte": 1}}, match="all")
    return [(entry["key"], entry["score"]) for entry in found["results"]]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, each after the dialect's name."""
    return [message.partition(": ")[2] for message in caplog.messages]


def fill(backend: SQLAlchemyBackend, begin: str = "") -> list[tuple[str, float]]:
    """Store three entries and return what ``answers`` must find."""
    for key, value, number in (("a", "the red fox", 1), ("b", "the red hound", 1), ("c", "the red fox", 2)):
        assert backend.store(begin + key, value, {"n": number})["success"]
    return [(f"{begin}a", score([1], 5))]


@contextmanager
def refusing(url: str, pattern: str) -> Iterator[Engine]:
    """An engine whose server refuses every statement with these words."""
    engine = create_engine(url, poolclass=NullPool)

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if re.search(pattern, statement, re.IGNORECASE):
            raise ProgrammingError(statement, {}, Exception("this engine does not know that"))

    yield engine
    engine.dispose()


@pytest.fixture
def emptied(database: Database) -> Database:
    """A database without our tables."""
    if database.target.server:
        engine = create_engine(database.url, poolclass=NullPool)
        with engine.begin() as connection:
            for table in ("entries", "catalog", "snapshots", "snapshot_entries", "settings", "schema_version"):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS ltm_{table}")
    return database


@pytest.fixture
def restored(emptied: Database) -> Iterator[Database]:
    """The same, put back afterwards as other tests expect it."""
    yield emptied
    if emptied.target.server:
        engine = create_engine(emptied.url, poolclass=NullPool)
        with engine.begin() as connection:
            for table in ("entries", "catalog", "snapshots", "snapshot_entries", "settings", "schema_version"):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS ltm_{table}")
        with emptied.open():
            pass


@pytest.mark.targets("portable")
def test_a_dialect_says_how_it_searches_and_filters(target: Target, database: Database) -> None:
    with database.open() as backend:
        assert paths(backend) == ((_LIKE, "Python") if target.portable else _PATHS[target.family])


@own_dialect
def test_an_engine_with_everything_logs_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), database.open() as backend:
        backend.count()
    assert caplog.messages == []


@own_dialect
def test_an_engine_without_a_full_text_index_uses_like_and_says_so_once(
    target: Target, restored: Database, caplog: pytest.LogCaptureFixture
) -> None:
    if target.family not in _FULL_TEXT:
        return  # LIKE is its way
    with refusing(restored.url, _FULL_TEXT[target.family]) as engine, SQLAlchemyBackend(engine=engine) as backend:
        expected = fill(backend)
        assert answers(backend) == expected
        assert paths(backend)[0] == _LIKE
    assert said(caplog) == [_NO_INDEX]


@own_dialect
def test_a_table_made_without_the_index_is_searched_with_like_by_any_engine(target: Target, restored: Database) -> None:
    if target.family not in _FULL_TEXT:
        return
    with refusing(restored.url, _FULL_TEXT[target.family]) as engine, SQLAlchemyBackend(engine=engine) as backend:
        expected = fill(backend)
    with restored.open() as backend:
        assert paths(backend)[0] == _LIKE
        assert answers(backend) == expected
        fill(backend, "later ")
        assert [key for key, _ in answers(backend)] == ["a", "later a"]


@own_dialect
def test_an_engine_without_json_filters_in_python_and_says_so_once(
    target: Target, restored: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        refusing(restored.url, _JSON[target.family]) as engine,
        SQLAlchemyBackend(engine=engine, catalog="sqlalchemy") as backend,
    ):
        expected = fill(backend)
        assert answers(backend) == expected
        assert paths(backend) == (_PATHS[target.family][0], "Python")
    assert said(caplog) == [_NO_JSON]
    with restored.open() as backend:
        assert answers(backend) == expected
        assert paths(backend)[1] == ("Python" if target.family == "postgresql" else _PATHS[target.family][1])


@pytest.mark.targets(family="sqlite", portable=False, in_memory=False)
def test_an_index_that_this_sqlite_cannot_keep_is_refused(database: Database) -> None:
    with database.open() as backend:
        fill(backend)
    with refusing(database.url, "fts5") as engine, SQLAlchemyBackend(engine=engine, lazy=True) as backend:
        assert backend.store("d", 1)["error_type"] == "configuration_error"


@pytest.mark.driver
@pytest.mark.parametrize("url", ["sqlite+libsql:///{}", "sqlite+libsql://"])
def test_the_unsound_driver_of_libsql_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(LTMError, match="stops all threads") as refused:
        SQLAlchemyBackend(url.format(tmp_path / "ltm.db"))
    assert refused.value.error_type == "configuration_error"
    engine = create_engine(url.format(tmp_path / "ltm.db"))
    with pytest.raises(LTMError, match="cannot be interrupted"):
        SQLAlchemyBackend(engine=engine)
    engine.dispose()


@pytest.mark.driver
@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("duckdb:///x", "duckdb"),
        ("firebird://h/x", "firebird"),
        ("sqlite+pysqlcipher://", "sqlcipher"),
        ("mysql+mysqldb://h", "mysqlclient"),
        ("mariadb+mysqlconnector://h", "mysql-connector"),
        ("mysql://h", "mysql"),
        ("postgresql://h", "postgres"),
        ("postgresql+psycopg2://h", "psycopg2"),
        ("cockroachdb://h", "cockroachdb"),
    ],
)
def test_advice_names_the_extra_of_a_driver(url: str, extra: str) -> None:
    assert f"the-edge-agent[{extra}]" in str(missing_driver(make_url(url)))


@pytest.mark.driver
@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql+pg8000://h", "postgresql+psycopg:// (extra postgres), postgresql+psycopg2:// (extra psycopg2)"),
        ("mysql+aiomysql://h", "mysql+pymysql:// (extra mysql), mysql+mysqldb:// (extra mysqlclient)"),
        ("oracle+oracledb://h", ""),
    ],
)
def test_a_driver_that_no_extra_brings_is_not_advised(url: str, advice: str) -> None:
    message = str(missing_driver(make_url(url)))
    assert advice in message
    assert "pip install" not in message


@pytest.mark.targets(family="sqlite", portable=True)
def test_a_driver_that_does_not_count_changed_rows_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CursorResult, "rowcount", -1)
    with pytest.raises(LTMError, match="how many rows") as refused:
        database.open()
    assert refused.value.error_type == "configuration_error"


class RoundedTimes(TypeDecorator[datetime]):
    """Times of a database that keeps tenths of milliseconds."""

    impl = DateTime
    cache_ok = True
    timezone = False

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.replace(microsecond=value.microsecond // 100 * 100)


@pytest.mark.targets(family="sqlite", portable=True)
def test_a_database_that_rounds_times_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQLiteDialect.features, "time_type", RoundedTimes())
    with pytest.raises(LTMError, match="microseconds") as refused:
        database.open()
    assert refused.value.error_type == "configuration_error"


def test_what_a_probe_finds_is_known_to_all_parts_of_its_dialect_and_to_no_other() -> None:
    probed, other = SQLiteDialect(DateTime()), SQLiteDialect(DateTime())
    probed.features.has_json = False
    assert not probed.schema.features.has_json
    assert not probed.queries.features.has_json
    assert other.features.has_json
    assert SQLiteDialect.features.has_json
