"""The databases that fault tests use, each with the memory class that is tested."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from faults.clusters import VARIABLES
from the_edge_agent.memory import PostgresBackend, SQLAlchemyBackend, SQLiteBackend

SERVERS = {"postgresql": "TEST_POSTGRES_URL", "mysql": "TEST_MYSQL_URL", "mariadb": "TEST_MARIADB_URL"}
OF_ONE_SERVER = ("sqlite", "sqlite-native", "postgresql", "postgresql-native", "mysql", "mariadb")
NAMES = (*OF_ONE_SERVER, *VARIABLES)


@dataclass(frozen=True)
class Target:
    """A database of one test, and the class that uses it.

    Attributes:
        name: one of ``NAMES``.
        url: the URL of the database, for SQLAlchemy; for a cluster, the URLs of all nodes.
    """

    name: str
    url: str

    @property
    def is_server(self) -> bool:
        """Whether the database is on a server, not in a file."""
        return not self.name.startswith("sqlite")

    @property
    def is_native(self) -> bool:
        """Whether the class does not use SQLAlchemy."""
        return self.name.endswith("-native")

    @property
    def path(self) -> str:
        """The path of the file, if the database is a file."""
        return str(make_url(self.url).database)

    def open(self, *, pool_size: int = 5, url: str | None = None, **options: Any) -> Any:
        """Open a memory. ``url`` replaces the address of the database, for example by that of a proxy."""
        return opened(self.name, url or self.url, pool_size=pool_size, **options)

    def process(self) -> int:
        """Return the id of the server's process."""
        if self.name.startswith("postgresql"):
            return int(str(self.ask("SELECT pg_read_file('postmaster.pid')")).split()[0])
        return int(Path(str(self.ask("SELECT @@pid_file"))).read_text())

    def kill(self) -> None:
        """Kill the server, with all of its processes."""
        processes = [self.process()]
        if self.name.startswith("postgresql"):
            children = Path(f"/proc/{processes[0]}/task/{processes[0]}/children")
            processes += map(int, children.read_text().split())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def ask(self, query: str) -> Any:
        """Run a query on a new connection, and return its value."""
        return self._run(lambda connection: connection.scalar(text(query)))

    def run(self, statement: str) -> None:
        """Run a statement on a new connection."""
        self._run(lambda connection: connection.execute(text(statement)))

    def _run(self, work: Callable[[Connection], Any]) -> Any:
        engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            return work(connection)


def opened(name: str, url: str, *, pool_size: int = 5, **options: Any) -> Any:
    """Return a memory of the class that belongs to the name of a target."""
    place = make_url(url)
    if name == "sqlite-native":
        return SQLiteBackend(str(place.database), **options)
    if name == "postgresql-native":
        address = place.set(drivername="postgresql").render_as_string(hide_password=False)
        return PostgresBackend(address, pool_size=pool_size, **options)
    return SQLAlchemyBackend(url, pool_size=pool_size, max_overflow=0, **options)


@contextlib.contextmanager
def target(name: str) -> Iterator[Target]:
    """Create a database, and drop it at the end; yield the target.

    Raises:
        LookupError: the environment names no server of this kind.
    """
    if name in VARIABLES:
        yield Target(name, os.environ[VARIABLES[name]])
        return
    family = name.removesuffix("-native")
    if family == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield Target(name, f"sqlite:///{folder}/memory.db")
        return
    address = os.environ.get(SERVERS[family])
    if not address:
        raise LookupError(f"{SERVERS[family]} is not set")
    database = f"tea_faults_{secrets.token_hex(6)}"
    engine = create_engine(address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {database}"))
    try:
        yield Target(name, make_url(address).set(database=database).render_as_string(hide_password=False))
    finally:
        force = " WITH (FORCE)" if family == "postgresql" else ""
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {database}{force}"))
