"""Database URLs: parse them, choose an installed driver, and hide secrets."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from the_edge_agent.memory.contract.extras import EXTRAS, extra_of
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import (
    SECRET_WORDS,
    STRAY_CHARACTER,
    has_control_character,
    has_raw_login,
    ordinary,
    words_of,
)
from the_edge_agent.memory.database.errors import Where

# A URL without a driver takes the first of these that is installed: (SQLAlchemy's name, module).
_MYSQL_DRIVERS: Final = (("mysqldb", "MySQLdb"), ("pymysql", "pymysql"))
_DRIVERS: Final = {
    "postgresql": (("psycopg", "psycopg"), ("psycopg2", "psycopg2")),
    "mysql": _MYSQL_DRIVERS,
    "mariadb": _MYSQL_DRIVERS,
}
_OTHER_DIALECTS: Final = ("cockroachdb", "duckdb", "firebird")  # dialects that other packages add to SQLAlchemy
_SECRET_WORDS: Final = (*SECRET_WORDS, "key")
_SHOWN: Final = (  # options of URLs that contain no secret; all others are hidden
    *("application_name", "cache", "charset", "check_same_thread", "client_encoding", "connect_timeout"),
    *("fb_client_library", "host", "hostaddr", "immutable", "isolation_level", "mode", "nolock", "port"),
    *("read_timeout", "sslmode", "ssl_disabled", "target_session_attrs", "timeout", "unix_socket", "uri"),
    *("use_unicode", "vfs", "write_timeout"),
)

OPTION_NAMES: Final = "the_edge_agent.given"  # execution option: the names of the driver arguments that the user passed

_PORTS: Final = {
    "postgresql": "5432",
    "cockroachdb": "26257",
    "mysql": "3306",
    "mariadb": "3306",
    "firebird": "3050",
}


class SafeURL(URL):
    """A URL that never shows its password. It shows only options that cannot contain a secret."""

    def render_as_string(self, hide_password: bool = True) -> str:
        """Return the URL as text, with ``***`` in place of possible secrets if ``hide_password`` is true."""
        if not hide_password:
            return super().render_as_string(hide_password=False)
        hidden = {name: "***" for name, value in self.query.items() if not _is_shown(name, value)}
        return URL.render_as_string(self.update_query_dict(hidden), hide_password=True)

    def __repr__(self) -> str:
        """Return the URL as text without secrets."""
        return self.render_as_string()

    def __str__(self) -> str:
        """Return the URL as text without secrets."""
        return self.render_as_string()


def _is_shown(name: str, value: Any) -> bool:
    return name.lower() in _SHOWN and not any(word in str(value).lower() for word in _SECRET_WORDS)


def parse_url(url: Any) -> tuple[URL, dict[str, Any]]:
    """Return a URL that shows no secret, and the driver arguments that must not be shown.

    ``postgres`` means ``postgresql``. A password in the query string becomes the URL's password, which SQLAlchemy
    hides.

    Raises:
        LTMError: ``configuration_error`` if it is not a database URL. The message never shows the URL.
    """
    if not isinstance(url, (str, URL)) or not url or "\0" in str(url):
        raise LTMError("configuration_error", "url must be a database URL such as sqlite:///memory.db")
    if isinstance(url, str) and has_control_character(url):
        raise LTMError("configuration_error", STRAY_CHARACTER)
    try:
        if isinstance(url, str) and has_raw_login(url):
            raise ValueError
        parsed: Any = SafeURL(*make_url(url))
        backend, _, driver = parsed.drivername.partition("+")
        if backend == "postgres":
            parsed = parsed.set(drivername=f"postgresql+{driver}" if driver else "postgresql")
        parsed.get_backend_name()
        if "@" in (parsed.host or ""):  # a part of a password that is not percent-encoded
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
    hidden = {name: value for name, value in parsed.query.items() if any(word in name for word in SECRET_WORDS)}
    parsed = parsed.difference_update_query(list(hidden))
    for name in ("password", "passwd"):
        if name in hidden and parsed.password is None:
            parsed = parsed.set(password=str(hidden.pop(name)))
    return parsed, hidden


def where_of(engine: Engine) -> Where:
    """Return the place to which an engine connects, for messages. Without a port in the URL it is the default port."""
    url = engine.url
    host = _text_of(url, "unix_socket", "host") or url.host or ""  # drivers prefer these options to the host
    port = _text_of(url, "port") or str(url.port or "") or _PORTS.get(url.get_backend_name(), "")
    shown_port = "" if host.startswith("/") else port
    options = ordinary([*url.query, *engine.get_execution_options().get(OPTION_NAMES, ())])
    return Where(url.username or "", host, shown_port, url.database or "", options)


def sent_words(url: URL) -> set[str]:
    """Return the parts of a URL that no message may show: the password, and words in options that may be secret."""
    options = [str(value) for name, value in url.query.items() if not _is_shown(name, value)]
    return words_of(options) | ({str(url.password)} if url.password else set())


def _text_of(url: URL, *names: str) -> str:
    values = (url.query.get(name) for name in names)
    return next((value for value in values if isinstance(value, str)), "")


def with_installed_driver(url: URL) -> URL:
    """Return the URL with the driver that will be used, without importing it.

    Raises:
        LTMError: ``dependency_missing`` if no driver is installed; the message names the extra to install.
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
    """Return the failure for a missing driver; the message says what to install."""
    if extra := extra_of(url.drivername):
        advice = f'; install it with: pip install "the-edge-agent[{extra}]"'
    else:
        others = _drivers_that_work(url)
        advice = f"; drivers that work: {others}" if others else ""
    return LTMError("dependency_missing", f"no driver for {url.drivername} is installed{advice}")


def _drivers_that_work(url: URL) -> str:
    backend = url.get_backend_name()
    return ", ".join(f"{backend}+{name}:// (extra {extra})" for name, extra in EXTRAS.get(backend, {}).items())


def asynchronous(url: URL) -> LTMError:
    """Return the failure for a URL with an asynchronous driver."""
    others = _drivers_that_work(url) or "a synchronous driver"
    return LTMError("configuration_error", f"{url.drivername} is an asynchronous driver; use {others}")


def load_dialect(url: URL) -> None:
    """Check that SQLAlchemy knows the dialect of a URL, and that its driver is not asynchronous.

    Raises:
        LTMError: ``configuration_error``, or ``dependency_missing`` if an extra would install the dialect.
    """
    try:
        dialect = url.get_dialect()
        is_known = True
    except NoSuchModuleError:
        is_known = False
    if is_known and dialect.is_async:
        raise asynchronous(url)
    if not is_known and url.get_backend_name() in _OTHER_DIALECTS:
        raise missing_driver(url)
    if not is_known:
        raise LTMError("configuration_error", f"SQLAlchemy knows no dialect {url.drivername!r}")
