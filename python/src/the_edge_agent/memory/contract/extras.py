"""Which of our extras brings what a database URL needs."""

from __future__ import annotations

from typing import Any, Final

# The usual driver first: the extra, by SQLAlchemy's name of the dialect and of the driver.
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
    """Return the extra for ``dialect+driver``, or for the usual driver of ``dialect``; None if none of ours does."""
    backend, _, driver = drivername.partition("+")
    extras = EXTRAS.get("postgresql" if backend == "postgres" else backend, {})
    return extras.get(driver) if driver else next(iter(extras.values()), None)


def naming_extra(error: ImportError, url: Any) -> str:
    """Return the message of a missing SQLAlchemy with the extra that the URL needs, which brings SQLAlchemy too."""
    extra = extra_of(url.partition("://")[0]) if isinstance(url, str) else None
    return str(error).replace(_SQLALCHEMY, f"[{extra}]") if extra else str(error)
