"""The settings of a PostgreSQL session of our own; the native classes and those on SQLAlchemy make the same ones.

Transactions that do not name their isolation are serializable if ``default_transaction_isolation`` says so. No server
takes that which follows another one: not even a SELECT runs there then. So sessions of ours have READ COMMITTED, and
name it while they are set up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CHECKS_THE_CLIENT: Final = 140_000  # the first server version that looks for its client while a statement runs
# PostgreSQL refuses that setting on Windows, where it cannot see that a client is gone.
_CANNOT_CHECK: Final = "version() ~* 'visual c|mingw|msvc|windows'"
_CHECK_EVERY: Final = 1_000  # milliseconds
# A client whose machine is gone answers no probe: its session ends after 5 + 3 * 2 seconds.
_PROBES: Final = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3}
READ_COMMITTED: Final = {"default_transaction_isolation": "read committed"}
BEGIN_TO_SET_UP: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN_ANEW_TO_SET_UP: Final = f"COMMIT; {BEGIN_TO_SET_UP}"  # where the driver has begun already, without a level


def lock_timeout(timeout: float) -> int:
    """Return the milliseconds for which a call of so many seconds may wait for a lock.

    The server ends the wait before the call's deadline, so that no session of ours stays behind.
    """
    return max(1, round(timeout * 900))


def session_settings(*, timeout: float, idle: float, server_version: int, process: int) -> str:
    """Return the query that sets up a session, if it is ours; it has one row then, else none.

    A pooler hands its sessions to strangers, so these stay as they are. It tells its clients a process id of its own.

    Args:
        timeout: seconds that a call may take.
        idle: seconds after which the server ends a transaction whose client sends nothing; 0 leaves that to the server.
        server_version: as libpq writes it, such as 180001.
        process: the process id that the server told the client when it connected.
    """
    limits = {"lock_timeout": lock_timeout(timeout), "gin_fuzzy_search_limit": 0}
    settings: dict[str, int | str] = {**limits, **_PROBES, **READ_COMMITTED}
    if idle:
        milliseconds = max(1, round(idle * 1_000))
        settings |= {"idle_in_transaction_session_timeout": milliseconds, "tcp_user_timeout": milliseconds}
    calls = _calls(settings)
    if server_version >= _CHECKS_THE_CLIENT:
        check = _calls({"client_connection_check_interval": _CHECK_EVERY})
        calls += f", CASE WHEN {_CANNOT_CHECK} THEN '' ELSE {check} END"
    return f"SELECT {calls} WHERE pg_backend_pid() = {process}"


def _calls(settings: Mapping[str, int | str]) -> str:
    return ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
