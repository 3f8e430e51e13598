"""Messages, reprs, logs and tracebacks show no secret, wherever it was passed (F14)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from databases import Database
from the_edge_agent.cli.app import app
from the_edge_agent.memory import (
    LTMError,
    PostgresBackend,
    PostgresCatalog,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
    check_database,
    parse_catalog_config,
    parse_ltm_config,
)
from the_edge_agent.memory.core.showing import has_raw_login

CANARY = "c4nary-s3cret"
CLASSES = [SQLAlchemyBackend, SQLiteBackend, PostgresBackend, SQLAlchemyCatalog, SQLiteCatalog, PostgresCatalog]
RAW_LOGINS = {
    "slash, hash and at": "postgres:p@c4nary-s3cret/w#rd@127.0.0.1:5432/db",
    "at": "u:c4nary-s3cret@c4nary-s3cret@127.0.0.1/db",
    "slash": "u:c4nary-s3cret/x@127.0.0.1/db",
    "digits and slash": "u:12/c4nary-s3cret@127.0.0.1/db",
    "slash in the user": "c4nary-s3cret/x:y@127.0.0.1/db",
    "begins with a slash": "u:/c4nary-s3cret@127.0.0.1/db",
    "user begins with a slash": "/u:c4nary-s3cret@127.0.0.1/db",
    "at and question mark": "u:c4nary?s3cret@c4nary-s3cret@127.0.0.1/db",
}
SCHEMES = ["postgresql", "postgres", "mysql", "mariadb+pymysql", "sqlite", "duckdb", "nosuch", "nosuch+driver"]


def told(call: Callable[[], Any]) -> str:
    """Return all that a refusal shows: its result, and its whole chain of exceptions with their values."""
    with pytest.raises(LTMError) as raised:
        call()
    links, error = [repr(raised.value.result)], raised.value
    links += traceback.format_exception(error)
    cause: BaseException | None = error
    while cause is not None:
        links.append(repr(cause))
        cause = cause.__cause__ or cause.__context__
    return "".join(link for link in links if "File " not in link)


@pytest.mark.driver
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("login", RAW_LOGINS.values(), ids=RAW_LOGINS.keys())
def test_a_login_that_is_not_percent_encoded_is_refused_by_every_class(scheme: str, login: str) -> None:
    url = f"{scheme}://{login}"
    refusals = [
        check_database(url)["error"],
        *(told(partial(each, url, lazy=True)) for each in (SQLAlchemyBackend, SQLAlchemyCatalog)),
        told(lambda: parse_ltm_config({"ltm": {"url": url, "lazy": True}})),
    ]
    if scheme.startswith("postgres"):
        refusals += [told(partial(each, url, lazy=True)) for each in (PostgresBackend, PostgresCatalog)]
    for refusal in refusals:
        assert "percent-encoded" in refusal
        assert not any(part in refusal for part in ("c4nary", "s3cret", "w#rd", "127.0.0.1"))


@pytest.mark.driver
@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/a@b.db",
        "sqlite:///a@b/c:d.db?mode=ro",
        "postgresql://u:p%40ss%2Fw%23rd@h:5432/db?application_name=a@b",
        "postgresql://[::1]:5432/db",
        "mysql://u:p#w@h/db",
        "sqlite+pysqlcipher://:k%40y@//tmp/x.db",
    ],
)
def test_what_is_encoded_or_a_file_is_taken(url: str) -> None:
    assert not has_raw_login(url)


OPTIONS = (
    *("pool_size", "echo", "lazy", "timeout", "connect_timeout", "pool_timeout", "max_overflow", "table_name"),
    *(
        "prepare_threshold",
        "create_tables",
        "search",
        "full_text",
        "engine_args",
        "connect_args",
        "storage",
        "catalog",
        "engine",
        "url",
    ),
    "backend",
)
WRONG: dict[str, Mapping[str, Any]] = {name: {"url": "sqlite://", "lazy": True, name: "${SECRET}"} for name in OPTIONS}
WRONG |= {
    "a part of a url": {"url": "postgresql://h:${SECRET}/db", "lazy": True},
    "another host": {"url": "postgresql://u:x@h/db?${SECRET}", "backend": "postgres", "lazy": True},
    "catalog.type": {"url": "sqlite://", "lazy": True, "catalog": {"type": "${SECRET}"}},
    "catalog.pool_size": {
        "url": "sqlite://",
        "lazy": True,
        "catalog": {"pool_size": "${SECRET}"},
    },
    "catalog.url": {"url": "sqlite://", "lazy": True, "catalog": {"url": "${SECRET}"}},
    "storage.uri": {"url": "sqlite://", "lazy": True, "storage": {"uri": "${SECRET}://x"}},
    "storage.inline_threshold": {"url": "sqlite://", "storage": {"uri": "./x", "inline_threshold": "${SECRET}"}},
    "native path": {"backend": "sqlite", "path": "${SECRET}/no/such/folder"},
    "native timeout": {"backend": "sqlite", "path": ":memory:", "timeout": "${SECRET}"},
    "native pool_size": {"backend": "postgres", "url": "postgresql://h/d", "pool_size": "${SECRET}", "lazy": True},
    "native lazy": {"backend": "postgres", "url": "postgresql://h/d", "lazy": "${SECRET}"},
    "native connect_timeout": {"backend": "postgres", "url": "postgresql://h/d", "connect_timeout": "${SECRET}"},
}


@pytest.mark.parametrize("config", WRONG.values(), ids=WRONG.keys())
def test_a_variable_under_the_wrong_option_is_not_shown(
    config: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", CANARY)
    assert CANARY not in told(lambda: parse_ltm_config({"ltm": config}))
    if isinstance(catalog := config.get("catalog"), Mapping):
        assert CANARY not in told(lambda: parse_catalog_config({"url": "sqlite://", **catalog}))


def test_the_message_says_which_option_and_what_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", CANARY)
    message = told(lambda: parse_ltm_config({"ltm": {"url": "sqlite://", "pool_size": "${SECRET}"}}))
    assert "settings.ltm.pool_size must be an integer of at least 1, not str" in message
    assert "not 0" in told(lambda: SQLAlchemyBackend("sqlite://", pool_size=0))
    assert "not None" in told(lambda: SQLAlchemyBackend("sqlite://", timeout=None))  # type: ignore[arg-type]
    assert "not int" in told(lambda: SQLAlchemyBackend("sqlite://", pool_size=-(10**5_000)))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_is_half_made_or_closed_has_a_repr(kind: Any) -> None:
    unmade = kind.__new__(kind)
    assert repr(unmade) == str(unmade) == f"{kind.__name__}()"
    place = ":memory:" if "SQLite" in kind.__name__ else f"postgresql://u:{CANARY}@127.0.0.1:1/db"
    options = {} if "SQLite" in kind.__name__ else {"lazy": True}
    made = kind(place, **options)
    made.close()
    assert repr(made).startswith(f"{kind.__name__}('")
    assert CANARY not in repr(made)
    broken = kind.__new__(kind)
    with pytest.raises((LTMError, TypeError)):
        broken.__init__(place, timeout=CANARY, **options)
    assert CANARY not in repr(broken)


@pytest.mark.driver
def test_options_of_a_pymysql_url_are_hidden_unless_they_are_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    query = f"charset=utf8mb4&auth={CANARY}&ssl_key={CANARY}&init_command={CANARY}&read_timeout=5&x={CANARY}"
    engine = create_engine(f"mysql+pymysql://u:{CANARY}@127.0.0.1:1/db?{query}", poolclass=NullPool)
    for options in ({"url": engine.url}, {"url": engine.url.render_as_string(hide_password=False)}, {"engine": engine}):
        with SQLAlchemyBackend(**options, lazy=True, timeout=3) as memory:
            shown = [repr(memory), str(memory), repr(memory._database.url), str(memory._database.url)]
            assert "charset=utf8mb4" in shown[0]
            assert "read_timeout=5" in shown[0]
            shown.append(repr(memory.store("k", CANARY)))
            shown.append(repr(memory._engine) if "url" in options else "")
            shown += [repr(memory._database._options), repr(vars(memory)), repr(vars(memory._database)["_options"])]
        assert not any(CANARY in each for each in shown), shown
    assert CANARY not in repr(check_database(engine.url.render_as_string(hide_password=False), timeout=3))
    assert CANARY not in caplog.text


@pytest.mark.targets("native", "portable", in_memory=False)
def test_a_whole_life_shows_no_secret(
    database: Database, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = {} if "native" in str(database) else {"echo": True}
    shown: list[Any] = []
    with database.open(**echo) as memory:
        shown += [memory.store("k", CANARY, {"a": CANARY})["success"], repr(memory), repr(memory.catalog)]
        shown += [memory.search(None, {CANARY: {"$gt": None}})["error"], memory.store("k", {1: CANARY})["error"]]
        shown += [memory.store("\ud800", CANARY)["error"], memory.store("k", CANARY, if_version=7)["error"]]
        shown += [memory.store_many([{"key": "k", CANARY: 1}])["error"], memory.search(CANARY)["count"]]
        work = memory.transaction()
        shown += [repr(work), work.store("k", CANARY)["success"], repr(work), work.commit()["success"], repr(work)]
    shown += [repr(memory), memory.store("k", CANARY)]
    out, err = capfd.readouterr()
    for text in (repr(shown), caplog.text, out, err):
        assert CANARY not in text


@pytest.mark.driver
@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["for people", "for programs"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:p@ss/w#rd@127.0.0.1:5432/db",
        f"postgresql://u:{CANARY}@127.0.0.1:1/db?sslpassword={CANARY}",
        f"mysql+pymysql://u:{CANARY}@127.0.0.1:1/db?auth={CANARY}",
        CANARY,
    ],
)
def test_the_check_shows_none(url: str, as_json: list[str]) -> None:
    said = CliRunner().invoke(app, ["memory", "check", "--timeout", "5", *as_json, "--url", url])
    assert said.exit_code == 1
    assert "failed" in said.output or '"success": false' in said.output
    assert not any(word in said.output for word in (CANARY, "ss/w", "w#rd"))
