"""Features of SQLAlchemyBackend only: options, start, failures, secrets, pools, databases in RAM."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import StaticPool

from databases import Database
from the_edge_agent.memory import LTMError, SQLAlchemyBackend
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.core.tokens import score
from the_edge_agent.memory.sql.dialects.sqlite.schema import SQLiteSchema

CANARY = "c4nary-s3cret"


on_servers = pytest.mark.targets(server=True, portable=False)


def failure_of(url: str | URL, **options: Any) -> Result:
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(text_of(url), **options)
    return raised.value.result


def text_of(url: str | URL) -> str:
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


# --- start and close ---------------------------------------------------------------------------------


def test_a_lazy_backend_imports_no_driver_and_connects_on_first_use(tmp_path: Path) -> None:
    file = tmp_path / "ltm.db"
    backend = SQLAlchemyBackend(f"sqlite:///{file}", lazy=True)
    assert (backend._engine, backend._initialized, backend._closed, file.exists()) == (None, False, False, False)
    assert backend.store("k", 1)["created"] is True
    assert (backend._initialized, file.exists()) == (True, True)
    backend.close()
    assert (backend._engine, backend._initialized, backend._closed) == (None, False, True)


def test_a_lazy_backend_loads_no_driver() -> None:
    code = (
        "import sys; from the_edge_agent.memory import SQLAlchemyBackend\n"
        "SQLAlchemyBackend('postgresql://u:p@127.0.0.1:1/x', lazy=True)\n"
        "SQLAlchemyBackend('mysql://u:p@127.0.0.1:1/x', lazy=True)\n"
        "print(sorted({'psycopg', 'psycopg2', 'pymysql', 'MySQLdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_lazy_backend_that_could_not_start_tries_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with SQLAlchemyBackend(f"sqlite:///{folder}/ltm.db", lazy=True) as backend:
        assert backend.store("k", 1)["error_type"] == "connection_error"
        folder.mkdir()
        assert backend.store("k", 1)["created"] is True


@pytest.mark.targets("portable")
def test_the_dialect_is_sqlalchemys_name(database: Database) -> None:
    with database.open() as backend:
        assert backend.dialect == {"mariadb": "mysql"}.get(database.target.family, database.target.family)


@pytest.mark.targets("portable")
def test_many_threads_start_a_lazy_backend_once(database: Database) -> None:
    with database.open(lazy=True, pool_size=8) as backend, ThreadPoolExecutor(8) as threads:
        barrier = threading.Barrier(8)

        def store(number: int) -> Result:
            barrier.wait()
            stored: Result = backend.store("same", number)
            return stored

        results = list(threads.map(store, range(8)))
        assert sorted(result["version"] for result in results) == list(range(1, 9))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pool_size", 0),
        ("pool_size", "5"),
        ("pool_size", True),
        ("max_overflow", -1),
        ("pool_timeout", 0),
        ("connect_timeout", "10"),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("echo", "yes"),
        ("lazy", 1),
    ],
)
def test_a_bad_option_is_refused_by_name(option: str, value: Any) -> None:
    result = failure_of("sqlite://", **{option: value})
    assert result["error_type"] == "configuration_error"
    assert option in result["error"]


# --- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error_type"),
    [
        ("nonsense", "configuration_error"),
        ("", "configuration_error"),
        (None, "configuration_error"),
        (5, "configuration_error"),
        (f"postgresql://u:{CANARY}@host:port/x", "configuration_error"),
        (f"://u:{CANARY}@host/x", "configuration_error"),
        (f"nosuchdialect://u:{CANARY}@host/x", "configuration_error"),
        (f"mysql+nosuchdriver://u:{CANARY}@host/x", "configuration_error"),
        (f"oracle+oracledb://u:{CANARY}@host/x", "dependency_missing"),
        ("sqlite:////no/such/folder/x.db", "connection_error"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_typed_error(url: Any, error_type: str) -> None:
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(url)
    assert raised.value.error_type == error_type
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_a_file_that_is_no_database_is_a_connection_error(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be read as one" * 100)
    assert failure_of(f"sqlite:///{file}")["error_type"] == "connection_error"
    assert file.read_text().startswith("not a database")


def wrong(url: URL) -> dict[str, tuple[URL, str]]:
    """Return URLs that must fail, by what is wrong, with the error type of each."""
    query = url.set(password="").update_query_dict({"password": CANARY})
    return {
        "password": (url.set(password=CANARY), "auth_failed"),
        "password in the query": (query, "auth_failed"),
        "user": (url.set(username="nobody", password=CANARY), "auth_failed"),
        "database": (url.set(database="no_such_database"), "connection_error"),
        "port": (url.set(port=1, password=CANARY), "connection_error"),
        "host": (url.set(host="no-such-host.invalid", password=CANARY), "connection_error"),
        "option": (url.update_query_dict({"no_such_option": "1"}), "configuration_error"),
    }


@on_servers
@pytest.mark.parametrize("what", wrong(make_url("sqlite://")))
def test_what_is_wrong_with_a_server_is_a_typed_error(database: Database, what: str) -> None:
    url, error_type = wrong(make_url(database.url))[what]
    assert failure_of(url)["error_type"] == error_type
    with SQLAlchemyBackend(text_of(url), lazy=True) as backend:
        assert backend.store("k", 1)["error_type"] == error_type
        assert backend.retrieve("k")["error_type"] == error_type
        assert backend.search("x")["error_type"] == error_type
        with pytest.raises(LTMError) as raised:
            list(backend.iterate_all())
        assert raised.value.error_type == error_type


@on_servers
@pytest.mark.parametrize("what", [name for name in wrong(make_url("sqlite://")) if name not in ("database", "option")])
def test_no_output_shows_the_password(
    database: Database, what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url, _ = wrong(make_url(database.url))[what]
    shown: list[str] = []
    with SQLAlchemyBackend(text_of(url), lazy=True, echo=True) as backend:
        shown += [repr(backend), str(backend.store("k", 1)), str(vars(backend)), repr(backend._database)]
        shown.append(repr(backend._engine))
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(text_of(url), echo=True)
    shown += traceback.format_exception(raised.value)
    printed = capfd.readouterr()
    assert CANARY not in "".join([*shown, caplog.text, printed.out, printed.err])


def test_a_working_backend_shows_no_password_and_no_value(
    database: Database, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    password = make_url(database.url).password
    with database.open(echo=True) as backend:
        backend.store("key-" + CANARY, {"value": CANARY}, {"meta": CANARY})
        backend.search(CANARY, {"meta": CANARY}, prefix="key-")
        shown = [repr(backend), repr(backend._engine)]
    printed = capfd.readouterr()
    everything = "".join([*shown, caplog.text, printed.out, printed.err])
    assert "INSERT" in everything or "UPDATE" in everything
    assert CANARY not in everything
    assert password is None or str(password) not in everything


@on_servers
def test_a_server_that_never_answers_is_a_timeout(database: Database) -> None:
    scheme = make_url(database.url).drivername
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"{scheme}://u:{CANARY}@127.0.0.1:{silent.getsockname()[1]}/x"
        assert failure_of(url, connect_timeout=1, timeout=1)["error_type"] == "connection_timeout"


def test_an_exhausted_pool_is_a_timeout_and_recovers(database: Database) -> None:
    with database.open(pool_size=1, max_overflow=0, pool_timeout=0.1) as backend:
        if isinstance(backend._engine.pool, StaticPool):
            return
        with backend._engine.connect():
            assert backend.store("k", 1)["error_type"] == "connection_timeout"
        assert backend.store("k", 1)["created"] is True


@on_servers
def test_an_entry_larger_than_the_servers_packet_is_refused_and_the_connection_stays(database: Database) -> None:
    if database.target.family == "postgresql":
        return
    with database.open() as backend:
        limit = backend._database.start().schema.packet
        assert limit is not None
        for value in ("x" * limit, '"' * (limit // 2)):
            assert backend.store("k", value)["error_type"] == "validation_error"
        assert backend.retrieve("k")["found"] is False
        fits = '"' * (limit // 4 - 110_000)
        assert backend.store("k", fits)["created"] is True
        assert backend.retrieve("k")["value"] == fits


# --- conflicts ---------------------------------------------------------------------------------------


@pytest.mark.targets("portable")
def test_a_transaction_that_loses_is_run_again_as_a_whole(database: Database) -> None:
    with database.open() as backend:
        failures: Iterator[bool] = iter([True, True])

        @event.listens_for(backend._engine, "before_cursor_execute")
        def fail_twice(*arguments: Any) -> None:
            if "second" in str(arguments[3]) and next(failures, False):
                raise backend._engine.dialect.loaded_dbapi.OperationalError(*_conflict(database.target.family))

        with backend.transaction() as transaction:
            transaction.store("first", 1)
            transaction.store("second", 2)
            result = transaction.commit()
        assert [entry["version"] for entry in result["results"]] == [1, 1]
        assert next(failures, None) is None


def _conflict(family: str) -> tuple[Any, ...]:
    return (1213, "Deadlock found") if family in ("mysql", "mariadb") else ("database is locked",)


# --- SQLite ------------------------------------------------------------------------------------------


def test_each_memory_database_is_its_own() -> None:
    with SQLAlchemyBackend("sqlite://") as one, SQLAlchemyBackend("sqlite:///:memory:") as other:
        one.store("k", 1)
        assert other.retrieve("k")["found"] is False


@pytest.mark.parametrize("shares", [True, False], ids=["memdb", "one connection"])
def test_a_memory_database_is_safe_under_threads(monkeypatch: pytest.MonkeyPatch, shares: bool) -> None:
    if not shares:
        monkeypatch.setattr("the_edge_agent.memory.sql.dialects.sqlite.connection.MEMDB_VERSION", (99,))
    with SQLAlchemyBackend("sqlite://", pool_size=8) as backend, ThreadPoolExecutor(8) as threads:
        assert isinstance(backend._engine.pool, StaticPool) is not shares  # type: ignore[union-attr]

        def work(thread: int) -> list[Result]:
            mine = [backend.store(f"{thread}/{number}", number) for number in range(50)]
            shared = [backend.store("shared", number) for number in range(50)]
            list(backend.iterate_all(f"{thread}/"))
            return [*mine, *shared]

        results = [result for found in threads.map(work, range(8)) for result in found]
        assert all(result["success"] for result in results), [r for r in results if not r["success"]][:3]
        assert sum(result["created"] for result in results) == 401
        assert backend.retrieve("shared")["version"] == 400


@pytest.mark.parametrize("missing", ["has_text_index", "has_json"])
def test_an_sqlite_without_its_extensions_answers_the_same(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    probe = SQLiteSchema.probe

    def without(self: SQLiteSchema, *arguments: Any) -> None:
        probe(self, *arguments)
        setattr(self.features, missing, False)

    monkeypatch.setattr(SQLiteSchema, "probe", without)
    with SQLAlchemyBackend("sqlite://") as backend:
        backend.store("a", "the red fox", {"n": 1})
        backend.store("b", "the red hound", {"n": 2})
        found = backend.search("red -hound", {"n": {"$lte": 1}}, match="all")
        assert [(entry["key"], entry["score"]) for entry in found["results"]] == [("a", score([1], 5))]


def test_a_file_is_in_wal_mode(tmp_path: Path) -> None:
    with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'ltm.db'}") as backend, backend._engine.connect() as connection:  # type: ignore[union-attr]
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_a_read_only_file_can_be_read_but_a_store_fails(tmp_path: Path) -> None:
    file = tmp_path / "ltm.db"
    with SQLAlchemyBackend(f"sqlite:///{file}") as backend:
        backend.store("k", 1)
    with SQLAlchemyBackend(f"sqlite:///file:{file}?mode=ro&uri=true") as backend:
        assert backend.retrieve("k")["value"] == 1
        assert backend.store("k", 2)["error_type"] == "connection_error"
