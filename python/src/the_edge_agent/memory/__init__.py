"""Long-term memory for agents: one contract, the same behaviour on every SQL database."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from the_edge_agent.memory.contract.backend import (
    LTMBackend,
    create_ltm_backend,
    get_registered_backends,
    register_backend,
)
from the_edge_agent.memory.contract.catalog import (
    CatalogBackend,
    catalog_as_it_is,
    compute_content_hash,
    create_catalog_backend,
    generate_entry_id,
    get_registered_catalog_backends,
    register_catalog_backend,
)
from the_edge_agent.memory.contract.config import (
    expand_env_vars,
    expand_ltm_config,
    parse_backend_config,
    parse_catalog_config,
    parse_ltm_config,
)
from the_edge_agent.memory.contract.raising import raising
from the_edge_agent.memory.contract.result_types import (
    AnyResult,
    BackupResult,
    CallStats,
    CleanupResult,
    CommitResult,
    CountResult,
    DeletedCountResult,
    DeletedEntry,
    DeleteResult,
    EntriesResult,
    ExplainedTerm,
    ExportResult,
    FoundEntry,
    ImportResult,
    KeysResult,
    MeasureResult,
    MoveResult,
    NamespacesResult,
    OptimizeResult,
    PoolState,
    QueuedResult,
    RecordedEntry,
    RefusedEntry,
    RestoreResult,
    RetrievedEntry,
    RetrieveManyResult,
    RetrieveResult,
    RollbackResult,
    SearchResult,
    SlowCall,
    Snapshot,
    StatsResult,
    StoredEntry,
    StoreManyResult,
    StoreResult,
    SyncResult,
    TouchResult,
    TrackedEntriesResult,
    TrackedEntry,
    TrackManyResult,
    TrackResult,
    WholeEntry,
)
from the_edge_agent.memory.contract.transaction import LTMTransaction
from the_edge_agent.memory.core.calls import CallEvent, CallListener
from the_edge_agent.memory.core.cancelling import Cancellation
from the_edge_agent.memory.core.query import escape, words_of
from the_edge_agent.memory.core.results import ERROR_TYPES, LTMError
from the_edge_agent.memory.core.validation import NOT_GIVEN
from the_edge_agent.memory.transfer.backup import back_up, restore
from the_edge_agent.memory.transfer.moving import copy_entries, export_entries, import_file
from the_edge_agent.memory.transfer.rows import import_rows, read_csv_rows, read_json_rows
from the_edge_agent.memory.transfer.tables import import_langgraph, import_tea

if TYPE_CHECKING:
    from the_edge_agent.memory.diagnostics.check import check_database
    from the_edge_agent.memory.diagnostics.existing import ExistingMemory, existing_memory
    from the_edge_agent.memory.postgres.backend import PostgresBackend
    from the_edge_agent.memory.postgres.catalog import PostgresCatalog
    from the_edge_agent.memory.sql.backend import SQLAlchemyBackend
    from the_edge_agent.memory.sql.catalog import SQLAlchemyCatalog
    from the_edge_agent.memory.sql.schema.tables import CatalogEntry, CatalogSnapshot, LTMEntry
    from the_edge_agent.memory.sqlite.backend import SQLiteBackend
    from the_edge_agent.memory.sqlite.catalog import SQLiteCatalog


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


SQLALCHEMY_AVAILABLE = _is_installed("sqlalchemy")
LongTermMemoryBackend = LTMBackend

_LAZY = {
    "PostgresBackend": "the_edge_agent.memory.postgres.backend",
    "PostgresCatalog": "the_edge_agent.memory.postgres.catalog",
    "SQLAlchemyBackend": "the_edge_agent.memory.sql.backend",
    "SQLAlchemyCatalog": "the_edge_agent.memory.sql.catalog",
    "SQLiteBackend": "the_edge_agent.memory.sqlite.backend",
    "SQLiteCatalog": "the_edge_agent.memory.sqlite.catalog",
    "CatalogEntry": "the_edge_agent.memory.sql.schema.tables",
    "CatalogSnapshot": "the_edge_agent.memory.sql.schema.tables",
    "LTMEntry": "the_edge_agent.memory.sql.schema.tables",
    "check_database": "the_edge_agent.memory.diagnostics.check",
    "ExistingMemory": "the_edge_agent.memory.diagnostics.existing",
    "existing_memory": "the_edge_agent.memory.diagnostics.existing",
}

__all__ = [
    "ERROR_TYPES",
    "NOT_GIVEN",
    "SQLALCHEMY_AVAILABLE",
    "AnyResult",
    "BackupResult",
    "CallEvent",
    "CallListener",
    "CallStats",
    "Cancellation",
    "CatalogBackend",
    "CatalogEntry",
    "CatalogSnapshot",
    "CleanupResult",
    "CommitResult",
    "CountResult",
    "DeleteResult",
    "DeletedCountResult",
    "DeletedEntry",
    "EntriesResult",
    "ExistingMemory",
    "ExplainedTerm",
    "ExportResult",
    "FoundEntry",
    "ImportResult",
    "KeysResult",
    "LTMBackend",
    "LTMEntry",
    "LTMError",
    "LTMTransaction",
    "LongTermMemoryBackend",
    "MeasureResult",
    "MoveResult",
    "NamespacesResult",
    "OptimizeResult",
    "PoolState",
    "PostgresBackend",
    "PostgresCatalog",
    "QueuedResult",
    "RecordedEntry",
    "RefusedEntry",
    "RestoreResult",
    "RetrieveManyResult",
    "RetrieveResult",
    "RetrievedEntry",
    "RollbackResult",
    "SQLAlchemyBackend",
    "SQLAlchemyCatalog",
    "SQLiteBackend",
    "SQLiteCatalog",
    "SearchResult",
    "SlowCall",
    "Snapshot",
    "StatsResult",
    "StoreManyResult",
    "StoreResult",
    "StoredEntry",
    "SyncResult",
    "TouchResult",
    "TrackManyResult",
    "TrackResult",
    "TrackedEntriesResult",
    "TrackedEntry",
    "WholeEntry",
    "back_up",
    "catalog_as_it_is",
    "check_database",
    "compute_content_hash",
    "copy_entries",
    "create_catalog_backend",
    "create_ltm_backend",
    "escape",
    "existing_memory",
    "expand_env_vars",
    "expand_ltm_config",
    "export_entries",
    "generate_entry_id",
    "get_registered_backends",
    "get_registered_catalog_backends",
    "import_file",
    "import_langgraph",
    "import_rows",
    "import_tea",
    "parse_backend_config",
    "parse_catalog_config",
    "parse_ltm_config",
    "raising",
    "read_csv_rows",
    "read_json_rows",
    "register_backend",
    "register_catalog_backend",
    "restore",
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
