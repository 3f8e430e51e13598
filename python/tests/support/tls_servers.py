"""Servers that take encrypted connections only, with certificates of our own."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from databases import Database

SERVERS = Path(__file__).parents[3] / "scripts" / "servers.py"
# PostgreSQL comes in a build without TLS: PgBouncer encrypts for it.
NAMES = {"postgresql": "pgbouncer", "mysql": "mysql", "mariadb": "mariadb"}
Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@dataclass
class TLSServers:
    """Servers of one session, one of each family. Each is started when it is first used."""

    _folder: tempfile.TemporaryDirectory[str] | None = None
    _started: dict[str, tuple[subprocess.Popen[str], URL]] = field(default_factory=dict)

    @cached_property
    def certificates(self) -> Mapping[str, str]:
        """The files of the authority, of another one, and of the server with its key."""
        self._folder = tempfile.TemporaryDirectory(prefix="tea-tls-")  # pytest closes its own folders to other accounts
        folder = Path(self._folder.name)
        folder.chmod(0o755)  # the server has an account of its own
        ours = signed("tea tests")
        server, key = written(folder, "server", signed("tea server", ours))
        return {
            "ca": written(folder, "ca", ours)[0],
            "other": written(folder, "other", signed("tea tests"))[0],
            "server": server,
            "key": key,
        }

    def url_of(self, database: Database) -> URL:
        """Return the URL of the server for the family of a database; on PostgreSQL that of this database."""
        family = database.target.family
        if family not in self._started:
            self._started[family] = serve(NAMES[family], self.certificates)
        url = self._started[family][1]
        return url.set(database=make_url(database.url).database) if family == "postgresql" else url

    def stop(self) -> None:
        """Stop the servers and remove the certificates."""
        for process, _ in self._started.values():
            process.terminate()
            process.communicate()
        if self._folder:
            self._folder.cleanup()


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
