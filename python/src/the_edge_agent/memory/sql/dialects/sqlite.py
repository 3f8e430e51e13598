"""SQLite: FTS5 over the tokens, json_each for filters, BEGIN IMMEDIATE for writes."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    PrimaryKeyConstraint,
    RootTransaction,
    Table,
    TextClause,
    UniqueConstraint,
    and_,
    column,
    event,
    func,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy import exists as sql_exists
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.dml import Insert

from the_edge_agent.memory.filters import Path
from the_edge_agent.memory.sql.deadlines import current
from the_edge_agent.memory.sql.dialects.conditions import Kind, NotInSQLError, Test
from the_edge_agent.memory.sql.dialects.upserts import UpsertReturning
from the_edge_agent.memory.text import Term

MEMDB_VERSION: Final = (3, 36, 0)  # the first whose connections can share a database in memory
MAX_FILTER_LEVELS: Final = 5  # SQLite's parser runs out of stack a few levels further
BUSY_TIMEOUT: Final = 30.0  # seconds to wait for another writer

_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "integer": ("integer",),
    "double": ("real",),
    "string": ("text",),
    "array": ("array",),
    "object": ("object",),
}
# The index holds no text, no positions and no sizes: phrases are rechecked and the rank is ours.
_FULL_TEXT: Final = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS %(fts)s USING fts5(search_text, content=%(name)s, content_rowid='id', "
    "tokenize='ascii', detail='none', columnsize=0)",
    "CREATE TRIGGER IF NOT EXISTS %(inserted)s AFTER INSERT ON %(table)s BEGIN "
    "INSERT INTO %(fts)s(rowid, search_text) VALUES (new.id, new.search_text); END",
    "CREATE TRIGGER IF NOT EXISTS %(deleted)s AFTER DELETE ON %(table)s BEGIN "
    "INSERT INTO %(fts)s(%(fts)s, rowid, search_text) VALUES ('delete', old.id, old.search_text); END",
    "CREATE TRIGGER IF NOT EXISTS %(updated)s AFTER UPDATE OF search_text ON %(table)s "
    "WHEN old.search_text <> new.search_text BEGIN "
    "INSERT INTO %(fts)s(%(fts)s, rowid, search_text) VALUES ('delete', old.id, old.search_text); "
    "INSERT INTO %(fts)s(rowid, search_text) VALUES (new.id, new.search_text); END",
)


class SQLiteDialect(UpsertReturning):
    """SQLite 3.35 or later; without FTS5 or JSON functions it falls back to LIKE and to Python."""

    isolation_level = "SERIALIZABLE"
    has_exact_keys = True
    keeps_one_state = True

    def __init__(self, entries: Table) -> None:
        """Build the statements."""
        super().__init__(entries)
        self._has_full_text = self._has_json = True
        self._full_text = table(f"{entries.name}_fts", column("rowid", Integer))

    @classmethod
    def connect_args(cls, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return how long to wait for another writer."""
        return {"timeout": min(BUSY_TIMEOUT, timeout)}

    @classmethod
    def engine_options(cls, url: URL) -> tuple[URL, dict[str, Any]]:
        """Give each memory database a name of its own, so that every thread has its own connection to it."""
        if url.database not in (None, "", ":memory:"):
            return url, {}
        if sqlite3.sqlite_version_info < MEMDB_VERSION:
            return url, {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        named = url.set(database=f"file:/{uuid.uuid4()}").update_query_dict({"vfs": "memdb", "uri": "true"})
        return named, {}

    @classmethod
    def prepare_engine(cls, engine: Engine) -> Any:
        """Set each connection up; keep one open beside the pool, because a memory database lives that long."""

        @event.listens_for(engine, "connect")
        def on_connect(driver_connection: Any, _: Any) -> None:
            # WAL keeps the file sound without waiting for the disk at each commit.
            driver_connection.execute("PRAGMA synchronous=NORMAL")

        if engine.url.query.get("vfs") != "memdb":
            return None
        args, kwargs = engine.dialect.create_connect_args(engine.url)
        return engine.dialect.loaded_dbapi.connect(*args, **kwargs)

    @classmethod
    def extend(cls, entries: Table) -> None:
        """Give the full-text index a stable row number to point to."""
        entries.c.key.primary_key = False
        entries.append_column(Column("id", Integer, primary_key=True))
        entries.append_constraint(PrimaryKeyConstraint("id"))
        entries.append_constraint(UniqueConstraint("key"))

    @classmethod
    def stop(cls, driver_connection: Any) -> None:
        """Interrupt the statement that is running."""
        driver_connection.interrupt()

    def set_up(self, connection: Connection) -> None:
        """Switch to WAL, which lasts."""
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def probe(self, connection: Connection) -> None:
        """Look for FTS5 and the JSON functions."""
        options = set(connection.exec_driver_sql("PRAGMA compile_options").scalars())
        self._has_full_text = "ENABLE_FTS5" in options
        functions = "SELECT 1 FROM pragma_function_list WHERE name = 'json_extract'"
        self._has_json = connection.exec_driver_sql(functions).first() is not None

    def definitions(self, tables: Iterable[Table]) -> list[ExecutableDDLElement | TextClause]:
        """Add the full-text index and the triggers that keep it."""
        found = super().definitions(tables)
        if self._has_full_text:
            name = self.entries.name
            names = {suffix: f'"{name}_{suffix}"' for suffix in ("fts", "inserted", "deleted", "updated")}
            found += [text(part % {**names, "table": f'"{name}"', "name": f"'{name}'"}) for part in _FULL_TEXT]
        return found

    def begin(self, connection: Connection, *, write: bool, snapshot: bool = False) -> RootTransaction:
        """Take the write lock first: a transaction that reads and then writes would fail as busy."""
        transaction = super().begin(connection, write=write)
        if write:
            _wait_for_writers(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        return transaction

    def upsert_statement(self) -> Insert:
        """Return the insert that becomes an update when the key is there."""
        statement = insert(self.entries).values(self.new_row())
        changes = {column.name: value for column, value in self.changes(statement.excluded)}
        return statement.on_conflict_do_update(index_elements=[self.entries.c.key], set_=changes)

    def text_condition(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Look positive terms up in the index, and recheck what it cannot tell."""
        indexed = [_index_term(term) for term in terms if not term.negated]
        if not indexed or not self._has_full_text:
            return super().text_condition(terms)
        matched = literal_column(self._full_text.name).op("MATCH")(" AND ".join(indexed))
        recheck = [self.contains(term) for term in terms if term.negated or len(term.tokens) > 1]
        return and_(self.entries.c.id.in_(select(self._full_text.c.rowid).where(matched)), *recheck)

    def at(self, path: Path, kinds: Sequence[Kind], test: Test | None = None) -> ColumnElement[bool]:
        """Walk down the path with one json_each a level."""
        if not self._has_json or len(path) > MAX_FILTER_LEVELS:
            raise NotInSQLError
        return _at(self.entries.c.metadata, path, kinds, test)


def _wait_for_writers(connection: Connection) -> None:
    """Let the connection wait for another writer as long as the call may take, in whole seconds; seldom a change."""
    deadline = current()
    seconds = BUSY_TIMEOUT if deadline is None else min(BUSY_TIMEOUT, ceil(deadline.remaining()))
    if connection.info.get("busy_timeout") != seconds:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={int(seconds * 1000)}")
        connection.info["busy_timeout"] = seconds


def _at(parent: ColumnElement[Any], path: Path, kinds: Sequence[Kind], test: Test | None) -> ColumnElement[bool]:
    each = func.json_each(parent).table_valued("key", "type", "atom", "value").alias(f"level{len(path)}")
    conditions = [each.c.key == path[0]]
    if len(path) > 1:
        conditions += [each.c.type == "object", _at(each.c.value, path[1:], kinds, test)]
    else:
        conditions.append(each.c.type.in_([name for kind in kinds for name in _TYPES[kind]]))
        if test is not None:
            conditions.append(test(each.c.atom))
    return sql_exists(select(literal_column("1")).select_from(each).where(*conditions))


def _index_term(term: Term) -> str:
    *before, last = (f'"{token}"' for token in term.tokens)
    return " AND ".join([*before, f"{last}*" if term.prefix else last])
