"""Encrypted connections to servers with our own certificates, and the errors if encryption is not possible."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from test_connecting import DRIVERS, OF_POSTGRES, of_refusing, of_servers, opened, refusal

from databases import Database
from refusing_server import RefusingServer
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.sql.dialects.mysql.dialect import MySQLDialect
from tls_servers import TLSServers

pytestmark = pytest.mark.slow


@pytest.fixture
def certificates(tls: TLSServers) -> Mapping[str, str]:
    """The files of the authority, of another one, and of the server."""
    return tls.certificates


@pytest.fixture
def encrypting(tls: TLSServers) -> Callable[[Database], URL]:
    """What starts a server that takes encrypted connections only, one of each family, and returns its URL."""
    return tls.url_of


Options = Mapping[str, str]
TRUSTED: Mapping[str, Options] = {
    **{driver: {"sslmode": "verify-full", "sslrootcert": "ca"} for driver in OF_POSTGRES},
    "pymysql": {"ssl_ca": "ca"},
    "mysqldb": {"ssl_ca": "ca"},
    "mysqlconnector": {"ssl_ca": "ca", "ssl_verify_cert": "true", "ssl_verify_identity": "true"},
}
UNVERIFIED: Mapping[str, Options] = {
    **{driver: {"sslmode": "require"} for driver in OF_POSTGRES},
    "pymysql": {"ssl_check_hostname": "false"},
    "mysqldb": {"ssl_mode": "REQUIRED"},
    "mysqlconnector": {"ssl_verify_cert": "false"},
}
PLAIN: Mapping[str, Options] = {
    **{driver: {"sslmode": "disable"} for driver in OF_POSTGRES},
    "pymysql": {"ssl_disabled": "true"},
    "mysqldb": {"ssl_mode": "DISABLED"},
    "mysqlconnector": {"ssl_disabled": "true"},
}


def with_options(url: URL, options: Mapping[str, str], certificates: Mapping[str, str], **others: str) -> URL:
    names = {**certificates, **others}
    return url.update_query_dict({name: names.get(value, value) for name, value in options.items()})


@of_servers
class TestAnEncryptingServer:
    @pytest.mark.parametrize("options", [TRUSTED, UNVERIFIED], ids=["verified", "unverified"])
    def test_serves_every_driver(
        self, database: Database, encrypting: Any, certificates: Mapping[str, str], options: Any
    ) -> None:
        for driver in DRIVERS[database.target.family]:
            with opened(with_options(encrypting(database), options[driver], certificates), driver) as memory:
                assert memory.store("k", 1)["success"], driver
                assert memory.retrieve("k")["value"] == 1, driver

    def test_of_an_authority_that_is_not_trusted_is_refused(
        self, database: Database, encrypting: Any, certificates: Mapping[str, str]
    ) -> None:
        for driver in DRIVERS[database.target.family]:
            url = with_options(encrypting(database), TRUSTED[driver], certificates, ca=certificates["other"])
            result = refusal(url, driver)
            assert result["error_type"] == "connection_error", (driver, result)
            assert "the certificate of the server cannot be verified" in result["error"], (driver, result)
            assert set(TRUSTED[driver]) <= set(re.findall("[a-z_]+", result["error"])), (driver, result)

    def test_takes_no_other_connections_and_says_so(
        self, database: Database, encrypting: Any, certificates: Mapping[str, str]
    ) -> None:
        for driver in DRIVERS[database.target.family]:
            result = refusal(with_options(encrypting(database), PLAIN[driver], certificates), driver)
            if database.target.family == "mariadb":  # it gives no other reason than for a wrong password
                assert result["error_type"] == "auth_failed", (driver, result)
                continue
            assert result["error_type"] == "configuration_error", (driver, result)
            assert "takes encrypted connections only" in result["error"], (driver, result)

    def test_with_another_name_is_refused(
        self, database: Database, encrypting: Any, certificates: Mapping[str, str]
    ) -> None:
        for driver in DRIVERS[database.target.family]:
            if driver == "mysqldb":  # its library takes the name for a socket's
                continue
            result = refusal(
                with_options(encrypting(database).set(host="localhost"), TRUSTED[driver], certificates), driver
            )
            assert "the certificate of the server cannot be verified" in result["error"], (driver, result)


@pytest.mark.parametrize("driver", OF_POSTGRES)
def test_a_postgresql_server_without_tls_is_refused_soon(driver: str) -> None:
    with RefusingServer("XX000", "never said") as server:
        result = refusal(of_refusing(server).update_query_dict({"sslmode": "require"}), driver)
    assert result["error_type"] == "configuration_error"
    assert re.search(r"the server has no TLS, .* \(sslmode\)", result["error"])


@pytest.mark.targets(of_mysql=True, portable=False)
class TestADriverThatPassesOverTheWish:
    def test_is_refused_where_it_has_not_encrypted(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MySQLDialect.features, "cipher", "SELECT 'Ssl_cipher', ''")
        result = refusal(make_url(database.url), "pymysql", connect_args={"ssl_verify_cert": None})
        assert (result["error_type"], "is not encrypted" in result["error"]) == ("configuration_error", True)

    def test_so_is_mysqlclient(self, database: Database) -> None:
        for driver in {"mysqldb"} & set(DRIVERS["mysql"]):
            url = make_url(database.url).update_query_dict({"ssl_check_hostname": "true"})
            result = refusal(url, driver)
            assert result["error_type"] == "configuration_error"
            assert re.search(r"is not encrypted .* \(ssl_check_hostname\)", result["error"])


@pytest.mark.targets(of_mysql=True, portable=False)
class TestOptionsOfAURL:
    def test_that_name_a_missing_file_are_refused(self, database: Database) -> None:
        for driver in DRIVERS[database.target.family]:
            result = refusal(make_url(database.url).update_query_dict({"ssl_ca": "/none.pem"}), driver)
            assert (result["error_type"], "ssl_ca" in result["error"]) == ("configuration_error", True), driver

    def test_that_name_a_missing_file_in_connect_args_are_refused(self, database: Database) -> None:
        result = refusal(make_url(database.url), "pymysql", connect_args={"ssl": {"ca": "/none.pem"}})
        assert (result["error_type"], "ssl_ca" in result["error"]) == ("configuration_error", True)

    def test_that_turn_tls_off_may_say_that_they_do_not(self, database: Database) -> None:
        ciphers = {}
        for option in (None, "false", "true"):
            url = make_url(database.url).set(drivername=f"{database.target.family}+pymysql")
            memory: Any = SQLAlchemyBackend(url if option is None else url.update_query_dict({"ssl_disabled": option}))
            with memory, memory._engine.connect() as connection:
                ciphers[option] = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1]
        assert ciphers["false"] == ciphers[None]
        assert ciphers["true"] == ""
        result = refusal(make_url(database.url).update_query_dict({"ssl_disabled": "perhaps"}), "pymysql")
        assert result["error_type"] == "configuration_error"

    @pytest.mark.parametrize("option", ["ssl", "ssl-mode", "sslmode", "pgbouncer"])
    def test_that_a_driver_does_not_know_are_named(self, database: Database, option: str) -> None:
        for driver in DRIVERS[database.target.family]:
            result = refusal(make_url(database.url).update_query_dict({option: "true"}), driver)
            assert result["error_type"] == "configuration_error", (driver, result)
            assert re.search(rf"\b{option}\b", result["error"]), (driver, result)


@pytest.mark.parametrize("driver", OF_POSTGRES)
@pytest.mark.parametrize(
    ("option", "value"), [("sslrootcert", "/none.pem"), ("sslmode", "often"), ("pgbouncer", "true")]
)
def test_options_of_a_postgresql_url_that_cannot_be_are_named(driver: str, option: str, value: str) -> None:
    with RefusingServer("XX000", "never said") as server:
        result = refusal(of_refusing(server).update_query_dict({option: value}), driver)
        assert server.count == 0
    assert result["error_type"] == "configuration_error"
    assert option in result["error"]
