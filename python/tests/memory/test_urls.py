"""URLs that lack a part, or are for another kind of server: they are refused soon, with a message that helps."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from databases import Database
from memory_checks import run_sql
from the_edge_agent.memory import LTMError, PostgresBackend, SQLAlchemyBackend, SQLiteBackend, check_database

SOON = 1.5  # seconds; what is tried again takes longer


def text_of(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def refusal_of(url: str) -> tuple[str, str]:
    """Return the error and its type: the check and a memory say the same, and soon."""
    began = time.monotonic()
    report = check_database(url)
    assert time.monotonic() - began < SOON
    assert not report["success"]
    with SQLAlchemyBackend(url, lazy=True) as memory:
        result = memory.store("k", 1)
    assert (result["error_type"], result["error"]) == (report["error_type"], report["error"])
    return report["error_type"], report["error"]


class MySQLURLs:
    @pytest.mark.parametrize("driver", ["pymysql", "mysqlconnector"])
    def test_one_that_names_no_database_is_refused(self, database: Database, driver: str) -> None:
        url = make_url(database.url).set(drivername=f"mysql+{driver}", database="")
        error_type, error = refusal_of(text_of(url))
        assert error_type == "configuration_error"
        assert error.startswith("the url names no database")

    def test_so_is_an_engine_with_such_a_url(self, database: Database) -> None:
        engine = create_engine(make_url(database.url).set(database=""), poolclass=NullPool)
        with pytest.raises(LTMError, match="the url names no database") as raised:
            SQLAlchemyBackend(engine=engine)
        assert raised.value.error_type == "configuration_error"

    @pytest.fixture(params=["café", "пароль", "日本 😀"])
    def user(self, database: Database, request: pytest.FixtureRequest) -> Iterator[URL]:
        """The URL of a user whose password is not ASCII."""
        url = make_url(database.url).set(drivername="mysql+pymysql", username=f"tea_{secrets.token_hex(4)}")
        name, password = url.username, request.param
        run_sql(
            text_of(make_url(database.url).update_query_dict({"charset": "utf8mb4"})),
            f"CREATE USER {name} IDENTIFIED BY '{password}'",
            f"GRANT ALL ON {url.database}.* TO {name}",
        )
        yield url.set(password=password)
        run_sql(database.url, f"DROP USER {name}")

    def test_a_password_may_have_any_letters(self, user: URL) -> None:
        report = check_database(text_of(user))
        assert report["success"], report
        with SQLAlchemyBackend(user) as memory:
            assert memory.store("k", 1)["success"]
            shown = repr(memory) + repr(memory._engine) + str(report)
        assert user.password is not None
        assert user.password not in shown
        assert repr(user.password.encode()) not in shown

    def test_a_wrong_one_is_said_to_be_wrong_and_not_shown(self, user: URL) -> None:
        wrong = f"{user.password}é"
        error_type, error = refusal_of(text_of(user.set(password=wrong)))
        assert error_type == "auth_failed"
        assert str(user.password) not in error


@pytest.mark.targets(family="mysql", portable=False)
class TestMySQLURLs(MySQLURLs):
    def test_a_mariadb_url_is_refused(self, database: Database) -> None:
        url = make_url(database.url).set(drivername="mariadb+pymysql")
        assert refusal_of(text_of(url)) == (
            "configuration_error",
            "the url says mariadb, but the server is MySQL; let the url begin with mysql",
        )


@pytest.mark.targets(family="mariadb", portable=False)
class TestMariaDBURLs(MySQLURLs):
    pass


@pytest.mark.targets(family="postgresql", portable=False)
def test_a_search_path_without_a_schema_is_named(database: Database) -> None:
    url = text_of(make_url(database.url).update_query_dict({"options": "-c search_path=tea_no_such"}))
    report = check_database(url)
    assert report["error_type"] == "configuration_error"
    assert "no schema of the search_path exists" in report["error"]


@pytest.mark.driver
@pytest.mark.parametrize("url", ["sqlite://{}.db", "sqlite://folder/{}.db", "duckdb://{}.db"])
def test_a_file_needs_three_slashes(url: str) -> None:
    error_type, error = refusal_of(url.format("new"))
    assert error_type == "configuration_error"
    assert f"a file needs three slashes: {url.partition(':')[0]}:///file" in error
    assert not Path("new.db").exists()


@pytest.mark.driver
def test_sqlcipher_needs_a_key(tmp_path: Path) -> None:
    assert refusal_of(f"sqlite+pysqlcipher:///{tmp_path / 'new.db'}") == (
        "configuration_error",
        "the url has no key: sqlite+pysqlcipher://:KEY@/file",
    )


@pytest.mark.driver
class TestDuckDBFiles:
    def test_one_that_is_not_there_is_not_made_by_a_check(self, tmp_path: Path) -> None:
        report = check_database(f"duckdb:///{tmp_path / 'new.db'}")
        assert report["success"], report
        assert report["missing_file"] == str(tmp_path / "new.db")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("url", ["duckdb://", "duckdb:///:memory:", "duckdb:///:memory:named"])
    def test_a_database_in_memory_is_none(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        report = check_database(url)
        assert (report["success"], report["missing_file"]) == (True, None)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("none/new.db", "cannot open the database file; is its folder there, and may this user read it?"),
            ("", "cannot open the database file; is its folder there, and may this user read it?"),
            ("text.db", "the file is not a DuckDB database"),
        ],
    )
    def test_one_that_cannot_be_one_is_refused_soon(self, tmp_path: Path, name: str, error: str) -> None:
        (tmp_path / "text.db").write_text("no database " * 1_000)
        assert refusal_of(f"duckdb:///{tmp_path / name}") == ("connection_error", error)
        assert os.listdir(tmp_path) == ["text.db"]


class TestSQLiteFiles:
    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("none/new.db", "there is no folder 'none'"),
            ("folder", "'folder' is a folder"),
            ("pipe", "'pipe' is a pipe or a device"),
        ],
    )
    def test_what_is_no_file_is_named(self, tmp_path: Path, name: str, error: str) -> None:
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        file = tmp_path / name
        refusal = ("connection_error", f"cannot open the database file: {error}")
        assert refusal_of(f"sqlite:///{file}") == refusal
        with SQLiteBackend(file, lazy=True) as memory:
            result = memory.store("k", 1)
        assert (result["error_type"], result["error"]) == refusal

    def test_an_option_that_nobody_reads_is_named(self, tmp_path: Path) -> None:
        error_type, error = refusal_of(f"sqlite:///{tmp_path / 'new.db'}?bogus=1")
        assert (error_type, "or its value (bogus)" in error) == ("configuration_error", True)
        assert os.listdir(tmp_path) == []


def refusal_of_option(url: URL, option: str, value: str, where: str) -> str:
    """Return the type of the error that names an option of the driver, and not its value."""
    given: dict[str, Any] = {"connect_args": {option: value}}
    if where == "in the url":
        url, given = url.update_query_dict({option: value}), {}
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(text_of(url), **given)
    assert option in str(raised.value)
    assert value not in str(raised.value)
    return raised.value.error_type


@pytest.mark.parametrize("where", ["in the url", "beside it"])
class TestOptionsThatAreRefusedAreNamed:
    @pytest.mark.parametrize(("option", "value"), [("bogus", "yes"), ("timeout", "soon")])
    def test_with_sqlite(self, tmp_path: Path, option: str, value: str, where: str) -> None:
        url = make_url(f"sqlite:///{tmp_path / 'new.db'}")
        assert refusal_of_option(url, option, value, where) == "configuration_error"

    @pytest.mark.targets(family="postgresql", portable=False)
    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
    @pytest.mark.parametrize(
        ("option", "value"), [("bogus", "yes"), ("sslmode", "maybe"), ("options", "-c nonsense=1"), ("ssl_ca", "/x")]
    )
    def test_with_postgresql(self, database: Database, driver: str, option: str, value: str, where: str) -> None:
        url = make_url(database.url).set(drivername=f"postgresql+{driver}")
        assert refusal_of_option(url, option, value, where) == "configuration_error"

    @pytest.mark.targets(of_mysql=True, portable=False)
    @pytest.mark.parametrize("driver", ["pymysql", "mysqldb", "mysqlconnector"])
    @pytest.mark.parametrize(("option", "value"), [("bogus", "yes"), ("init_command", "NONSENSE")])
    def test_with_mysql(self, database: Database, driver: str, option: str, value: str, where: str) -> None:
        url = make_url(database.url).set(drivername=f"mysql+{driver}")
        assert refusal_of_option(url, option, value, where) == "configuration_error"


@pytest.mark.targets(of_mysql=True, portable=False)
def test_the_host_that_is_named_is_the_one_that_was_tried(database: Database) -> None:
    elsewhere = make_url(database.url).update_query_dict({"host": "nowhere.invalid"})
    assert refusal_of(text_of(elsewhere))[1].endswith("(nowhere.invalid, error 2003)")


@pytest.mark.driver
@pytest.mark.parametrize(
    ("driver", "instead"),
    [
        ("sqlite+aiosqlite", "sqlite+pysqlite:// (extra sqlalchemy)"),
        ("postgresql+asyncpg", "postgresql+psycopg:// (extra postgres)"),
        ("postgresql+psycopg_async", "postgresql+psycopg:// (extra postgres)"),
        ("mysql+aiomysql", "mysql+pymysql:// (extra mysql)"),
        ("mariadb+asyncmy", "mariadb+pymysql:// (extra mysql)"),
        ("mssql+aioodbc", "a synchronous driver"),
    ],
)
def test_an_asynchronous_driver_is_refused_and_another_named(driver: str, instead: str) -> None:
    error_type, error = refusal_of(f"{driver}://h/d" if "sqlite" not in driver else f"{driver}:///d")
    assert error_type == "configuration_error"
    assert error.startswith(f"{driver} is an asynchronous driver; use {instead}")


def async_engine(url: str) -> Any:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(url)


@pytest.mark.parametrize("make", [create_engine, async_engine] if find_spec("greenlet") else [create_engine])
def test_so_is_an_engine_with_one(make: Callable[[str], Any]) -> None:
    with pytest.raises(
        LTMError, match=r"psycopg_async is an asynchronous driver; use postgresql\+psycopg://"
    ) as raised:
        SQLAlchemyBackend(engine=make("postgresql+psycopg_async://h/d"))
    assert raised.value.error_type == "configuration_error"


@pytest.mark.parametrize("kind", [SQLAlchemyBackend, PostgresBackend])
@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h/d\n", "\tpostgresql://u:p@h/d", "postgresql://u:p@h/d ", "postgresql://u:p@h/\rd"]
)
def test_a_url_with_a_line_break_is_refused_at_once(kind: Callable[..., Any], url: str) -> None:
    with pytest.raises(LTMError, match="the url has a line break") as raised:
        kind(url, lazy=True)
    assert raised.value.error_type == "configuration_error"
