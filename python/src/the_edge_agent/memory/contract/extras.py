"""Which extra of this package installs the driver that a database URL needs."""

from __future__ import annotations

from typing import Any, Final

# For each dialect and driver, by SQLAlchemy's names, the extra. The first driver is the default.
_MYSQL: Final = {"pymysql": "mysql", "mysqldb": "mysqlclient", "mysqlconnector": "mysql-connector"}
EXTRAS: Final[dict[str, dict[str, str]]] = {
    "sqlite": {"pysqlite": "sqlalchemy", "pysqlcipher": "sqlcipher"},
    "postgresql": {"psycopg": "postgres", "psycopg2": "psycopg2"},
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "cockroachdb": {"psycopg": "cockroachdb"},
    "duckdb": {"duckdb_sqlalchemy": "duckdb"},
    "firebird": {"firebird": "firebird"},
}
_SQLALCHEMY: Final = "[sqlalchemy]"


def extra_of(drivername: str) -> str | None:
    """Return the extra for ``dialect+driver``, or for the default driver of ``dialect``; None if there is none."""
    backend, _, driver = drivername.partition("+")
    extras = EXTRAS.get("postgresql" if backend == "postgres" else backend, {})
    return extras.get(driver) if driver else next(iter(extras.values()), None)


def naming_extra(error: ImportError, url: Any) -> str:
    """Return the message of an ImportError; if SQLAlchemy is missing, it names the extra that the URL needs.

    That extra installs the driver and SQLAlchemy.
    """
    extra = extra_of(url.partition("://")[0]) if isinstance(url, str) else None
    return str(error).replace(_SQLALCHEMY, f"[{extra}]") if extra else str(error)
