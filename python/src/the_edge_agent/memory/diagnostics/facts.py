"""Describe a database without changing it: server, driver, pool, ways to search, limits, tables."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from importlib import metadata
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.pool import Pool, QueuePool

from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.database.layouts import SCHEMA_VERSION, another_layout, keeps_words
from the_edge_agent.memory.sql.database import largest_entry
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.schema import legacy
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.tables import copy_tables


def learn(report: dict[str, Any], schema: Schema, connection: Connection, options: EngineOptions) -> None:
    """Add facts about the database to a report. Facts that were added before a failure stay in the report.

    Raises:
        LTMError: ``configuration_error`` if the tables are of another release, or have another layout.
    """
    report |= _server(schema, connection)
    report["pool"] = _pool(connection.engine.pool, options)
    report |= {"search_path": schema.dialect.features.search_path, "filter_path": schema.dialect.features.filter_path}
    report["limits"] = {
        "packet_bytes": schema.packet,
        "entry_bytes": None if schema.packet is None else largest_entry(schema.packet),
        "key_characters": MAX_KEY_LENGTH,
        "call_seconds": options.timeout,
    }
    report["schema"] = _tables(schema, connection)
    if foreign := report["schema"]["foreign_tables"]:
        raise another_layout(foreign[0])


def _server(schema: Schema, connection: Connection) -> dict[str, Any]:
    dialect = connection.dialect
    return {
        "server": schema.dialect.features.product or dialect.name,
        "server_version": schema.dialect.schema.server_version(connection),
        "dialect": dialect.name,
        "is_portable": type(schema.dialect) is Dialect,
        "driver": dialect.driver,
        "driver_version": _version_of(connection.engine.dialect.loaded_dbapi),
    }


def _version_of(module: Any) -> str | None:
    name = module.__name__.partition(".")[0]
    if name in sys.stdlib_module_names:
        return platform.python_version()
    try:
        return metadata.version(name)  # tried first, because PyMySQL's __version__ is that of the driver it replaces
    except metadata.PackageNotFoundError:
        version = getattr(module, "__version__", None) or getattr(module, "__VERSION__", None)
        return str(version).partition(" ")[0] if version else None


def _pool(pool: Pool, options: EngineOptions) -> dict[str, Any]:
    public = next(kind.__name__ for kind in type(pool).__mro__ if kind.__module__.startswith("sqlalchemy."))
    has_size = isinstance(pool, QueuePool)
    return {
        "class": public,
        "size": options.pool_size if has_size else None,
        "max_overflow": options.max_overflow if has_size else None,
        "timeout_seconds": options.pool_timeout if has_size else None,
        "connect_timeout_seconds": options.connect_timeout,
    }


def _tables(schema: Schema, connection: Connection) -> dict[str, Any]:
    ours = replace(schema, tables=copy_tables(search=False), search=None)  # the columns that every memory has
    names = [table.name for table in ours.tables.all()]
    missing = [name for name in names if not inspect(connection).has_table(name)]
    foreign = ours.foreign_tables(connection)
    version = None if foreign else ours.version(connection)
    is_complete = version == SCHEMA_VERSION and not missing
    if not is_complete and not foreign:  # a start would create tables, and so check the dialect's own tables too
        foreign = Schema.of(connection, copy_tables(search=False), type(schema.dialect)).foreign_tables(connection)
    state = "foreign" if foreign else "complete" if is_complete else "absent" if missing == names else "incomplete"
    if state == "incomplete" and not missing and version is not None:
        state = "outdated"  # a start brings it up to date
    has_words = keeps_words(legacy.columns_of(connection, ours.tables.entries.name) or ())
    return {
        "state": state,
        "version": version,
        "full_text": None if foreign else has_words,
        "language": ours.stored_language(connection) if has_words and not foreign else None,
        "missing_tables": missing,
        "foreign_tables": foreign,
    }
