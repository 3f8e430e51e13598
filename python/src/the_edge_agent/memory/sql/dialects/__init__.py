"""What differs between databases: a dialect each, over the portable one in `base`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Final

from sqlalchemy.engine import Dialect as EngineDialect

from the_edge_agent.memory.sql.dialects.base import BEGINS_ITSELF, SECONDS, Dialect
from the_edge_agent.memory.sql.dialects.base.upsert import Upsert

_PACKAGE: Final = "the_edge_agent.memory.sql.dialects"
_CLASSES: Final = {
    "sqlite": ("sqlite.dialect", "SQLiteDialect"),
    "postgresql": ("postgresql.dialect", "PostgreSQLDialect"),
    "mysql": ("mysql.dialect", "MySQLDialect"),
    "mariadb": ("mysql.mariadb", "MariaDBDialect"),
    "cockroachdb": ("contrib.cockroachdb", "CockroachDBDialect"),
    "duckdb": ("contrib.duckdb", "DuckDBDialect"),
    "firebird": ("contrib.firebird", "FirebirdDialect"),
}


def for_dialect(dialect: EngineDialect) -> type[Dialect]:
    """Return our class for a SQLAlchemy dialect; the portable one for a dialect without its own.

    A ``mysql://`` URL may lead to MariaDB, which is known only after the first connection.
    """
    return for_name("mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name)


@cache
def for_name(name: str) -> type[Dialect]:
    """Return our class for a dialect's name, as in a URL or as the dialect says it."""
    name = name.partition(".")[0]  # Firebird's calls itself firebird.firebird
    if name not in _CLASSES:
        return Dialect
    module, attribute = _CLASSES[name]
    found: type[Dialect] = getattr(import_module(f"{_PACKAGE}.{module}"), attribute)
    return found


__all__ = ["BEGINS_ITSELF", "SECONDS", "Dialect", "Upsert", "for_dialect", "for_name"]
