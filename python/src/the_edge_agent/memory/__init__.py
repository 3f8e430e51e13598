"""Long-term memory for agents: one contract, the same behaviour on every SQL database."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from the_edge_agent.memory.base import (
    LTMBackend,
    create_ltm_backend,
    get_registered_backends,
    register_backend,
)
from the_edge_agent.memory.catalog import (
    CatalogBackend,
    compute_content_hash,
    create_catalog_backend,
    generate_entry_id,
    get_registered_catalog_backends,
    register_catalog_backend,
)
from the_edge_agent.memory.config import (
    expand_env_vars,
    expand_ltm_config,
    parse_backend_config,
    parse_catalog_config,
    parse_ltm_config,
)
from the_edge_agent.memory.queries import escape, words_of
from the_edge_agent.memory.results import ERROR_TYPES, LTMError
from the_edge_agent.memory.transaction import LTMTransaction

if TYPE_CHECKING:
    from the_edge_agent.memory.catalog_postgres import PostgresCatalog
    from the_edge_agent.memory.catalog_sqlalchemy import SQLAlchemyCatalog
    from the_edge_agent.memory.catalog_sqlite import SQLiteCatalog
    from the_edge_agent.memory.check import check_database
    from the_edge_agent.memory.postgres import PostgresBackend
    from the_edge_agent.memory.sql.schema import CatalogEntry, CatalogSnapshot, LTMEntry
    from the_edge_agent.memory.sqlalchemy_backend import SQLAlchemyBackend
    from the_edge_agent.memory.sqlite import SQLiteBackend


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


SQLALCHEMY_AVAILABLE = _is_installed("sqlalchemy")
LongTermMemoryBackend = LTMBackend

_LAZY = {
    "PostgresBackend": "the_edge_agent.memory.postgres",
    "PostgresCatalog": "the_edge_agent.memory.catalog_postgres",
    "SQLAlchemyBackend": "the_edge_agent.memory.sqlalchemy_backend",
    "SQLAlchemyCatalog": "the_edge_agent.memory.catalog_sqlalchemy",
    "SQLiteBackend": "the_edge_agent.memory.sqlite",
    "SQLiteCatalog": "the_edge_agent.memory.catalog_sqlite",
    "CatalogEntry": "the_edge_agent.memory.sql.schema",
    "CatalogSnapshot": "the_edge_agent.memory.sql.schema",
    "LTMEntry": "the_edge_agent.memory.sql.schema",
    "check_database": "the_edge_agent.memory.check",
}

__all__ = [
    "ERROR_TYPES",
    "SQLALCHEMY_AVAILABLE",
    "CatalogBackend",
    "CatalogEntry",
    "CatalogSnapshot",
    "LTMBackend",
    "LTMEntry",
    "LTMError",
    "LTMTransaction",
    "LongTermMemoryBackend",
    "PostgresBackend",
    "PostgresCatalog",
    "SQLAlchemyBackend",
    "SQLAlchemyCatalog",
    "SQLiteBackend",
    "SQLiteCatalog",
    "check_database",
    "compute_content_hash",
    "create_catalog_backend",
    "create_ltm_backend",
    "escape",
    "expand_env_vars",
    "expand_ltm_config",
    "generate_entry_id",
    "get_registered_backends",
    "get_registered_catalog_backends",
    "parse_backend_config",
    "parse_catalog_config",
    "parse_ltm_config",
    "register_backend",
    "register_catalog_backend",
    "words_of",
]


def __getattr__(name: str) -> Any:
    """Load what needs an optional dependency on first use."""
    if name in _LAZY:
        try:
            return getattr(import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
        raise ImportError(f'{name} needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"')
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
