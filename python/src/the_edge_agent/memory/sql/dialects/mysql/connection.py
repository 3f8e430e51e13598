"""How engines for MySQL are made, and what is done with connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine import Dialect as EngineDialect

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import BEGINS_ITSELF, COMMITS_ALONE, IN_USE, Engines, Sessions
from the_edge_agent.memory.sql.dialects.mysql.settings import check, check_charset, settings, without_galera
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import current

_IN_TRANSACTION: Final = 1  # SERVER_STATUS_IN_TRANS
_UNKNOWN_VARIABLE: Final = 1193
_LENT: Final = "the_edge_agent.lent"
_NO_SSL: Final = (
    "ssl is no option of the url; ssl_ca=FILE names the certificate of the authority that has signed the server's, and "
    "encrypts the connection; all else goes into connect_args"
)
_tls_context: Any = None  # of PyMySQL's connections without options


class MySQLEngines(Engines):
    """Engines for MySQL."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the limits for connecting and, where the driver has them, for reading and writing."""
        if driver == "pymysql":
            later = timeout + 1  # than our own deadline, which says what happened
            limits = {"connect_timeout": connect_timeout, "read_timeout": later, "write_timeout": later}
            return {"charset": "utf8mb4", **limits}
        name = "connection_timeout" if driver == "mysqlconnector" else "connect_timeout"
        return {"charset": "utf8mb4", name: max(1, round(connect_timeout))}

    def check_options(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse a character set that loses characters, and ``ssl``, which drivers refuse in a URL or pass over.

        The name of the character set in the URL may be in any case: ours replaces it.
        """
        if "ssl" in url.query:
            raise LTMError("configuration_error", _NO_SSL)
        named = url.query.get("charset")
        check_charset(named.lower() if isinstance(named, str) else named, connect_args.get("charset"))

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Have transactions begun by a statement: connections rest in autocommit."""
        url, options = super().arguments(url)
        options |= {"execution_options": {BEGINS_ITSELF: True}}
        if url.password and url.get_driver_name() == "pymysql" and not url.password.isascii():
            options["connect_args"] = {"password": url.password.encode()}  # of text it sends Latin-1
        return url, options

    def connect(self, dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Let connections by PyMySQL share what they use for TLS, unless an option says how it is to be."""
        has_options = any(name.startswith(("ssl", "read_default")) for name in kwargs)
        if dialect.driver != "pymysql" or has_options:
            return super().connect(dialect, args, kwargs)
        return _connect_by_pymysql(dialect, args, kwargs)

    def prepare(self, engine: Engine) -> None:
        """Turn autocommit off as long as others than our calls have a connection: they begin no transaction."""

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
                except Exception:  # a lost connection, which the next one must not get
                    record.invalidate()


class MySQLSessions(Sessions):
    """Connections to MySQL."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Set all that answers depend on, whatever the server, the user or ``connect_args`` have set."""
        return [settings(timeout, idle)]

    def set_up(self, cursor: Any, setting: str) -> None:
        """Leave out what a server without Galera does not know."""
        try:
            cursor.execute(setting)
        except Exception as error:
            if error.args[:1] != (_UNKNOWN_VARIABLE,):
                raise
            cursor.execute(without_galera(setting))

    def check(self, connection: Connection, *, is_ours: bool) -> None:
        """Look at all that answers depend on, in one statement."""
        check(connection, is_ours=is_ours)

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit of the driver; look at the status that came with the server's last answer."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)
        autocommit = get_autocommit() if get_autocommit else getattr(driver_connection, "autocommit", False)
        if autocommit is True or autocommit == 1:
            return COMMITS_ALONE
        status = getattr(driver_connection, "server_status", 0)
        return IN_USE if is_shared and status & _IN_TRANSACTION else None

    def socket_of(self, driver_connection: Any) -> int:
        """Return the socket, which each driver keeps under a name of its own."""
        if hasattr(driver_connection, "fileno"):  # mysqlclient
            return int(driver_connection.fileno())
        socket = internals.socket_of_connector(driver_connection) or internals.socket_of_pymysql(driver_connection)
        return -1 if socket is None else int(socket.fileno())


def _connect_by_pymysql(dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Connect, encrypted if the server can do that, as PyMySQL does since release 1.2 when no option is given.

    PyMySQL reads the certificates of the machine for each connection, and verifies nothing with them. That takes 25
    milliseconds, more than all the rest of connecting.
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
