"""``MySQLEngines`` prepares engines for MySQL, ``MySQLSessions`` its connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.util import asbool

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import BEGINS_ITSELF, COMMITS_ALONE, IN_USE, Engines, Sessions
from the_edge_agent.memory.sql.dialects.mysql.settings import check, check_charset, settings, without_galera
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import current

_IN_TRANSACTION: Final = 1  # SERVER_STATUS_IN_TRANS
_UNKNOWN_VARIABLE: Final = 1193
_LENT: Final = "the_edge_agent.lent"
_NO_SSL: Final = (
    "the url takes no option ssl; ssl_ca=FILE names the certificate of the authority that signed the server's, and "
    "encrypts the connection; all other options go into connect_args"
)
_NO_TLS: Final = "ssl_disabled"
_tls_context: Any = None  # of connections by PyMySQL that have no TLS option


class MySQLEngines(Engines):
    """Engines for MySQL."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the time limits for connecting and, if the driver has them, for reading and writing."""
        if driver == "pymysql":
            later = timeout + 1  # than our own deadline, whose error message is clearer
            limits = {"connect_timeout": connect_timeout, "read_timeout": later, "write_timeout": later}
            return {"charset": "utf8mb4", **limits}
        name = "connection_timeout" if driver == "mysqlconnector" else "connect_timeout"
        return {"charset": "utf8mb4", name: max(1, round(connect_timeout))}

    def check_options(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse a character set that loses characters. Refuse ``ssl``, which drivers reject or ignore in a URL.

        The character set in the URL may be in upper or lower case, because ours replaces it.
        """
        if "ssl" in url.query:
            raise LTMError("configuration_error", _NO_SSL)
        named = url.query.get("charset")
        check_charset(named.lower() if isinstance(named, str) else named, connect_args.get("charset"))

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Mark the engine: its connections are in autocommit mode, and a statement begins each transaction."""
        url, options = super().arguments(url)
        options |= {"execution_options": {BEGINS_ITSELF: True}}
        if url.get_driver_name() == "pymysql" and (disabled := url.query.get(_NO_TLS)) is not None:
            try:  # PyMySQL takes any text for true
                options["connect_args"] = {_NO_TLS: asbool(disabled)}
            except ValueError:
                raise LTMError("configuration_error", f"{_NO_TLS} must be true or false") from None
            url = url.difference_update_query([_NO_TLS])
        if url.password and url.get_driver_name() == "pymysql" and not url.password.isascii():
            options.setdefault("connect_args", {})["password"] = (
                url.password.encode()
            )  # PyMySQL encodes a str in Latin-1
        return url, options

    def connect(self, dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Let PyMySQL's connections share one TLS context, unless an option sets TLS."""
        has_options = any(name.startswith(("ssl", "read_default")) for name in kwargs)
        if dialect.driver != "pymysql" or has_options:
            return super().connect(dialect, args, kwargs)
        return _connect_by_pymysql(dialect, args, kwargs)

    def prepare(self, engine: Engine) -> None:
        """Switch autocommit off while code other than our calls has a connection, because it sends no BEGIN."""

        @event.listens_for(engine, "engine_connect")
        def lend(connection: Connection) -> None:
            if current() is None:
                connection.info[_LENT] = True
                _set_autocommit(connection.connection, "0")

        @event.listens_for(engine, "checkin")
        def take_back(driver_connection: Any, record: Any) -> None:
            if record.info.pop(_LENT, False) and driver_connection is not None:
                try:
                    _set_autocommit(driver_connection, "1")
                except Exception:  # a lost connection must not be used again
                    record.invalidate()


class MySQLSessions(Sessions):
    """Connections to MySQL."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return the statement that sets all settings that change results, whatever was set before."""
        return [settings(timeout, idle)]

    def set_up(self, cursor: Any, setting: str) -> None:
        """Run the statement; without Galera, leave out the settings that only Galera knows."""
        try:
            cursor.execute(setting)
        except Exception as error:
            if error.args[:1] != (_UNKNOWN_VARIABLE,):
                raise
            cursor.execute(without_galera(setting))

    def check(self, connection: Connection, *, is_ours: bool) -> None:
        """Check all settings that change results, in one statement."""
        check(connection, is_ours=is_ours)

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit of the driver. The server's last response says whether there is a transaction."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)
        autocommit = get_autocommit() if get_autocommit else getattr(driver_connection, "autocommit", False)
        if autocommit is True or autocommit == 1:
            return COMMITS_ALONE
        status = getattr(driver_connection, "server_status", 0)
        return IN_USE if is_shared and status & _IN_TRANSACTION else None

    def socket_of(self, driver_connection: Any) -> int:
        """Return the file descriptor of the socket, which has a different name in each driver."""
        if hasattr(driver_connection, "fileno"):  # mysqlclient
            return int(driver_connection.fileno())
        socket = internals.socket_of_connector(driver_connection) or internals.socket_of_pymysql(driver_connection)
        return -1 if socket is None else int(socket.fileno())


def _connect_by_pymysql(dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Connect by PyMySQL without TLS options: the connection is encrypted if the server supports it, as of PyMySQL 1.2.

    PyMySQL reads the machine's certificates for each connection, but verifies nothing with them. This takes 25
    milliseconds, more than the rest of connecting. So we reuse one TLS context.
    """
    global _tls_context
    if _tls_context is None:
        connection: Any = dialect.connect(*args, **kwargs)
        _tls_context = connection.ctx if connection.ssl else None
        return connection
    connection = dialect.connect(*args, **{**kwargs, "ssl_disabled": True, "defer_connect": True})
    connection.ssl, connection.ctx = True, _tls_context
    connection.connect()
    return connection


def _set_autocommit(connection: Any, state: str) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET autocommit = {state}")
    cursor.close()
