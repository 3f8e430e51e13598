"""The earlier public layout of the entries' table (JSON columns, no version). The first start upgrades it once."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    inspect,
    select,
)
from sqlalchemy.schema import DropTable

from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.layouts import is_added, is_earlier
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.schema.rows import entry_parameters, entry_row

_PAGE_ROWS = 100


def set_aside(connection: Connection, dialect: Dialect, entries: Table) -> None:
    """Rename a table of the earlier layout, so that the new table can be created in the same transaction."""
    name = entries.name
    if not _is_earlier_layout(connection, entries):
        return
    with dialect.schema.exclusively(connection, name):
        if _is_earlier_layout(connection, entries):
            quote = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql(f"ALTER TABLE {quote(name)} RENAME TO {quote(_table(name).name)}")


def move_entries(
    connection: Connection, deadline: Deadline, dialect: Dialect, entries: Table, language: Language | None
) -> None:
    """Move the entries from the renamed table to the new one, then drop the renamed table.

    Each page of rows moves in one transaction. So this can be repeated after a crash, and several processes can do it
    at the same time.

    Raises:
        LTMError: today's rules refuse an entry. This entry and the following ones stay in the renamed table.
    """
    earlier = _table(entries.name)
    if not inspect(connection).has_table(earlier.name):
        return
    connection.rollback()
    moved = True
    while moved:
        with dialect.transactions.begin(connection, deadline, write=True):
            moved = _move_page(connection, dialect, entries, earlier, language)
    with connection.begin():
        connection.execute(DropTable(earlier, if_exists=True))


def is_foreign(connection: Connection, table: Table, *, may_be_earlier: bool) -> bool:
    """Return whether a table or view of this name exists in another layout than ours (today's or the earlier one)."""
    columns = columns_of(connection, table.name)
    if columns is None or columns >= {column.name for column in table.columns if not is_added(column.name)}:
        return False
    return not (may_be_earlier and is_earlier(columns))


def will_be_created(connection: Connection, entries: Table) -> bool:
    """Return whether the table will be created: it is missing, or has the earlier layout and will be renamed."""
    return not inspect(connection).has_table(entries.name) or _is_earlier_layout(connection, entries)


def _is_earlier_layout(connection: Connection, entries: Table) -> bool:
    return is_earlier(columns_of(connection, entries.name) or set())


def columns_of(connection: Connection, name: str) -> set[str] | None:
    """Return the names of a table's columns, or None if the table does not exist."""
    inspector = inspect(connection)
    return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else None


def _table(entries_name: str) -> Table:
    return Table(
        f"{entries_name}_earlier",
        MetaData(),
        Column("key", String(512), primary_key=True),
        Column("value", JSON),
        Column("metadata", JSON),
        Column("created_at", DateTime),
        Column("updated_at", DateTime),
    )


def _move_page(
    connection: Connection, dialect: Dialect, entries: Table, earlier: Table, language: Language | None
) -> bool:
    columns = earlier.c
    rows = connection.execute(select(earlier).order_by(columns.key).limit(_PAGE_ROWS).with_for_update()).all()
    if not rows:
        return False
    times = {name: bindparam(f"b_{name}", type_=dialect.times.timestamp) for name in ("created_at", "updated_at")}
    statement = insert(entries).values({**entry_row(dialect, entries), **times, "expires_at": None})
    now = datetime.now(timezone.utc)
    for key, value, metadata, created_at, updated_at in rows:
        row = entry_parameters(dialect, _entry(key, value, metadata, language), now)
        del row["b_now"]
        connection.execute(statement, {**row, "b_created_at": created_at or now, "b_updated_at": updated_at or now})
    connection.execute(delete(earlier).where(columns.key.in_([row[0] for row in rows])))
    return True


def _entry(key: str, value: Any, metadata: Any, language: Language | None) -> Store:
    try:
        return Store.of(key, value, metadata, rules=None if language is None else lambda: language)
    except LTMError as failure:
        problem = str(failure)
    raise LTMError("configuration_error", f"the entry {key!r} of the earlier layout cannot be kept: {problem}")
