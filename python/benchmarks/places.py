"""The places where contenders store their data: files in a folder, and new databases on the servers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

SERVERS: Final[Mapping[str, str]] = {
    "postgresql": "TEST_POSTGRES_URL",
    "mysql": "TEST_MYSQL_URL",
    "mariadb": "TEST_MARIADB_URL",
}
_CREATE: Final[Mapping[str, str]] = {
    "postgresql": "CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    "mysql": "CREATE DATABASE {} CHARACTER SET utf8mb4",
    "mariadb": "CREATE DATABASE {} CHARACTER SET utf8mb4",
}
_DROP: Final[Mapping[str, str]] = {
    "postgresql": "DROP DATABASE IF EXISTS {} WITH (FORCE)",
    "mysql": "DROP DATABASE IF EXISTS {}",
    "mariadb": "DROP DATABASE IF EXISTS {}",
}
_MAINTAIN: Final[Mapping[str, str]] = {
    "postgresql": "VACUUM ANALYZE",
    "mysql": "ANALYZE TABLE ltm_entries",
    "mariadb": "ANALYZE TABLE ltm_entries",
}
_FACTS: Final[Mapping[str, tuple[str, ...]]] = {
    "postgresql": ("SHOW server_version", "SHOW shared_buffers", "SHOW fsync"),
    "mysql": ("SELECT version()", "SELECT @@innodb_buffer_pool_size", "SELECT @@innodb_flush_log_at_trx_commit"),
    "mariadb": ("SELECT version()", "SELECT @@innodb_buffer_pool_size", "SELECT @@innodb_flush_log_at_trx_commit"),
}


def is_reachable_by_name(database: str) -> bool:
    """Return whether the environment names the server of a database, or the database needs no server."""
    return database not in SERVERS or bool(os.environ.get(SERVERS[database]))


@contextmanager
def new_place(database: str, folder: Path) -> Iterator[str]:
    """Create an empty place for one contender, a path or a URL, and remove it at the end."""
    name = f"tea_bench_{secrets.token_hex(6)}"
    if database not in SERVERS:
        yield str(folder / f"{name}.db")
        return
    url = os.environ[SERVERS[database]]
    _run(database, url, _CREATE[database].format(name))
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        _run(database, url, _DROP[database].format(name))


def maintain(database: str, place: str) -> None:
    """Update the statistics of a server, on which its plans depend; it does that by itself only after some minutes."""
    if database in _MAINTAIN:
        _run(database, place, _MAINTAIN[database])


def server_facts(database: str) -> dict[str, str]:
    """Return the version of a server and the settings that decide how fast it is."""
    url = os.environ[SERVERS[database]]
    return {query.split()[-1].strip("@()"): str(_run(database, url, query)[0][0]) for query in _FACTS[database]}


def _run(database: str, url: str, statement: str) -> Any:
    connection = _connect(database, url)
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _connect(database: str, url: str) -> Any:
    if database == "postgresql":
        import psycopg

        return psycopg.connect(url.replace("+psycopg://", "://"), autocommit=True)
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/") or None,
        autocommit=True,
    )
