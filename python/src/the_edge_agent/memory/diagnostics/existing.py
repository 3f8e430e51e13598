"""``existing_memory``: look for a memory in a database, and change nothing there."""

from __future__ import annotations

from typing import Any, TypedDict

from sqlalchemy import Connection, Select, inspect, literal_column, select, table

from the_edge_agent.memory.database.layouts import SCHEMA_VERSION, keeps_words
from the_edge_agent.memory.sql.database import Database
from the_edge_agent.memory.sql.dialects import for_name
from the_edge_agent.memory.sql.driver.options import EngineOptions, check_table_name
from the_edge_agent.memory.sql.driver.url import parse_url
from the_edge_agent.memory.sql.schema import legacy
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.tables import LTMEntry


class ExistingMemory(TypedDict):
    """What a database has of a memory.

    Attributes:
        missing_file: the path of the SQLite file, if it does not exist.
        exists: whether there is a table of entries.
        is_current: whether the tables are those of this release, so that a memory can be opened without a change.
        full_text: whether the words of the entries can be searched; None if there is no table of ours.
        has_catalog: whether the catalog in this database has entries.
    """

    missing_file: str | None
    exists: bool
    is_current: bool
    full_text: bool | None
    has_catalog: bool


def existing_memory(url: Any, table_name: str = LTMEntry.__tablename__) -> ExistingMemory:
    """Look for a memory in a database. Nothing is created or changed there; a missing file stays missing.

    Args:
        url: the URL of the database, as for ``SQLAlchemyBackend``.
        table_name: the name of the entries' table.

    Raises:
        LTMError: the URL is bad, or the database cannot be reached. The message never shows the password.
    """
    name = check_table_name(table_name)
    parsed = parse_url(url)[0]
    engines = for_name(parsed.get_backend_name()).engines
    file = engines.new_file(engines.located(parsed))
    if file is not None:
        nothing: ExistingMemory = {
            "missing_file": str(file),
            "exists": False,
            "is_current": False,
            "full_text": None,
            "has_catalog": False,
        }
        return nothing
    database = Database(url, EngineOptions(create_tables=False), entries_name=name)
    try:
        return database.peek(_look)
    finally:
        database.close()


def _look(schema: Schema, connection: Connection) -> ExistingMemory:
    entries, catalog = schema.tables.entries.name, schema.tables.catalog.name
    columns = legacy.columns_of(connection, entries) or ()
    has_catalog = False
    if inspect(connection).has_table(catalog):
        one: Select[Any] = select(literal_column("1")).select_from(table(catalog)).limit(1)
        has_catalog = connection.scalar(one) is not None
    return {
        "missing_file": None,
        "exists": bool(columns),
        "is_current": bool(columns) and schema.version(connection) == SCHEMA_VERSION,
        "full_text": keeps_words(columns),
        "has_catalog": has_catalog,
    }
