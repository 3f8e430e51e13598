"""How tables are made: the portable way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection, Index, Table, TextClause, column, inspect, table, update
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from the_edge_agent.memory.sql.dialects.base.features import Part


class DialectSchema(Part):
    """How our tables are made on a server.

    ``Schema.of`` calls ``probe``, ``index_expiry`` and ``extend``, in this order. The tables are created later, if they
    are missing.
    """

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Look at what the server can do, and at the tables if they exist; write what was found into ``features``."""

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the columns and indexes that only this database has to the definitions of our tables."""

    def check_tables(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Refuse existing tables that lose data, for example because their storage engine has no transactions.

        Raises:
            LTMError: ``configuration_error`` that names the table and what to do.
        """

    def index_expiry(self, entries: Table) -> None:
        """Index the column ``expires_at``; without the entries that never expire, where an index can be partial."""
        expires_at, option = entries.c.expires_at, self.features.partial_index
        is_wanted: dict[str, Any] = {option: expires_at.is_not(None)} if option else {}
        Index(f"ix_{entries.name}_expires_at", expires_at, **is_wanted)

    def set_up(self, connection: Connection) -> None:
        """Make settings that the database keeps. Called once at each start, for engines of our own."""

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements that create the tables and their indexes, in order."""
        return definitions_of(entries, *others)

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create the tables and indexes that are missing. It is safe to repeat after a race or a crash."""
        for definition in self.definitions(*tables):
            if not _is_there(connection, definition):
                connection.execute(definition)

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the tables that ``definitions`` adds for searches, to be dropped after the entries' table."""
        return []

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Keep other processes from renaming a table until the transaction ends.

        The portable way is to lock every row.
        """
        renamed = table(name, column("key"))
        connection.execute(update(renamed).values(key=renamed.c.key))
        return nullcontext()

    def server_version(self, connection: Connection) -> str | None:
        """Return the server's version as people write it, None where it is not known."""
        found = connection.dialect.server_version_info
        return ".".join(str(part) for part in found if isinstance(part, int)) if found else None

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return how large one statement may be, None if there is no limit worth checking."""
        return None


def definitions_of(*tables: Table) -> list[ExecutableDDLElement | TextClause]:
    """Return the portable statements that create tables and their indexes, in order."""
    found: list[ExecutableDDLElement | TextClause] = []
    for made in tables:
        found.append(CreateTable(made, if_not_exists=True))
        found += [CreateIndex(index) for index in sorted(made.indexes, key=lambda index: str(index.name))]
    return found


def _is_there(connection: Connection, definition: ExecutableDDLElement | TextClause) -> bool:
    match definition:
        case CreateTable(element=made):
            return inspect(connection).has_table(made.name)
        case CreateIndex(element=index) if index.table is not None:
            return index.name in {found["name"] for found in inspect(connection).get_indexes(index.table.name)}
    return False
