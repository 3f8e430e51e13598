"""The contenders that are measured: one entry for each, loaded when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

from benchmarks.player import Player

Kind: TypeAlias = Literal["bare", "ours", "variant", "peer"]


@dataclass(frozen=True)
class Contender:
    """One library on one database.

    Attributes:
        name: the name in the tables.
        database: sqlite, postgresql, mysql or mariadb.
        kind: the others on the same database are compared with ``bare``; a ``variant`` is ours with other tables.
        player: the module in this package, and the class.
        module: the module that must be installed.
        package: the distribution whose version the page shows.
    """

    name: str
    database: str
    kind: Kind
    player: str
    module: str
    package: str

    @property
    def title(self) -> str:
        """Its name with that of the database."""
        return f"{self.database}: {self.name}"

    def load(self) -> type[Player]:
        """Import its class."""
        module, _, name = self.player.partition(":")
        player: type[Player] = getattr(import_module(f"benchmarks.{module}"), name)
        return player

    def is_installed(self) -> bool:
        """Return whether its module is installed."""
        parts = self.module.split(".")
        return all(find_spec(".".join(parts[: end + 1])) for end in range(len(parts)))


BARE: Final = "bare driver"
_SQLALCHEMY: Final = "SQLAlchemyBackend"
_OURS: Final = "ours:OursOnSQLAlchemy"

# A variant of ours is another entry with a class that opens it. A variant without a text index does as much as a peer.
_WITHOUT: Final = ", search=False"
_OURS_WITHOUT: Final = "ours:OursOnSQLAlchemyWithoutSearch"
CONTENDERS: Final = (
    Contender(BARE, "sqlite", "bare", "bare_sqlite:BareSQLite", "sqlite3", ""),
    Contender(_SQLALCHEMY, "sqlite", "ours", _OURS, "sqlalchemy", "sqlalchemy"),
    Contender("SQLiteBackend", "sqlite", "ours", "ours:OursOnSQLite", "the_edge_agent", "the-edge-agent"),
    Contender(_SQLALCHEMY + _WITHOUT, "sqlite", "variant", _OURS_WITHOUT, "sqlalchemy", "sqlalchemy"),
    Contender(
        "SQLiteBackend" + _WITHOUT,
        "sqlite",
        "variant",
        "ours:OursOnSQLiteWithoutSearch",
        "the_edge_agent",
        "the-edge-agent",
    ),
    Contender(
        "LangGraph", "sqlite", "peer", "peers:LangGraphSQLite", "langgraph.store.sqlite", "langgraph-checkpoint-sqlite"
    ),
    Contender("diskcache", "sqlite", "peer", "peers:DiskCache", "diskcache", "diskcache"),
    Contender("sqlitedict", "sqlite", "peer", "peers:SqliteDict", "sqlitedict", "sqlitedict"),
    Contender(BARE, "postgresql", "bare", "bare_postgres:BarePostgres", "psycopg_pool", "psycopg"),
    Contender(_SQLALCHEMY, "postgresql", "ours", _OURS, "sqlalchemy", "sqlalchemy"),
    Contender("PostgresBackend", "postgresql", "ours", "ours:OursOnPostgres", "psycopg_pool", "psycopg-pool"),
    Contender(_SQLALCHEMY + _WITHOUT, "postgresql", "variant", _OURS_WITHOUT, "sqlalchemy", "sqlalchemy"),
    Contender(
        "PostgresBackend" + _WITHOUT,
        "postgresql",
        "variant",
        "ours:OursOnPostgresWithoutSearch",
        "psycopg_pool",
        "psycopg-pool",
    ),
    Contender(
        "LangGraph",
        "postgresql",
        "peer",
        "peers:LangGraphPostgres",
        "langgraph.store.postgres",
        "langgraph-checkpoint-postgres",
    ),
    Contender(BARE, "mysql", "bare", "bare_mysql:BareMySQL", "pymysql", "pymysql"),
    Contender(_SQLALCHEMY, "mysql", "ours", _OURS, "pymysql", "sqlalchemy"),
    Contender(_SQLALCHEMY + _WITHOUT, "mysql", "variant", _OURS_WITHOUT, "pymysql", "sqlalchemy"),
    Contender(BARE, "mariadb", "bare", "bare_mysql:BareMariaDB", "pymysql", "pymysql"),
    Contender(_SQLALCHEMY, "mariadb", "ours", _OURS, "pymysql", "sqlalchemy"),
    Contender(_SQLALCHEMY + _WITHOUT, "mariadb", "variant", _OURS_WITHOUT, "pymysql", "sqlalchemy"),
)
DATABASES: Final = tuple(dict.fromkeys(contender.database for contender in CONTENDERS))


def of_database(database: str) -> list[Contender]:
    """Return the contenders on a database that are installed, the bare driver first."""
    return [each for each in CONTENDERS if each.database == database and each.is_installed()]


def not_installed() -> list[Contender]:
    """Return the contenders whose modules are not installed."""
    return [each for each in CONTENDERS if not each.is_installed()]
