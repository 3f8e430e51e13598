"""The steps that bring a table of entries from an earlier version of the schema to the present one."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table, select, update

from the_edge_agent.memory.database.layouts import has_namespaced, missing_columns, stale_setting
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.schema import legacy
from the_edge_agent.memory.sql.schema.tables import Tables


class Upgradable(Protocol):
    """What a step needs of ``Schema``."""

    @property
    def tables(self) -> Tables:
        """The tables."""
        ...

    @property
    def dialect(self) -> Dialect:
        """The dialect of the server."""
        ...

    @property
    def search(self) -> bool | None:
        """Whether the table of entries stores words."""
        ...

    @property
    def is_language(self) -> ColumnElement[bool]:
        """The condition for the row of the settings with the language."""
        ...

    def language_setting(self, connection: Connection) -> str | None:
        """Return the stored setting of the language."""
        ...


def steps_of(connection: Connection, entries: Table) -> list[str]:
    """Return the statements that add the missing columns to an existing table of entries."""
    quote = connection.dialect.identifier_preparer.quote
    missing = missing_columns(legacy.columns_of(connection, entries.name) or ())
    return [f"ALTER TABLE {quote(entries.name)} ADD {quote(name)} {kind}" for name, kind in missing.items()]


def upgrade(schema: Upgradable, connection: Connection) -> None:
    """Bring the table of entries up to date, in a transaction of the caller's. Many processes may do this at once."""
    entries = schema.tables.entries
    if not steps_of(connection, entries):
        return
    with schema.dialect.schema.exclusively(connection, entries.name):
        steps = steps_of(connection, entries)
        for step in steps:
            connection.exec_driver_sql(step)
    key = entries.c.key
    if steps and schema.search and has_namespaced(connection.scalars(select(key).where(key >= "@", key < "A"))):
        setting = schema.language_setting(connection)
        if setting is not None:
            changed = update(schema.tables.settings).where(schema.is_language)
            connection.execute(changed.values(value=stale_setting(setting)))
