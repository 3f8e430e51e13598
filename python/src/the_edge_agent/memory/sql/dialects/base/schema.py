"""The portable part ``DialectSchema``: how the tables are defined and created."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection, Index, Table, TextClause, column, inspect, table, update
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from the_edge_agent.memory.sql.dialects.base.features import Part
from the_edge_agent.memory.sql.dialects.base.position import POSITIONS
from the_edge_agent.memory.sql.dialects.base.probing import accepts


class DialectSchema(Part):
    """Defines and creates our tables on a server.

    ``Schema.of`` calls ``probe``, ``index_expiry`` and ``extend``, in this order. The tables are created later, if they
    are missing.
    """

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Find out what the server can do, and what existing tables have. Write the results into ``features``."""
        names = (name for name, trial in POSITIONS.items() if accepts(connection, trial))
        self.features.position = next(names, self.features.position)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Add the columns and indexes that only this database has to the definitions of our tables."""

    def check_tables(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Refuse existing tables that can lose data, for example because their storage engine has no transactions.

        Raises:
            LTMError: ``configuration_error``; the message names the table and says what to do.
        """

    def index_expiry(self, entries: Table) -> None:
        """Index the column ``expires_at``.

        A partial index, if there is one, leaves out the entries that never expire.
        """
        expires_at, option = entries.c.expires_at, self.features.partial_index
        partial: dict[str, Any] = {option: expires_at.is_not(None)} if option else {}
        Index(f"ix_{entries.name}_expires_at", expires_at, **partial)

    def set_up(self, connection: Connection) -> None:
        """Change settings that the database stores. Called once at each start, for engines of our own."""

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Return the statements that create the tables and their indexes, in order."""
        return definitions_of(entries, *others)

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create the missing tables and indexes. It is safe to repeat this after a race or a crash."""
        for definition in self.definitions(*tables):
            if not _is_there(connection, definition):
                connection.execute(definition)

    def new_table(self, table: Table) -> CreateTable:
        """Return the statement that creates one table, if it does not exist."""
        return CreateTable(table, if_not_exists=True)

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the tables that ``definitions`` adds for searches. They are dropped after the entries' table."""
        return []

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Keep other processes from renaming a table until the transaction ends.

        The portable way is to lock every row.
        """
        renamed = table(name, column("key"))
        connection.execute(update(renamed).values(key=renamed.c.key))
        return nullcontext()

    def server_version(self, connection: Connection) -> str | None:
        """Return the server's version as people write it, or None if it is unknown."""
        version = connection.dialect.server_version_info
        return ".".join(str(part) for part in version if isinstance(part, int)) if version else None

    def max_entry_bytes(self, connection: Connection) -> int | None:
        """Return how many bytes one statement may have, or None if the limit need not be checked."""
        return None


def definitions_of(*tables: Table) -> list[ExecutableDDLElement | TextClause]:
    """Return the portable statements that create tables and their indexes, in order."""
    statements: list[ExecutableDDLElement | TextClause] = []
    for new_table in tables:
        statements.append(CreateTable(new_table, if_not_exists=True))
        statements += [CreateIndex(index) for index in sorted(new_table.indexes, key=lambda index: str(index.name))]
    return statements


def _is_there(connection: Connection, definition: ExecutableDDLElement | TextClause) -> bool:
    match definition:
        case CreateTable(element=new_table):
            return inspect(connection).has_table(new_table.name)
        case CreateIndex(element=index) if index.table is not None:
            return index.name in {existing["name"] for existing in inspect(connection).get_indexes(index.table.name)}
    return False
