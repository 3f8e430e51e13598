"""The bare driver on MySQL and MariaDB: PyMySQL with hand-written SQL, one permanent connection for each thread.

It stores what our backend stores: the same columns, versions and lifetimes. A search uses LIKE on the same tokens,
because InnoDB's full-text index does not follow transactions. A filter looks up the same terms. A put is one statement
that commits by itself, at the server's time, and takes the number from the entry, as ours does. It has no table of
words, which our backend fills once in 1,000 puts.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.cursors import SSCursor

from benchmarks.bare_catalog import BareCatalogOfMySQL
from benchmarks.player import Content, Row, Scored
from benchmarks.workload import Entry
from the_edge_agent.memory.core.languages import ENGLISH, language
from the_edge_agent.memory.core.tokens import search_text, tokenize
from the_edge_agent.memory.sql.dialects.mysql.metadata_hashes import METADATA_HASHES, metadata_hash_parameters

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_entries (`key` {key_type} NOT NULL, "
    "value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, "
    "metadata LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, "
    "search_text LONGTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL, version BIGINT NOT NULL, "
    "write_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin, "
    "storage_uri VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin, expires_at DATETIME(6), "
    "created_at DATETIME(6) NOT NULL, updated_at DATETIME(6) NOT NULL, lifetime BIGINT, is_indexed SMALLINT, "
    "PRIMARY KEY (`key`), "
    f"{''.join(f'{name} INT UNSIGNED, INDEX ix_ltm_entries_{name} ({name}), ' for name in METADATA_HASHES)}"
    "number BIGINT, INDEX ix_number (number), "
    "INDEX ix_ltm_entries_expires_at (expires_at), INDEX ix_ltm_entries_updated_at (updated_at DESC, `key`))"
)
_INSERT: Final = (
    f"INSERT INTO ltm_entries (`key`, value, metadata, search_text, {', '.join(METADATA_HASHES)}, number, version, "
    "expires_at, created_at, updated_at, lifetime, is_indexed) VALUES "
)
_VALUES: Final = (
    f"(%s, %s, %s, %s, {', '.join(['%s'] * len(METADATA_HASHES))}, NULL, 1, NULL, {{now}}, {{now}}, NULL, 1)"
)
_WRITTEN: Final = (
    *("value", "metadata", "search_text", *METADATA_HASHES, "number", "expires_at", "updated_at"),
    *("lifetime", "is_indexed"),
)
_VISIBLE: Final = "(expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6))"
_GET: Final = f"SELECT value, metadata, version FROM ltm_entries WHERE `key` = %s AND {_VISIBLE}"
_MANY: Final = f"SELECT `key`, value, metadata, version FROM ltm_entries WHERE `key` IN %s AND {_VISIBLE}"
# The score of the_edge_agent.memory.core.tokens.score for one word: from its occurrences and the length of the entry.
_SEARCH: Final = f"""
    WITH newest AS (
        SELECT `key`, updated_at,
            (LENGTH(search_text) - LENGTH(REPLACE(search_text, %(needle)s, ''))) DIV LENGTH(%(needle)s) AS occurrences,
            (LENGTH(search_text) - LENGTH(REPLACE(search_text, 'qz', ''))) DIV 2 AS tokens
        FROM ltm_entries WHERE search_text LIKE %(like)s AND {_VISIBLE}
        ORDER BY updated_at DESC, `key` LIMIT 1000),
    best AS (
        SELECT `key`, ROUND(occurrences * 2.2e0 / (occurrences + 1.2e0 * (0.25e0 + 0.75e0 * tokens / 100)), 6) AS score
        FROM newest ORDER BY score DESC, updated_at DESC, `key` LIMIT 10)
    SELECT e.`key`, e.value, e.metadata, best.score, e.version, e.created_at, e.updated_at, e.expires_at
    FROM best JOIN ltm_entries e ON e.`key` = best.`key`
    ORDER BY best.score DESC, e.updated_at DESC, e.`key`"""
_HAS_HASH: Final = " UNION ".join(f"SELECT `key` FROM ltm_entries WHERE {name} = %(hash)s" for name in METADATA_HASHES)
_FILTER: Final = f"""
    SELECT `key`, value, metadata FROM ({_HAS_HASH}) AS matches JOIN ltm_entries USING (`key`)
    WHERE JSON_UNQUOTE(JSON_EXTRACT(metadata, %(path)s)) = %(value)s AND {_VISIBLE}
    ORDER BY updated_at DESC, `key` LIMIT 10"""
_KEYS: Final = f"SELECT `key` FROM ltm_entries WHERE `key` > %s AND {_VISIBLE} ORDER BY `key` LIMIT %s"
_SCAN: Final = f"SELECT `key`, value, metadata FROM ltm_entries WHERE {_VISIBLE} ORDER BY `key`"


class BareMySQL(BareCatalogOfMySQL):
    """PyMySQL alone, on MySQL."""

    key_type = "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"

    def __init__(self, place: str) -> None:
        """Open a URL."""
        parts = urlsplit(place)
        self._address: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": parts.path.removeprefix("/"),
        }
        self._local = threading.local()
        self._connections: list[Any] = []
        self._upsert = self._on_duplicate(_VALUES.format(now="UTC_TIMESTAMP(6)"), is_one=True)
        self.execute(_TABLE.format(key_type=self.key_type), {})
        self.create_catalog()

    @property
    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            setting = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
            connection = pymysql.connect(**self._address, charset="utf8mb4", autocommit=True, init_command=setting)
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def put(self, entry: Entry) -> int:
        """See the base class; if the row existed, the statement passes its version to LAST_INSERT_ID."""
        with self._connection.cursor() as cursor:
            cursor.execute(self._upsert, _row(entry))
            return int(cursor.lastrowid or 1)

    def get(self, key: str) -> Content | None:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(_GET, (key,))
            row = cursor.fetchone()
        return row and (json.loads(row[0]), json.loads(row[1]))

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class; the versions are read while the rows are locked."""
        connection = self._connection
        connection.begin()
        with connection.cursor() as cursor:
            count = self._store_together(cursor, entries)
        connection.commit()
        return count

    def _store_together(self, cursor: Any, entries: Sequence[Entry]) -> int:
        values = [value for entry in entries for value in _row(entry)]
        cursor.execute(self._upsert_of(len(entries)), values)
        cursor.execute("SELECT `key`, version FROM ltm_entries WHERE `key` IN %s", ([entry.key for entry in entries],))
        return len(cursor.fetchall())

    @cache  # noqa: B019 - it holds one statement for each batch size
    def _upsert_of(self, size: int) -> str:
        return self._on_duplicate(", ".join([_VALUES.format(now="UTC_TIMESTAMP(6)")] * size), is_one=False)

    def _on_duplicate(self, rows: str, *, is_one: bool) -> str:
        new, old = self.incoming.format, "ltm_entries.{}".format
        version = f"IF({old('expires_at')} <= {new('updated_at')}, 1, {old('version')} + 1)"
        created = f"IF({old('expires_at')} <= {new('updated_at')}, {new('updated_at')}, {old('created_at')})"
        changes = [f"version = LAST_INSERT_ID({version})" if is_one else f"version = {version}"]
        changes += [f"created_at = {created}", *(f"{name} = {new(name)}" for name in _WRITTEN), "storage_uri = NULL"]
        return f"{_INSERT}{rows}{self.new_row} ON DUPLICATE KEY UPDATE {', '.join(changes)}"

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(_MANY, ([*keys],))
            return {row[0]: (json.loads(row[1]), json.loads(row[2])) for row in cursor.fetchall()}

    def search(self, word: str) -> list[Scored]:
        """See the base class."""
        (token,) = tokenize(word, language(ENGLISH))
        with self._connection.cursor() as cursor:
            cursor.execute(_SEARCH, {"needle": f"{token} ", "like": f"%{token} %"})
            return [(row[0], json.loads(row[1]), json.loads(row[2]), row[3]) for row in cursor.fetchall()]

    def filter(self, name: str, value: str) -> list[Row]:
        """See the base class."""
        with self._connection.cursor() as cursor:
            (metadata_hash, *_) = metadata_hash_parameters({name: value}).values()
            cursor.execute(_FILTER, {"hash": metadata_hash, "path": f'$."{name}"', "value": value})
            return [*map(_decoded, cursor.fetchall())]

    def list_keys(self, after: str, limit: int) -> list[str]:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(_KEYS, (after, limit))
            return [row[0] for row in cursor.fetchall()]

    def scan(self) -> Iterator[Row]:
        """See the base class; rows are read as they come."""
        with self._connection.cursor(SSCursor) as cursor:
            cursor.execute(_SCAN)
            yield from map(_decoded, cursor)

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM ltm_entries WHERE `key` IN %s", ([*keys],))

    def close(self) -> None:
        """See the base class."""
        for connection in self._connections:
            connection.close()

    def execute(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(_named(statement), values)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    def last_id(self, statement: str, values: Mapping[str, Any]) -> int:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(_named(statement), values)
            return int(cursor.lastrowid or 0)

    def run_together(self, statements: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """See the base class."""
        connection = self._connection
        connection.begin()
        with connection.cursor() as cursor:
            for statement, values in statements:
                cursor.execute(_named(statement), values)
        connection.commit()


class BareMariaDB(BareMySQL):
    """PyMySQL alone, on MariaDB. MariaDB has RETURNING, but cannot give the new row a name."""

    key_type = "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
    new_row: ClassVar[str] = ""
    incoming: ClassVar[str] = "VALUES({})"

    def put(self, entry: Entry) -> int:
        """See the base class."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"{self._upsert} RETURNING version", _row(entry))
            return int(cursor.fetchone()[0])

    def _store_together(self, cursor: Any, entries: Sequence[Entry]) -> int:
        values = [value for entry in entries for value in _row(entry)]
        cursor.execute(f"{self._upsert_of(len(entries))} RETURNING `key`, version", values)
        return len(cursor.fetchall())


@cache
def _named(statement: str) -> str:
    """Replace ``:name`` by the placeholders of PyMySQL."""
    return re.sub(r":(\w+)", r"%(\1)s", statement)


def _row(entry: Entry) -> tuple[str | int | None, ...]:
    value, metadata = json.dumps(entry.value, ensure_ascii=False), json.dumps(entry.metadata, ensure_ascii=False)
    tokens = search_text(entry.key, entry.value, entry.metadata, language(ENGLISH))
    return entry.key, value, metadata, tokens, *metadata_hash_parameters(entry.metadata).values()


def _decoded(row: Sequence[Any]) -> Row:
    return row[0], json.loads(row[1]), json.loads(row[2])
