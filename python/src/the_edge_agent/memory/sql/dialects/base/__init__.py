"""The portable dialect: parts that use plain SQL, which any database runs.

A database replaces the parts in which it differs.
"""

from the_edge_agent.memory.sql.dialects.base.connection import (
    BEGINS_ITSELF,
    COMMITS_ALONE,
    IN_USE,
    NO_HOST,
    SECONDS,
    Engines,
    Sessions,
)
from the_edge_agent.memory.sql.dialects.base.dialect import Dialect
from the_edge_agent.memory.sql.dialects.base.features import LIKE_INSTEAD, PYTHON_INSTEAD, Features
from the_edge_agent.memory.sql.dialects.base.queries import Queries
from the_edge_agent.memory.sql.dialects.base.schema import DialectSchema, definitions_of
from the_edge_agent.memory.sql.dialects.base.transactions import Times, Transactions
from the_edge_agent.memory.sql.dialects.base.upkeep import Run, Upkeep

__all__ = [
    "BEGINS_ITSELF",
    "COMMITS_ALONE",
    "IN_USE",
    "LIKE_INSTEAD",
    "NO_HOST",
    "PYTHON_INSTEAD",
    "SECONDS",
    "Dialect",
    "DialectSchema",
    "Engines",
    "Features",
    "Queries",
    "Run",
    "Sessions",
    "Times",
    "Transactions",
    "Upkeep",
    "definitions_of",
]
