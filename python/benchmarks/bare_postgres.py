"""The bare driver on PostgreSQL: psycopg 3 and its pool with hand-written SQL.

It stores what our backends store: the same columns, versions, lifetimes, ``tsvector`` and JSONB copy, with the same
indexes. A put is one statement that commits by itself, at the server's time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from psycopg_pool import ConnectionPool

from benchmarks.bare_catalog import BareCatalog
from benchmarks.player import Content, Row, Scored
from benchmarks.workload import Entry
from the_edge_agent.memory.core.languages import ENGLISH, language
from the_edge_agent.memory.core.tokens import search_text, tokenize

_TABLES: Final = (
    'CREATE TABLE IF NOT EXISTS ltm_entries (key VARCHAR(512) COLLATE "C" NOT NULL, value VARCHAR NOT NULL, '
    "metadata VARCHAR, search_text VARCHAR NOT NULL, version BIGINT NOT NULL, write_id VARCHAR(36), "
    "storage_uri VARCHAR(200), expires_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL, "
    "updated_at TIMESTAMPTZ NOT NULL, lifetime BIGINT, is_indexed SMALLINT, search_vector TSVECTOR GENERATED ALWAYS AS "
    "(to_tsvector('simple'::regconfig, search_text)) STORED, metadata_json JSONB NOT NULL, PRIMARY KEY (key))",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_expires_at ON ltm_entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_metadata_json ON ltm_entries USING gin (metadata_json jsonb_path_ops)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_search_vector ON ltm_entries USING gin (search_vector)",
    "CREATE INDEX IF NOT EXISTS ix_ltm_entries_updated_at ON ltm_entries (updated_at DESC, key)",
)
_PUT: Final = """
    INSERT INTO ltm_entries AS e (key, value, metadata, metadata_json, search_text, version, expires_at, created_at,
                                  updated_at, lifetime, is_indexed)
    VALUES (%s, %s, %s, %s::jsonb, %s, 1, NULL, now(), now(), NULL, 1)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, metadata_json = excluded.metadata_json,
        search_text = excluded.search_text,
        version = CASE WHEN e.expires_at <= now() THEN 1 ELSE e.version + 1 END,
        created_at = CASE WHEN e.expires_at <= now() THEN now() ELSE e.created_at END,
        expires_at = excluded.expires_at, updated_at = now(), storage_uri = NULL,
        lifetime = excluded.lifetime, is_indexed = excluded.is_indexed
    RETURNING version"""
_VISIBLE: Final = "(expires_at IS NULL OR expires_at > now())"
_GET: Final = f"SELECT value, metadata, version FROM ltm_entries WHERE key = %s AND {_VISIBLE}"
_MANY: Final = f"SELECT key, value, metadata, version FROM ltm_entries WHERE key = ANY(%s) AND {_VISIBLE}"
# The score of the_edge_agent.memory.core.tokens.score for one word: from its occurrences and the length of the entry.
# The counting is a second step: in the first step the planner would count in all matches, not only in the newest.
_SEARCH: Final = f"""
    WITH newest AS (
        SELECT key, updated_at, search_text FROM ltm_entries
        WHERE search_vector @@ to_tsquery('simple'::regconfig, %(token)s) AND {_VISIBLE}
        ORDER BY updated_at DESC, key LIMIT 1000),
    counted AS (
        SELECT key, updated_at,
            (length(search_text) - length(replace(search_text, %(needle)s, ''))) / length(%(needle)s) AS occurrences,
            (length(search_text) - length(replace(search_text, 'qz', ''))) / 2 AS tokens
        FROM newest),
    best AS (
        SELECT key, round(occurrences * 2.2 / (occurrences + 1.2 * (0.25 + 0.75 * tokens / 100)), 6)::float8 AS score
        FROM counted ORDER BY score DESC, updated_at DESC, key LIMIT 10)
    SELECT e.key, e.value, e.metadata, best.score, e.version, e.created_at, e.updated_at, e.expires_at
    FROM best JOIN ltm_entries e ON e.key = best.key
    ORDER BY best.score DESC, e.updated_at DESC, e.key"""
_FILTER: Final = f"""
    SELECT key, value, metadata FROM ltm_entries WHERE metadata_json @> %s::jsonb AND {_VISIBLE}
    ORDER BY updated_at DESC, key LIMIT 10"""
_KEYS: Final = f"SELECT key FROM ltm_entries WHERE key > %s AND {_VISIBLE} ORDER BY key LIMIT %s"
_SCAN: Final = f"SELECT key, value, metadata FROM ltm_entries WHERE {_VISIBLE} ORDER BY key"
_STREAMED_ROWS: Final = 1_000


class BarePostgres(BareCatalog):
    """psycopg alone."""

    ascii_type, text_type, time_type = "VARCHAR({})", "VARCHAR", "TIMESTAMPTZ"
    key_type = 'VARCHAR(512) COLLATE "C"'
    words = {"key": "key", "now": "now()", "differs": "IS DISTINCT FROM", "ends": ""}  # noqa: RUF012 - as the base
    more_columns = ", metadata_json JSONB NOT NULL"
    catalog_indexes = (
        *BareCatalog.catalog_indexes,
        "CREATE INDEX IF NOT EXISTS ix_ltm_catalog_metadata_json ON ltm_catalog USING gin "
        "(metadata_json jsonb_path_ops)",
    )

    def __init__(self, place: str) -> None:
        """Open a URL."""
        url = place.replace("+psycopg://", "://")
        self._pool = ConnectionPool(url, kwargs={"autocommit": True}, min_size=1, max_size=10, open=True)
        for statement in _TABLES:
            self.execute(statement, {})
        self.create_catalog()

    def put(self, entry: Entry) -> int:
        """See the base class."""
        with self._pool.connection() as connection:
            row = connection.execute(_PUT, _row(entry)).fetchone()
        assert row
        return int(row[0])

    def get(self, key: str) -> Content | None:
        """See the base class."""
        with self._pool.connection() as connection:
            row = connection.execute(_GET, (key,)).fetchone()
        return row and (json.loads(row[0]), json.loads(row[1]))

    def put_many(self, entries: Sequence[Entry]) -> int:
        """See the base class."""
        count = 0
        with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_PUT, [_row(entry) for entry in entries], returning=True)
            for _ in entries:
                count += cursor.fetchone() is not None
                cursor.nextset()
        return count

    def retrieve_many(self, keys: Sequence[str]) -> Mapping[str, Content]:
        """See the base class."""
        with self._pool.connection() as connection:
            rows = connection.execute(_MANY, ([*keys],)).fetchall()
        return {row[0]: (json.loads(row[1]), json.loads(row[2])) for row in rows}

    def search(self, word: str) -> list[Scored]:
        """See the base class."""
        (token,) = tokenize(word, language(ENGLISH))
        with self._pool.connection() as connection:
            rows = connection.execute(_SEARCH, {"needle": f"{token} ", "token": token}).fetchall()
        return [(row[0], json.loads(row[1]), json.loads(row[2]), row[3]) for row in rows]

    def filter(self, name: str, value: str) -> list[Row]:
        """See the base class."""
        with self._pool.connection() as connection:
            return [*map(_decoded, connection.execute(_FILTER, (json.dumps({name: value}),)))]

    def list_keys(self, after: str, limit: int) -> list[str]:
        """See the base class."""
        with self._pool.connection() as connection:
            return [row[0] for row in connection.execute(_KEYS, (after, limit))]

    def scan(self) -> Iterator[Row]:
        """See the base class."""
        with self._pool.connection() as connection, connection.transaction(), connection.cursor(name="scan") as cursor:
            cursor.itersize = _STREAMED_ROWS
            yield from map(_decoded, cursor.execute(_SCAN))

    def delete_many(self, keys: Sequence[str]) -> None:
        """See the base class."""
        self.execute("DELETE FROM ltm_entries WHERE key = ANY(:keys)", {"keys": [*keys]})

    def close(self) -> None:
        """See the base class."""
        self._pool.close()

    def track_statement(self, more_name: str, more_value: str, more_set: str) -> str:
        """See the base class; the JSONB copy is stored too."""
        return super().track_statement(
            ", metadata_json", ", :metadata_copy::jsonb", ", metadata_json = excluded.metadata_json"
        )

    def execute(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See the base class."""
        with self._pool.connection() as connection:
            cursor = connection.execute(_named(statement), values)
            return cursor.fetchall() if cursor.description else []

    def run_together(self, statements: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """See the base class."""
        with self._pool.connection() as connection, connection.transaction():
            for statement, values in statements:
                connection.execute(_named(statement), values)


@cache
def _named(statement: str) -> bytes:
    """Replace ``:name`` by the placeholders of psycopg. A cast has two colons and stays."""
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement).encode()


def _row(entry: Entry) -> tuple[str, str, str, str, str]:
    value, metadata = json.dumps(entry.value, ensure_ascii=False), json.dumps(entry.metadata, ensure_ascii=False)
    return entry.key, value, metadata, metadata, search_text(entry.key, entry.value, entry.metadata, language(ENGLISH))


def _decoded(row: Sequence[Any]) -> Row:
    return row[0], json.loads(row[1]), json.loads(row[2])
