"""The dialects: each database has one, which replaces parts of the portable dialect in `base`."""

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
    """Return our class for a SQLAlchemy dialect. A database without a class of its own gets the portable one.

    A ``mysql://`` URL may lead to MariaDB. SQLAlchemy knows this only after the first connection.
    """
    return for_name("mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name)


@cache
def for_name(name: str) -> type[Dialect]:
    """Return our class for the name of a dialect, as it is in a URL or in SQLAlchemy's ``dialect.name``."""
    name = name.partition(".")[0]  # Firebird's dialect is named firebird.firebird
    if name not in _CLASSES:
        return Dialect
    module, attribute = _CLASSES[name]
    dialect_class: type[Dialect] = getattr(import_module(f"{_PACKAGE}.{module}"), attribute)
    return dialect_class


__all__ = ["BEGINS_ITSELF", "SECONDS", "Dialect", "Upsert", "for_dialect", "for_name"]
