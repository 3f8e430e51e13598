"""``opened``: open a connection of an engine. An error says that connecting failed, and to which place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from the_edge_agent.memory.sql.driver.deadlines import DeadlineError
from the_edge_agent.memory.sql.driver.errors import ConnectingError
from the_edge_agent.memory.sql.driver.url import sent_words, where_of

Opened = TypeVar("Opened")


def opened(engine: Engine, make: Callable[[], Opened]) -> Opened:
    """Return the connection that ``make`` opens on the engine.

    Raises:
        ConnectingError: connecting failed.
    """
    try:
        return make()
    except (DBAPIError, DeadlineError, OSError, engine.dialect.loaded_dbapi.Error) as error:
        raise ConnectingError(error, where_of(engine), sent_words(engine.url)) from None
