"""Who is measured: one entry for each, loaded when it is needed."""

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
        name: as tables show it.
        database: sqlite, postgresql, mysql or mariadb.
        kind: bare is what the others of the same database are compared with; a variant is ours with other tables.
        player: the module in this package and the class.
        module: what must be installed.
        package: the distribution, whose version is told.
    """

    name: str
    database: str
    kind: Kind
    player: str
    module: str
    package: str

    @property
    def title(self) -> str:
        """Its name among those of all databases."""
        return f"{self.database}: {self.name}"

    def load(self) -> type[Player]:
        """Import its class."""
        module, _, name = self.player.partition(":")
        found: type[Player] = getattr(import_module(f"benchmarks.{module}"), name)
        return found

    def is_installed(self) -> bool:
        """Return whether it can be measured here."""
        parts = self.module.split(".")
        return all(find_spec(".".join(parts[: end + 1])) for end in range(len(parts)))


BARE: Final = "bare driver"
_SQLALCHEMY: Final = "SQLAlchemyBackend"
_OURS: Final = "ours:OursOnSQLAlchemy"

# A variant of ours is one more entry with a class that opens it. One without a text index does as much as a peer.
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
    """Return the contenders that cannot be measured here."""
    return [each for each in CONTENDERS if not each.is_installed()]
