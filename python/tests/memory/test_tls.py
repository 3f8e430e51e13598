"""Encrypted connections to servers with our own certificates, and the errors if encryption is not possible."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from test_connecting import DRIVERS, OF_POSTGRES, of_refusing, of_servers, opened, refusal

from databases import Database
from refusing_server import RefusingServer
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.sql.dialects.mysql.dialect import MySQLDialect

pytestmark = pytest.mark.slow

SERVERS = Path(__file__).parents[3] / "scripts" / "servers.py"
# PostgreSQL comes in a build without TLS: PgBouncer encrypts for it.
NAMES = {"postgresql": "pgbouncer", "mysql": "mysql", "mariadb": "mariadb"}
Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def signed(name: str, by: Authority | None = None) -> Authority:
    """Return a certificate of 127.0.0.1, or of an authority that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((by[1] if by else key).public_key()), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if by is None:
        signs = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = x509.KeyUsage(**dict.fromkeys(others, False), **signs, encipher_only=False, decipher_only=False)
        built = built.add_extension(usage, critical=True)
    else:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        built = built.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return built.sign(by[1] if by else key, hashes.SHA256()), key


def written(folder: Path, name: str, authority: Authority) -> tuple[str, str]:
    """Return the files of a certificate and its key, which the account of the server can read."""
    certificate, key = authority
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(private)
    return str(files[0]), str(files[1])


@pytest.fixture(scope="session")
def certificates() -> Iterator[Mapping[str, str]]:
    """The files of the authority, of another one, and of the server."""
    with tempfile.TemporaryDirectory(prefix="tea-tls-") as name:  # pytest closes its own folders to other accounts
        folder = Path(name)
        folder.chmod(0o755)  # the server has an account of its own
        ours = signed("tea tests")
        server, key = written(folder, "server", signed("tea server", ours))
        yield {
            "ca": written(folder, "ca", ours)[0],
            "other": written(folder, "other", signed("tea tests"))[0],
            "server": server,
            "key": key,
        }


@pytest.fixture(scope="session")
def encrypting(certificates: Mapping[str, str]) -> Iterator[Callable[[Database], URL]]:
    """What starts a server that takes encrypted connections only, one of each family, and returns its URL."""
    started: dict[str, tuple[subprocess.Popen[str], URL]] = {}

    def url_of(database: Database) -> URL:
        family = database.target.family
        if family not in started:
            started[family] = serve(NAMES[family], certificates)
        url = started[family][1]
        return url.set(database=make_url(database.url).database) if family == "postgresql" else url

    yield url_of
    for process, _ in started.values():
        process.terminate()
        process.communicate()


def serve(name: str, certificates: Mapping[str, str]) -> tuple[subprocess.Popen[str], URL]:
    mysql = {"ssl_cert": "server", "ssl_key": "key", "ssl_ca": "ca"}
    pgbouncer = {"client_tls_cert_file": "server", "client_tls_key_file": "key"}
    files = pgbouncer if name == "pgbouncer" else mysql
    settings = {option: certificates[file] for option, file in files.items()}
    settings |= {"client_tls_sslmode": "require"} if name == "pgbouncer" else {"require_secure_transport": "ON"}
    command = [sys.executable, str(SERVERS), "serve", "--only", name]
    for option, value in settings.items():
        command += ["--set", f"{name}.{option}={value}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if found := re.fullmatch(rf"export TEST_{name.upper()}_URL='?(.+?)'?\n", line):
            return process, make_url(found[1])
    raise AssertionError(f"{name} did not start")


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
