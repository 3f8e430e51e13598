"""``PostgreSQLEngines`` prepares engines for PostgreSQL, ``PostgreSQLSessions`` its connections."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from the_edge_agent.memory.postgres.refusals import learn_code
from the_edge_agent.memory.postgres.sessions import COMMIT_AND_BEGIN_TO_SET_UP, session_settings
from the_edge_agent.memory.sql.dialects.base import COMMITS_ALONE, IN_USE, Engines, Sessions

_ACTIVE: Final = 1  # libpq's transaction status while a statement runs
_TO_CANCEL: Final = 1.0  # seconds
_ASCII: Final = "SQL_ASCII"  # with this encoding drivers return bytes


class PostgreSQLEngines(Engines):
    """Engines for PostgreSQL."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return libpq's time limit for connecting, in whole seconds."""
        return {"connect_timeout": max(1, round(connect_timeout)), "client_encoding": "utf8"}


class PostgreSQLSessions(Sessions):
    """Connections to PostgreSQL."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return one text with several statements; see ``postgres.sessions.session_settings``."""
        info = driver_connection.info
        version, process = info.server_version, info.backend_pid
        settings = session_settings(timeout=timeout, idle=idle, server_version=version, process=process)
        return [f"{COMMIT_AND_BEGIN_TO_SET_UP}; {settings}"]

    def set_up(self, cursor: Any, setting: str) -> None:
        """Run the text. psycopg must not prepare it, because several statements in one text cannot be prepared."""
        unprepared = {"prepare": False} if hasattr(cursor.connection, "prepare_threshold") else {}
        cursor.execute(setting, **unprepared)

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit of the driver, and a connection that libpq says is in a transaction."""
        if driver_connection.autocommit:
            return COMMITS_ALONE
        return IN_USE if is_shared and driver_connection.info.transaction_status != 0 else None

    def socket_of(self, driver_connection: Any) -> int:
        """Return libpq's socket."""
        return -1 if driver_connection.closed else int(driver_connection.fileno())

    def cancel(self, driver_connection: Any) -> None:
        """Cancel a statement that still runs, because psycopg does so only for KeyboardInterrupt.

        With psycopg2 no statement runs at this time: while its C code waits for the server, Python raises no exception.
        """
        if hasattr(driver_connection, "cancel_safe") and driver_connection.info.transaction_status == _ACTIVE:
            with suppress(Exception):  # the connection is closed next in any case
                driver_connection.cancel_safe(timeout=_TO_CANCEL)

    def learn_code(self, error: Exception, parameters: Mapping[str, Any], seconds: float) -> None:
        """Find the code in a trace of the protocol, because libpq returns only a text, in the server's language."""
        learn_code(error, parameters, seconds)

    def reason(self, error: Exception) -> str | None:
        """Explain the error of a session whose texts are bytes.

        SQLAlchemy fails before our probe can check the encoding.
        """
        return wrong_encoding(_ASCII, _ASCII) if "bytes-like" in str(error) else None


def wrong_encoding(server: str, client: str) -> str:
    """Return why a connection with these encodings is refused."""
    return (
        f"the encoding of the database and of the connection must be UTF8, not {server} and {client}; create the "
        "database with ENCODING 'UTF8' TEMPLATE template0, or connect with client_encoding=utf8"
    )
