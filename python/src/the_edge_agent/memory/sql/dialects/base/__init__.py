"""The portable dialect: plain SQL that any database runs, in parts. A database replaces those in which it differs."""

from the_edge_agent.memory.sql.dialects.base.connection import (
    BEGINS_ITSELF,
    COMMITS_ALONE,
    IN_USE,
    NO_HOST,
    SECONDS,
    Engines,
    Sessions,
)
from the_edge_agent.memory.sql.dialects.base.dialect import Dialect, Run, Upkeep
from the_edge_agent.memory.sql.dialects.base.features import LIKE_INSTEAD, PYTHON_INSTEAD, Features

__all__ = [
    "BEGINS_ITSELF",
    "COMMITS_ALONE",
    "IN_USE",
    "LIKE_INSTEAD",
    "NO_HOST",
    "PYTHON_INSTEAD",
    "SECONDS",
    "Dialect",
    "Engines",
    "Features",
    "Run",
    "Sessions",
    "Upkeep",
]
