"""How engines are made and what is done with connections: the portable way."""

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
    "the driver commits each statement by itself (autocommit), which no transaction survives; "
    'leave autocommit to the engine: isolation_level="AUTOCOMMIT"'
)
IN_USE: Final = (
    "the engine has one connection, and it is in a transaction of the application's; "
    "give the memory an engine with a pool"
)
NO_HOST: Final = "the url has a host, which this database has not; a file needs three slashes"
BEGINS_ITSELF: Final = "the_edge_agent.begins_itself"  # option of an engine whose connections rest in autocommit
SECONDS: Final = "the_edge_agent.seconds"  # option of an engine of our own: that a call may take


class Engines:
    """What is done with a URL and its options before the first connection; none of it needs a server."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return the driver's arguments for its time limits, in seconds."""
        return {}

    def located(self, url: URL) -> URL:
        """Return the URL with an absolute path, where it names a file: a relative one would change with the folder.

        Raises:
            LTMError: ``configuration_error``: there is no current folder.
        """
        return url

    def identity(self, url: URL) -> URL:
        """Return a value that is equal for two URLs, both from ``located``, if they lead to the same database."""
        return url

    def check_options(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse options of a URL or of the driver that would lose data or have no effect; called before connecting.

        Raises:
            LTMError: ``configuration_error`` that names the option.
        """

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Return the URL to use and the arguments of ``create_engine`` that this database needs."""
        return url, {}

    def new_file(self, url: URL) -> Path | None:
        """Return the file that connecting would create, None if it is there or the database is no file."""
        return None

    def connect(self, dialect: EngineDialect, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return a new connection of the driver, which SQLAlchemy's dialect opens."""
        return dialect.connect(*args, **kwargs)

    def prepare(self, engine: Engine) -> Any:
        """Attach what an engine of our own needs; return what must be closed after it, or None."""
        return None


class Sessions:
    """What is done with connections of the driver, whether an engine of ours or a caller's has made them."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return the statements that set up a new connection of our own.

        Args:
            timeout: seconds that a call may take.
            idle: seconds after which the server ends a transaction whose client sends nothing; 0 for its own setting.
            driver_connection: the connection.
        """
        return []

    def set_up(self, cursor: Any, setting: str) -> None:
        """Run one of these statements, with a cursor of the driver."""
        cursor.execute(setting)

    def check(self, connection: Connection, *, is_ours: bool) -> None:
        """Refuse a connection with settings that change answers, and leave it in no transaction.

        Called for the first connection of an engine of ours, after its settings were made, and for each of a caller's.

        Raises:
            LTMError: ``configuration_error`` that names the setting and what to do.
        """

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Return why a connection cannot serve our transactions, None if it can; costs no round trip.

        Args:
            driver_connection: as it comes out of the pool.
            is_shared: whether its pool hands it to several at once, so that it may be in a caller's transaction.
        """
        return None

    def call(self) -> AbstractContextManager[None]:
        """Return a context for all that one call does with the driver."""
        return nullcontext()

    def socket_of(self, driver_connection: Any) -> int:
        """Return the file descriptor of a connection's socket, -1 where the driver has none to show."""
        return -1

    def stop(self, driver_connection: Any) -> None:
        """Make a connection give up what it is waiting for; called from another thread."""
        shut_down(self.socket_of(driver_connection))

    def cancel(self, driver_connection: Any) -> None:
        """End what the server still does for a connection that is about to be closed, where a driver can."""

    def is_damage(self, error: BaseException, driver_connection: Any) -> bool:
        """Return whether an error that the driver does not explain came of a file that is damaged."""
        return False

    def learn_code(self, error: Exception, parameters: Mapping[str, Any], seconds: float) -> None:
        """Find out the error code of a failed connection, where the driver does not tell it, and set it on the error.

        Args:
            error: of the driver.
            parameters: of the connection, as they were given to the driver.
            seconds: that it may take.
        """

    def reason(self, error: Exception) -> str | None:
        """Explain an error that Python itself raised at the first connection; None if its reason is not known."""
        return None
