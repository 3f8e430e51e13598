"""The bare driver on SQLite: ``sqlite3`` with hand-written SQL, one permanent connection for each thread.

It stores what our backends store: the same columns, versions, lifetimes and text index, in WAL with the same settings.
A put is one statement that commits by itself. It lacks what a library adds: checks of arguments, clear errors,
deadlines, and the support of other databases.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from benchmarks.bare_catalog import BareCatalog
from benchmarks.player import Content, Row, Scored
from benchmarks.workload import Entry
from the_edge_agent.memory.core.languages import ENGLISH, language
from the_edge_agent.memory.core.tokens import search_text, tokenize
from the_edge_agent.memory.sqlite.index import definitions

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_entries (key VARCHAR(512) NOT NULL, value TEXT NOT NULL, metadata TEXT, "
    "search_text TEXT NOT NULL, version BIGINT NOT NULL, write_id VARCHAR(36), storage_uri VARCHAR(200), "
    "expires_at DATETIME, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, lifetime BIGINT, "
    "is_indexed SMALLINT, id INTEGER NOT NULL, PRIMARY KEY (id), UNIQUE (key))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_expires_at ON ltm_entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_updated_at ON ltm_entries (updated_at DESC, key)",
    *definitions("ltm_entries", has_json=True),
)
_PUT: Final = """
    INSERT INTO ltm_entries (key, value, metadata, search_text, version, expires_at, created_at, updated_at,
                             lifetime, is_indexed)
    VALUES (?1, ?2, ?3, ?4, 1, NULL, ?5, ?5, NULL, 1)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, search_text = excluded.search_text,
        version = CASE WHEN expires_at <= ?5 THEN 1 ELSE version + 1 END,
        created_at = CASE WHEN expires_at <= ?5 THEN ?5 ELSE created_at END,
        expires_at = excluded.expires_at, updated_at = ?5, storage_uri = NULL,
        lifetime = excluded.lifetime, is_indexed = excluded.is_indexed
    RETURNING version"""
_VISIBLE: Final = "(expires_at IS NULL OR expires_at > :now)"
_GET: Final = (
    "SELECT value, metadata, version FROM ltm_entries WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
)
# The score of the_edge_agent.memory.core.tokens.score for one word: from its occurrences and the length of the entry.
# Texts are read after the sort, and CROSS JOIN keeps the order of the tables: this was the fastest of four forms.
_SEARCH: Final = f"""
    WITH newest AS (
        SELECT id FROM ltm_entries
        WHERE id IN (SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH :word) AND {_VISIBLE}
        ORDER BY updated_at DESC, key LIMIT 1000),
    counted AS (
        SELECT e.id, key, updated_at,
            (length(search_text) - length(replace(search_text, :needle, ''))) / length(:needle) AS occurrences,
            (length(search_text) - length(replace(search_text, 'qz', ''))) / 2 AS tokens
        FROM newest CROSS JOIN ltm_entries e ON e.id = newest.id),
    best AS (
        SELECT id, updated_at, round(occurrences * 2.2 / (occurrences + 1.2 * (0.25 + 0.75 * tokens / 100)), 6) AS score
        FROM counted ORDER BY score DESC, updated_at DESC, key LIMIT 10)
    SELECT e.key, e.value, e.metadata, best.score, e.version, e.created_at, e.updated_at, e.expires_at
    FROM best JOIN ltm_entries e ON e.id = best.id
    ORDER BY best.score DESC, e.updated_at DESC, e.key"""
_FILTER: Final = f"""
    SELECT key, value, metadata FROM ltm_entries
    WHERE id IN (SELECT rowid FROM ltm_entries_fts WHERE ltm_entries_fts MATCH :word)
    AND json_extract(metadata, :path) = :value AND {_VISIBLE}
    ORDER BY updated_at DESC, key LIMIT 10"""
_KEYS: Final = f"SELECT key FROM ltm_entries WHERE key > :after AND {_VISIBLE} ORDER BY key LIMIT :limit"
_SCAN: Final = f"SELECT key, value, metadata FROM ltm_entries WHERE {_VISIBLE} ORDER BY key"


class BareSQLite(BareCatalog):
    """``sqlite3`` alone."""

    ascii_type, text_type, key_type, time_type = "VARCHAR({})", "TEXT", "VARCHAR(512)", "DATETIME"

    def __init__(self, place: str) -> None:
        """Open a file."""
        self._path = place
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        connection = self._connection
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in _TABLES:
            connection.execute(statement)
        self.create_catalog()

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous=NORMAL")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def put(self, entry: Entry) -> int:
        """See the base class."""
        ((version,),) = self._connection.execute(_PUT, _row(entry, _now())).fetchall()
        return int(version)

    def get(self, key: str) -> Content | None:
        """See the base class."""
        row = self._connection.execute(_GET, (key, _now())).fetchone()
        return row and (json.loads(row[0]), json.loads(row[1]))

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        connection, now = self._connection, _now()
        connection.execute("BEGIN IMMEDIATE")
        versions = [connection.execute(_PUT, _row(entry, now)).fetchone() for entry in entries]
        connection.execute("COMMIT")
        return len(versions)

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """See the base class."""
        marks = ", ".join("?" * len(keys))
        rows = self._connection.execute(
            f"SELECT key, value, metadata, version FROM ltm_entries WHERE key IN ({marks}) "
            "AND (expires_at IS NULL OR expires_at > ?)",
            (*keys, _now()),
        )
        return {row[0]: (json.loads(row[1]), json.loads(row[2])) for row in rows}

    def search(self, word: str) -> list[Scored]:
        """See the base class."""
        (token,) = tokenize(word, language(ENGLISH))
        values = {"needle": f"{token} ", "word": f'"{token}"', "now": _now()}
        rows = self._connection.execute(_SEARCH, values)
        return [(row[0], json.loads(row[1]), json.loads(row[2]), row[3]) for row in rows]

    def filter(self, name: str, value: str) -> list[Row]:
        """See the base class."""
        word = f'"qx{name[:64].encode().hex()}xs{value[:40].encode().hex()}"'
        values = {"word": word, "path": f'$."{name}"', "value": value, "now": _now()}
        return [_decoded(row) for row in self._connection.execute(_FILTER, values)]

    def list_keys(self, after: str, limit: int) -> list[str]:
        """See the base class."""
        rows = self._connection.execute(_KEYS, {"after": after, "limit": limit, "now": _now()})
        return [row[0] for row in rows]

    def scan(self) -> Iterator[Row]:
        """See the base class."""
        return map(_decoded, self._connection.execute(_SCAN, {"now": _now()}))

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM ltm_entries WHERE key = ?", [(key,) for key in keys])
        connection.execute("COMMIT")

    def close(self) -> None:
        """See the base class."""
        for connection in self._connections:
            connection.close()

    def execute(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See the base class."""
        return self._connection.execute(statement, values).fetchall()

    def run_together(self, statements: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """See the base class."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        for statement, values in statements:
            connection.execute(statement, values)
        connection.execute("COMMIT")

    def now(self) -> str:
        """See the base class."""
        return _now()


def _now() -> str:
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat(" ", "microseconds")


def _row(entry: Entry, now: str) -> tuple[str, str, str, str, str]:
    value, metadata = json.dumps(entry.value, ensure_ascii=False), json.dumps(entry.metadata, ensure_ascii=False)
    return entry.key, value, metadata, search_text(entry.key, entry.value, entry.metadata, language(ENGLISH)), now


def _decoded(row: Sequence[Any]) -> Row:
    return row[0], json.loads(row[1]), json.loads(row[2])
