"""The settings of our PostgreSQL sessions. The native classes and those on SQLAlchemy use the same settings.

A transaction without an isolation level takes it from ``default_transaction_isolation``. If that is serializable, a
standby server refuses every statement, even a SELECT. So our sessions have READ COMMITTED, and name that level during
set-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CHECKS_THE_CLIENT: Final = 140_000  # the first server version that checks the client while a statement runs
# PostgreSQL refuses that setting on Windows, because it cannot check the client there.
_CANNOT_CHECK: Final = "version() ~* 'visual c|mingw|msvc|windows'"
_CHECK_EVERY: Final = 1_000  # milliseconds
# If the client's machine is gone, it answers no probe, and its session ends after 5 + 3 * 2 seconds.
_PROBES: Final = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3}
READ_COMMITTED: Final = {"default_transaction_isolation": "read committed"}
BEGIN_TO_SET_UP: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
# For a driver that has already sent BEGIN without a level.
COMMIT_AND_BEGIN_TO_SET_UP: Final = f"COMMIT; {BEGIN_TO_SET_UP}"


def lock_timeout(timeout: float) -> int:
    """Return how many milliseconds a call of ``timeout`` seconds may wait for a lock.

    The server stops waiting before the call's deadline, so no session of ours is left waiting.
    """
    return max(1, round(timeout * 900))


def session_settings(*, timeout: float, idle: float, server_version: int, process: int) -> str:
    """Return the query that sets up a session. It returns one row if the session is ours, and none behind a pooler.

    Other clients use a pooler's sessions too, so we do not change them. A pooler tells its clients a process id of its
    own, which differs from the server's.

    Args:
        timeout: seconds that a call may take.
        idle: the server ends a transaction after so many seconds without a statement; 0 means the server's setting.
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
