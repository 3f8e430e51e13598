"""Database URLs: what they mean, which installed driver serves them, and no secret where it could be shown."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from the_edge_agent.memory.results import LTMError

# A URL without a driver takes the first of these that is installed: (SQLAlchemy's name, module).
_MYSQL_DRIVERS: Final = (("mysqldb", "MySQLdb"), ("pymysql", "pymysql"))
_DRIVERS: Final = {
    "postgresql": (("psycopg", "psycopg"), ("psycopg2", "psycopg2")),
    "mysql": _MYSQL_DRIVERS,
    "mariadb": _MYSQL_DRIVERS,
}
# What our extras bring, the usual driver first: the extra, by SQLAlchemy's name of the dialect and of the driver.
_MYSQL_EXTRAS: Final = {"pymysql": "mysql", "mysqldb": "mysqlclient", "mysqlconnector": "mysql-connector"}
_EXTRAS: Final[dict[str, dict[str, str]]] = {
    "sqlite": {"pysqlite": "sqlalchemy", "pysqlcipher": "sqlcipher"},
    "postgresql": {"psycopg": "postgres", "psycopg2": "psycopg2"},
    "mysql": _MYSQL_EXTRAS,
    "mariadb": _MYSQL_EXTRAS,
    "cockroachdb": {"psycopg": "cockroachdb"},
    "duckdb": {"duckdb_sqlalchemy": "duckdb"},
    "firebird": {"firebird": "firebird"},
}
_OTHER_DIALECTS: Final = ("cockroachdb", "duckdb", "firebird")  # that are not SQLAlchemy's own
_SECRET_WORDS: Final = ("pass", "pwd", "secret", "token")


def parse_url(url: Any) -> tuple[URL, dict[str, Any]]:
    """Return the URL with its driver, and the driver arguments that must not be shown.

    ``postgres`` means ``postgresql``. A password in the query string moves to where SQLAlchemy hides it.

    Raises:
        LTMError: ``configuration_error`` for what is no database URL; it never shows the URL.
    """
    if not isinstance(url, (str, URL)) or not url or "\0" in str(url):
        raise LTMError("configuration_error", "url must be a database URL such as sqlite:///memory.db")
    try:
        parsed = make_url(url)
        backend, _, driver = parsed.drivername.partition("+")
        if backend == "postgres":
            parsed = parsed.set(drivername=f"postgresql+{driver}" if driver else "postgresql")
        parsed.get_backend_name()
        if "@" in (parsed.host or ""):  # the rest of a password that is not percent-encoded
            raise ValueError
    except (ArgumentError, ValueError, TypeError):
        parsed = None
    if parsed is None:
        raise LTMError(
            "configuration_error",
            "url cannot be parsed; expected dialect[+driver]://user:password@host:port/database, "
            "with special characters in user and password percent-encoded",
        )
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise LTMError("configuration_error", "the port in the url must be a number from 1 to 65,535")
    hidden = {name: value for name, value in parsed.query.items() if any(word in name for word in _SECRET_WORDS)}
    parsed = parsed.difference_update_query(list(hidden))
    for name in ("password", "passwd"):
        if name in hidden and parsed.password is None:
            parsed = parsed.set(password=str(hidden.pop(name)))
    return parsed, hidden


def shown(url: URL) -> str:
    """Return a URL with its password hidden, and whatever in its query could hold one."""
    secrets = {name: "***" for name, value in url.query.items() if _is_secret(f"{name} {value}")}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def _is_secret(text: str) -> bool:
    return any(word in text.lower() for word in _SECRET_WORDS)


def with_installed_driver(url: URL) -> URL:
    """Return the URL with the driver that will be used, without importing it.

    Raises:
        LTMError: ``dependency_missing`` with the extra to install, if there is none;
            ``configuration_error`` for a dialect that SQLAlchemy does not know.
    """
    backend, _, named = url.drivername.partition("+")
    drivers = _DRIVERS.get(backend, ())
    if named or not drivers:
        return url
    for driver, module in drivers:
        if find_spec(module) is not None:
            return url.set(drivername=f"{backend}+{driver}")
    raise missing_driver(url)


def missing_driver(url: URL) -> LTMError:
    """Return the failure that names what to install for a URL."""
    backend, _, driver = url.drivername.partition("+")
    extras = _EXTRAS.get(backend, {})
    if driver and extras and driver not in extras:
        others = ", ".join(f"{backend}+{name}:// (extra {extra})" for name, extra in extras.items())
        advice = f"; drivers that work: {others}"
    else:
        extra = extras.get(driver) or next(iter(extras.values()), None)
        advice = f'; install it with: pip install "the-edge-agent[{extra}]"' if extra else ""
    return LTMError("dependency_missing", f"no driver for {url.drivername} is installed{advice}")


def load_dialect(url: URL) -> None:
    """Check that SQLAlchemy knows the dialect of a URL.

    Raises:
        LTMError: ``configuration_error``; ``dependency_missing`` for a dialect that an extra brings.
    """
    try:
        url.get_dialect()
        known = True
    except NoSuchModuleError:
        known = False
    if not known and url.get_backend_name() in _OTHER_DIALECTS:
        raise missing_driver(url)
    if not known:
        raise LTMError("configuration_error", f"SQLAlchemy knows no dialect {url.drivername!r}")
