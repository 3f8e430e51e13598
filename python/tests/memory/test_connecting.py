"""Errors when there is no connection: every driver gives the same ones, in whatever language the server writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from databases import Database
from refusing_server import RefusingServer
from the_edge_agent.memory import LTMError, PostgresBackend, SQLAlchemyBackend
from the_edge_agent.memory.core.results import Result

MODULES = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "native": "psycopg",
    "pymysql": "pymysql",
    "mysqldb": "MySQLdb",
    "mysqlconnector": "mysql.connector",
}
INSTALLED = [driver for driver, module in MODULES.items() if find_spec(module.partition(".")[0])]
OF_POSTGRES = [driver for driver in ("psycopg", "psycopg2", "native") if driver in INSTALLED]
OF_MYSQL = [driver for driver in ("pymysql", "mysqldb", "mysqlconnector") if driver in INSTALLED]
DRIVERS: Mapping[str, Sequence[str]] = {"postgresql": OF_POSTGRES, "mysql": OF_MYSQL, "mariadb": OF_MYSQL}
of_servers = pytest.mark.targets(server=True, portable=False, native=False)
NOT_READY = ("in recovery mode", "not yet accepting connections", "starting up", "shutting down")


def opened(url: URL, driver: str = "", **options: Any) -> Any:
    """Return a memory by a driver; ``native`` is the class without SQLAlchemy."""
    kind: Callable[..., Any] = PostgresBackend if driver == "native" else SQLAlchemyBackend
    backend = url.get_backend_name()
    drivername = backend if driver in ("", "native") else f"{backend}+{driver}"
    return kind(url.set(drivername=drivername).render_as_string(hide_password=False), **options)


def refusal(url: URL, driver: str = "", **options: Any) -> Result:
    """Return the failure of opening a memory by a driver."""
    with pytest.raises(LTMError) as raised:
        opened(url, driver, **options)
    return raised.value.result


def of_refusing(server: RefusingServer, **changes: Any) -> URL:
    url = URL.create("postgresql", "bob", "c4nary-s3cret", "127.0.0.1", server.port, "agents")
    return url.set(**changes)


@pytest.mark.parametrize("driver", OF_POSTGRES)
class TestAServerThatIsNotReady:
    @pytest.mark.parametrize("state", NOT_READY)
    def test_is_a_connection_error(self, driver: str, state: str) -> None:
        with RefusingServer("57P03", f"the database system is {state}") as server:
            result = refusal(of_refusing(server), driver)
        assert result["error_type"] == "connection_error"
        assert "starting, stopping or recovering" in result["error"]


GERMAN = {
    "28P01": ("Passwort-Authentifizierung für Benutzer »bob« fehlgeschlagen", "auth_failed", "(user bob, "),
    "28000": ("Rolle »bob« existiert nicht", "auth_failed", "(user bob, "),
    "3D000": ("Datenbank »agents« existiert nicht", "connection_error", "no such database (agents, "),
    "53300": ("tut mir leid, schon zu viele Verbindungen", "connection_error", "no connection left"),
    "57P03": ("das Datenbanksystem startet", "connection_error", "starting, stopping or recovering"),
    "42704": ("unbekannter Konfigurationsparameter »x«", "configuration_error", "one of the driver's options"),
    "XX000": ("etwas Neues mit »s3cret«", "connection_error", "it says: FATAL:  etwas Neues mit …"),
}


@pytest.mark.parametrize("driver", OF_POSTGRES)
class TestAServerThatSpeaksGerman:
    @pytest.mark.parametrize("code", GERMAN)
    def test_is_understood_by_its_codes(self, driver: str, code: str) -> None:
        text, error_type, words = GERMAN[code]
        with RefusingServer(code, text) as server:
            result = refusal(of_refusing(server), driver)
            assert server.count == 2  # the second attempt was traced
            again = refusal(of_refusing(server), driver)
            assert server.count == 3
        assert (result["error_type"], words in result["error"]) == (error_type, True), result
        assert again == result
        assert "s3cret" not in str(result)

    @pytest.mark.parametrize("code", GERMAN)
    def test_is_quoted_where_no_code_can_be_learnt(
        self, driver: str, code: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr("os.memfd_create", raising=False)
        text = GERMAN[code][0].replace("»", "„").replace("«", "“")
        with RefusingServer(code, text) as server:
            result = refusal(of_refusing(server), driver)
            assert server.count == 1
        assert result["error_type"] == "connection_error"
        assert f"it says: FATAL:  {text[:6]}" in result["error"]
        assert "bob" not in result["error"]
        assert "s3cret" not in str(result)

    def test_is_not_quoted_with_a_part_of_the_url(self, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr("os.memfd_create", raising=False)
        for text in ("ungültig: c4nary-s3cret", "ungültig: an.option"):
            with RefusingServer("42601", text) as server:
                url = of_refusing(server).update_query_dict({"options": "-c an.option=1"})
                result = refusal(url, driver)
            address = f"127.0.0.1:{url.port}"
            assert result["error"] == f"the database refused the connection ({address})"


@of_servers
def test_what_is_wrong_is_named(database: Database) -> None:
    url = make_url(database.url)
    cases = {
        "(127.0.0.1:1": ("connection_error", url.set(port=1)),
        "name is unknown (no-host.invalid": ("connection_error", url.set(host="no-host.invalid")),
        "no such database (tea_missing": ("connection_error", url.set(database="tea_missing")),
        "password (user tea_nobody": ("auth_failed", url.set(username="tea_nobody", password="c4nary-s3cret")),
    }
    for driver in DRIVERS[database.target.family]:
        for words, (error_type, wrong) in cases.items():
            result = refusal(wrong, driver)
            assert (result["error_type"], words in result["error"]) == (error_type, True), (driver, result)
            assert "c4nary" not in str(result)


@of_servers
def test_so_it_is_with_an_engine_of_the_application_s(database: Database) -> None:
    engine = create_engine(make_url(database.url).set(port=1), poolclass=NullPool)
    with pytest.raises(LTMError, match=r"cannot reach the database; .* \(127\.0\.0\.1:1"):
        SQLAlchemyBackend(engine=engine)
