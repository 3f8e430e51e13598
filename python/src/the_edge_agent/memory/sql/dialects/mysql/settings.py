"""The session settings of MySQL and MariaDB that change results.

We set them in our sessions and check them in a caller's.

A test program gives every session variable of both servers each of its other values, one by one, and compares the
results (``python/tests/support/session_variables.py``). The variables that made a difference are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH

_CHARSET: Final = "utf8mb4"
_KEY_BYTES: Final = 4 * MAX_KEY_LENGTH
_USUAL_SORT_LENGTH: Final = 1_024
_ENOUGH_TO_SORT: Final = "CAST(GREATEST(@@sort_buffer_size, 262144) AS UNSIGNED)"  # with much less memory a sort fails
_LEAST_SORT_BYTES: Final = 32 * 1024
_MANY: Final = 2**32 - 1  # rows; more than any statement of ours returns
_STRICT: Final = frozenset({"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"})
_HARMFUL: Final = frozenset({"ORACLE", "EMPTY_STRING_IS_NULL", "NO_BACKSLASH_ESCAPES"})


class _Setting(NamedTuple):
    """A session variable, the SQL of the value that we set, and a test whether a caller's value is good enough."""

    name: str
    ours: str
    will_do: Callable[[Any], bool]


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _at_least(number: int) -> Callable[[Any], bool]:
    return lambda value: int(value) >= number


def _is_exact(modes: str) -> bool:
    parts = set(modes.split(","))
    return bool(parts & _STRICT) and not parts & _HARMFUL


_COMMON: Final = (
    _Setting("sql_mode", "'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'", _is_exact),
    _Setting("character_set_client", _CHARSET, _is(_CHARSET)),
    _Setting("character_set_results", _CHARSET, _is(_CHARSET)),
    _Setting("character_set_connection", _CHARSET, _is(_CHARSET)),
    _Setting("completion_type", "0", _is("NO_CHAIN")),
    _Setting("max_sort_length", str(_KEY_BYTES), _at_least(_USUAL_SORT_LENGTH)),
    _Setting("sql_select_limit", str(2**64 - 1), _at_least(_MANY)),
    _Setting("sql_big_selects", "1", _is(1)),
    _Setting("sql_safe_updates", "0", _is(0)),
    _Setting("sort_buffer_size", _ENOUGH_TO_SORT, _at_least(_LEAST_SORT_BYTES)),
    _Setting("sql_quote_show_create", "1", _is(1)),  # SQLAlchemy reads only quoted names
)
_OF_MYSQL: Final = (
    _Setting("max_execution_time", "0", _is(0)),
    _Setting("use_secondary_engine", "ON", _is("ON", "OFF")),
)
_OF_MARIADB: Final = (
    _Setting("max_statement_time", "0", _is(0)),
    _Setting("alter_algorithm", "DEFAULT", _is("DEFAULT")),
)
_LIVE_CLOCK: Final = "timestamp = DEFAULT"
# Connections are in autocommit mode. To switch it on and off for one statement would cost two round trips.
_AUTOCOMMIT: Final = "autocommit = 1"
# At the default level, gap locks make concurrent stores deadlock. SQLAlchemy's own option would switch autocommit off.
_LEVEL: Final = "= 'READ-COMMITTED'"
# For speed. Without this, MySQL reads the whole table to look up more than about 300 keys. Without this, MariaDB does
# not first find out where the newest entries end, and so reads older ones.
_FAST_MYSQL: Final = "range_optimizer_max_mem_size = 0"
_FAST_MARIADB: Final = "expensive_subquery_limit = 100000"
_POOLED: Final = 4  # on MySQL, connections in a pool may be idle this many times as long
# If another node of Galera wins, Galera repeats a statement in autocommit mode, but returns the version of the first
# attempt. So we repeat it ourselves. Galera never repeats a statement inside a transaction, as callers' engines use.
_GALERA: Final = "wsrep_retry_autocommit = 0"
_LOG: Final = ("log_bin", "binlog_format")
_MARIADB_ALONE: Final = ("enforce_storage_engine",)
_CLOCK_ERROR: Final = "TIMESTAMPDIFF(SECOND, NOW(), SYSDATE())"  # NOW follows the variable timestamp, SYSDATE the clock
_SECONDS_OFF: Final = 1
_LOG_ROWS: Final = "SET SESSION binlog_format = 'ROW'"
_LOG_REMEDY: Final = (
    "the server writes statements to its binary log (binlog_format=STATEMENT), which allows no transaction at READ "
    "COMMITTED; set binlog_format to ROW or MIXED for the server"
)


def settings(timeout: float, idle: float) -> str:
    """Return the statement that sets up a session of ours.

    The server stops waiting for a lock before the call's deadline, so no session of ours is left waiting.

    Args:
        timeout: seconds that a call may take.
        idle: the server ends a transaction after so many seconds without a statement; 0 keeps the server's setting.
            MySQL cannot distinguish such a session from an idle one in a pool, so it ends both after four times as
            long.
    """
    lock_wait = f"innodb_lock_wait_timeout = {max(1, int(timeout) - 1)}"
    common = [lock_wait, *_assignments(_COMMON), _LIVE_CLOCK, _AUTOCOMMIT]
    of_mysql = [f"transaction_isolation {_LEVEL}", *_assignments(_OF_MYSQL), _FAST_MYSQL]
    of_mariadb = [f"tx_isolation {_LEVEL}", *_assignments(_OF_MARIADB), _FAST_MARIADB, _GALERA]
    if idle:
        of_mysql.append(f"wait_timeout = {ceil(_POOLED * idle)}")
        of_mariadb.append(f"idle_write_transaction_timeout = {ceil(idle)}")
    # MariaDB ignores comments for MySQL 5.7 to 9, and MySQL ignores comments for MariaDB.
    return f"SET SESSION {', '.join(common)} /*!80000 , {', '.join(of_mysql)} */ /*M! , {', '.join(of_mariadb)} */"


def without_galera(statement: str) -> str:
    """Return the statement of ``settings`` without the settings that only Galera knows."""
    return statement.replace(f", {_GALERA}", "")


def _assignments(settings: Sequence[_Setting]) -> list[str]:
    return [f"{setting.name} = {setting.ours}" for setting in settings]


def check(connection: Connection, *, is_ours: bool) -> None:
    """Refuse a session whose settings change results. The connection is in no transaction afterwards.

    The servers' default of ``max_sort_length`` is too short for our keys, so this raises it.

    Args:
        connection: a connection that has run no statement yet.
        is_ours: whether its engine is one of ours, which has run the statement of ``settings``.

    Raises:
        LTMError: ``configuration_error``; the message names the setting and says what to do.
    """
    check_charset(_charset_of(connection.connection.driver_connection))
    is_mariadb = bool(getattr(connection.dialect, "is_mariadb", False))
    checked = (*_COMMON, *(_OF_MARIADB if is_mariadb else _OF_MYSQL))
    level, others = ("tx_isolation", _MARIADB_ALONE) if is_mariadb else ("transaction_isolation", ())
    names = [*(setting.name for setting in checked), level, *_LOG, *others]
    columns = ", ".join(f"@@{name} AS {name}" for name in names)
    row = connection.exec_driver_sql(f"SELECT {columns}, {_CLOCK_ERROR} AS clock_error").mappings().first()
    connection.rollback()
    if row is None:
        raise _wrong("sql_select_limit", 0, str(2**64 - 1))
    for setting in checked:
        if not setting.will_do(row[setting.name]):
            raise _wrong(setting.name, row[setting.name], setting.ours)
    if row[level] == "READ-UNCOMMITTED":
        raise _wrong(level, row[level], "'READ-COMMITTED'")
    if abs(row["clock_error"]) > _SECONDS_OFF:
        raise _refused(f"the time of the session was fixed (timestamp); {_advice(_LIVE_CLOCK)}")
    if others and (enforced := row["enforce_storage_engine"]) not in (None, "InnoDB"):
        raise _refused(f"the server creates every table with {enforced} (enforce_storage_engine); set it to InnoDB")
    if row["log_bin"] and row["binlog_format"] == "STATEMENT" and row[level] == "READ-COMMITTED":
        _log_rows(connection, is_ours=is_ours)
    if int(row["max_sort_length"]) < _KEY_BYTES:  # the default; a higher value does a caller no harm
        connection.exec_driver_sql(f"SET SESSION max_sort_length = {_KEY_BYTES}")
        connection.rollback()


def _log_rows(connection: Connection, *, is_ours: bool) -> None:
    """Make the server write rows to its binary log for our sessions, if the user is allowed to set that."""
    may = is_ours
    try:
        if may:
            connection.exec_driver_sql(_LOG_ROWS)
            connection.rollback()
    except DBAPIError:
        may = False
    if not may:
        raise _refused(_LOG_REMEDY)
    if not event.contains(connection.engine, "connect", _log_rows_of):
        event.listen(connection.engine, "connect", _log_rows_of)


def _log_rows_of(driver_connection: Any, record: Any) -> None:
    cursor = driver_connection.cursor()
    cursor.execute(_LOG_ROWS)
    cursor.close()


def check_charset(*charsets: Any) -> None:
    """Refuse character sets that lose characters. None means the driver's default.

    Raises:
        LTMError: ``configuration_error``.
    """
    for charset in charsets:
        if charset not in (None, _CHARSET):
            remedy = f"set the driver's option charset to {_CHARSET}"
            raise _refused(f"charset {charset}: only {_CHARSET} keeps all characters; {remedy}")


def _charset_of(driver_connection: Any) -> str | None:
    """Return the character set of the driver, or None if it is the right one."""
    if str(getattr(driver_connection, "charset", _CHARSET)).lower() != _CHARSET:  # PyMySQL, mysql-connector
        return str(driver_connection.charset)
    encoding = getattr(driver_connection, "encoding", "utf8")  # mysqlclient follows the server's setting
    return None if encoding == "utf8" else str(encoding)


def _wrong(name: str, value: Any, ours: str) -> LTMError:
    return _refused(f"{name} of the session is {value!r}; {_advice(f'{name} = {ours}')}")


def _advice(assignment: str) -> str:
    return (
        f"let every connection of the engine first run: SET SESSION {assignment}; for example "
        'connect_args={"init_command": ...}'
    )


def _refused(message: str) -> LTMError:
    return LTMError("configuration_error", message)
