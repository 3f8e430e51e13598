"""The portable parts ``Engines``, which prepares engines, and ``Sessions``, which prepares connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.engine import Dialect as EngineDialect

from the_edge_agent.memory.database.sockets import shut_down

COMMITS_ALONE: Final = (
    "the driver commits each statement by itself (autocommit), so no transaction is possible; "
    'leave autocommit to the engine: isolation_level="AUTOCOMMIT"'
)
IN_USE: Final = (
    "the engine has one connection, and it is in a transaction of the application; "
    "give the memory an engine with a pool"
)
NO_HOST: Final = "the url has a host, but this database is a file; a file needs three slashes"
BEGINS_ITSELF: Final = "the_edge_agent.begins_itself"  # engine option: connections rest in autocommit mode
SECONDS: Final = "the_edge_agent.seconds"  # option of an engine that we made: how long a call may take


class Engines:
    """Prepares a URL, its options and the engine. No method needs a connection."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the driver's arguments for its time limits, in seconds."""
        return {}

    def located(self, url: URL) -> URL:
        """Return the URL; if it names a file, with an absolute path.

        A relative path would change with the current folder.

        Raises:
            LTMError: ``configuration_error`` if there is no current folder.
        """
        return url

    def identity(self, url: URL) -> URL:
        """Return a URL that is equal for two URLs that lead to the same database. Both come from ``located``."""
        return url

    def check_options(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse options of the URL or of the driver that would lose data or have no effect. Called before connecting.

        Raises:
            LTMError: ``configuration_error``; the message names the option.
        """

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Return the URL to use and the arguments of ``create_engine`` that this database needs."""
        return url, {}

    def new_file(self, url: URL) -> Path | None:
        """Return the file that a connection would create.

        Return None if the file exists or the database is not a file.
        """
        return None

    def connect(self, dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Open a connection by SQLAlchemy's dialect, and return the driver's connection."""
        return dialect.connect(*args, **kwargs)

    def prepare(self, engine: Engine) -> Any:
        """Add listeners to an engine that we made. Return an object to close after the engine, or None."""
        return None


class Sessions:
    """Sets up, checks and stops the driver's connections, those of our engines and those of a caller's engine."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return the statements that set up a new connection of our own engine.

        Args:
            timeout: seconds that a call may take.
            idle: the server ends a transaction after so many seconds without a statement; 0 keeps the server's setting.
            driver_connection: the connection.
        """
        return []

    def set_up(self, cursor: Any, setting: str) -> None:
        """Run one of the statements that ``settings`` returns, with a cursor of the driver."""
        cursor.execute(setting)

    def check(self, connection: Connection, *, is_ours: bool) -> None:
        """Refuse a connection whose settings change results. Leave the connection outside a transaction.

        Called for the first connection of our own engine, after ``settings`` ran, and for each connection of a caller's
        engine.

        Raises:
            LTMError: ``configuration_error``; the message names the setting and says what to do.
        """

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Return why a connection cannot run our transactions, or None if it can. This needs no round trip.

        Args:
            driver_connection: the connection, as the pool returns it.
            is_shared: whether the pool gives this connection to several users at once. If so, it may be in a
                transaction of the caller.
        """
        return None

    def call(self) -> AbstractContextManager[None]:
        """Return a context manager. Everything that one call does with the driver runs inside it."""
        return nullcontext()

    def socket_of(self, driver_connection: Any) -> int:
        """Return the file descriptor of a connection's socket, or -1 if the driver does not show it."""
        return -1

    def stop(self, driver_connection: Any) -> None:
        """Make a connection stop waiting for the server. Another thread calls this."""
        shut_down(self.socket_of(driver_connection))

    def cancel(self, driver_connection: Any) -> None:
        """Cancel the statement that the server still runs, if the driver can. The connection will be closed."""

    def is_damage(self, error: BaseException, driver_connection: Any) -> bool:
        """Return whether a damaged file caused an error that the driver does not explain."""
        return False

    def learn_code(self, error: Exception, parameters: Mapping[str, Any], seconds: float) -> None:
        """Find out why connecting failed if the driver has no error code, and set the code on the error.

        Args:
            error: the driver's error.
            parameters: the arguments of the driver's ``connect``.
            seconds: how long this may take.
        """

    def reason(self, error: Exception) -> str | None:
        """Return the cause of a Python error at the first connection in words, or None if the cause is unknown."""
        return None
