"""Finds the error code with which a PostgreSQL server refuses a connection, because libpq does not return it.

If connecting fails, libpq returns only a text, in the language of the server (``lc_messages``). libpq's trace of the
protocol has the code. So for an unknown text, this connects again with a trace, and remembers the code for the text.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping
from typing import Any, Final

from the_edge_agent.memory.database.errors import by_text, by_text_of_tls, is_of_libpq

_CODE: Final = re.compile(rb'ErrorResponse\t.*? C "([0-9A-Z]{5})"')
_MOST: Final = 100  # texts whose codes are remembered
_codes: dict[str, str] = {}  # by text


def learn_code(error: Any, parameters: Mapping[str, Any] | str, seconds: float) -> None:
    """Set the attribute ``sqlstate`` of an error of libpq, if its text is unknown and the code can be found.

    Args:
        error: the error that psycopg or psycopg2 raised when it connected.
        parameters: the arguments of the driver's ``connect``.
        seconds: how long this may take.
    """
    text = str(error)
    if not is_of_libpq(error) or by_text(text) or by_text_of_tls(text):
        return
    code = _codes.get(text) or _traced(parameters, seconds)
    if code is None:
        return
    if len(_codes) >= _MOST:
        _codes.clear()
    error.sqlstate = _codes[text] = code


def _traced(parameters: Mapping[str, Any] | str, seconds: float) -> str | None:
    """Return the code with which the server refuses a connection.

    Return None if it accepts it or tracing is impossible.
    """
    try:
        import psycopg
        from psycopg import pq
    except ImportError:  # only psycopg2 is installed
        return None
    if not hasattr(os, "memfd_create"):  # without it, psycopg cannot trace
        return None
    trace = os.memfd_create("the_edge_agent")  # in memory, because a file would keep the login
    try:
        connection = pq.PGconn.connect_start(_conninfo(parameters).encode())
        try:
            connection.trace(trace)
            _wait(connection, time.monotonic() + seconds)
            connection.untrace()
        finally:
            connection.finish()
        codes = _CODE.findall(os.pread(trace, os.fstat(trace).st_size, 0))
    except (psycopg.Error, OSError, ValueError):
        return None
    finally:
        os.close(trace)
    return codes[-1].decode() if codes else None


def _conninfo(parameters: Mapping[str, Any] | str) -> str:
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo

    if isinstance(parameters, str):
        return parameters
    names = {option.keyword.decode() for option in Conninfo.get_defaults()}
    return make_conninfo("", **{name: value for name, value in parameters.items() if name in names})


def _wait(connection: Any, end: float) -> None:
    """Wait until a connection is made or refused, or the time is over."""
    from psycopg.pq import PollingStatus

    while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
        waiting = select.poll()
        waiting.register(connection.socket, select.POLLIN if status == PollingStatus.READING else select.POLLOUT)
        if not waiting.poll(max(0.0, end - time.monotonic()) * 1_000):
            return
