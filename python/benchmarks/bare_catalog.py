"""The catalog of the bare drivers: the same tables, ids and hashes as ours, with hand-written SQL."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from benchmarks.player import Player
from benchmarks.workload import Entry
from the_edge_agent.memory.contract.catalog import compute_content_hash, generate_entry_id

_COLUMNS: Final = "id, {key}, content_hash, storage_uri, byte_size, inlined_value, metadata, metadata_hash, expires_at"
_CATALOG: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_catalog (id {ascii64} NOT NULL, {key} {key_type} NOT NULL, "
    "content_hash {ascii200} NOT NULL, storage_uri {text}, byte_size BIGINT, inlined_value {text}, metadata {text}, "
    "metadata_hash {ascii200}, expires_at {time}, created_at {time} NOT NULL, updated_at {time} NOT NULL, "
    "version BIGINT NOT NULL{more}, PRIMARY KEY (id))"
)
_OTHERS: Final = (
    "CREATE TABLE IF NOT EXISTS ltm_snapshots (id {ascii36} NOT NULL, name {text} NOT NULL, "
    "entry_count BIGINT NOT NULL, total_bytes BIGINT NOT NULL, created_at {time} NOT NULL, PRIMARY KEY (id))",
    "CREATE TABLE IF NOT EXISTS ltm_snapshot_entries (snapshot_id {ascii36} NOT NULL, entry_id {ascii64} NOT NULL, "
    "{key} {key_type} NOT NULL, content_hash {ascii200} NOT NULL, metadata_hash {ascii200}, byte_size BIGINT, "
    "expires_at {time}, PRIMARY KEY (snapshot_id, entry_id))",
)
_TRACK: Final = (
    "INSERT INTO ltm_catalog (id, {key}, content_hash, storage_uri, byte_size, inlined_value, metadata, "
    "metadata_hash, expires_at, created_at, updated_at, version{more_name}) VALUES (:id, :key, :content_hash, NULL, "
    ":byte_size, NULL, :metadata, :metadata_hash, NULL, {now}, {now}, 1{more_value}){new_row} "
)
_SET: Final = ("content_hash", "storage_uri", "byte_size", "inlined_value", "metadata", "metadata_hash", "updated_at")
_KEEP: Final = (
    "INSERT INTO ltm_snapshot_entries (snapshot_id, entry_id, {key}, content_hash, metadata_hash, byte_size, "
    "expires_at) SELECT :snapshot, id, {key}, content_hash, metadata_hash, byte_size, expires_at FROM ltm_catalog "
    "WHERE expires_at IS NULL OR expires_at > {now}"
)
_FINISH: Final = (
    "INSERT INTO ltm_snapshots (id, name, entry_count, total_bytes, created_at) SELECT :label, 'benchmark', "
    "count(*), coalesce(sum(byte_size), 0), {now} FROM ltm_snapshot_entries WHERE snapshot_id = :snapshot"
)
_CHANGES: Final = (
    "SELECT c.id, c.{key}, c.content_hash, c.storage_uri, c.byte_size, c.inlined_value, c.metadata, c.expires_at, "
    "c.created_at, c.updated_at FROM ltm_catalog c LEFT JOIN ltm_snapshot_entries s "
    "ON s.snapshot_id = :snapshot AND s.entry_id = c.id WHERE (c.expires_at IS NULL OR c.expires_at > {now}) "
    "AND (s.entry_id IS NULL OR s.content_hash {differs} c.content_hash {ends} "
    "OR s.metadata_hash {differs} c.metadata_hash {ends} OR s.expires_at {differs} c.expires_at {ends})"
)


class BareCatalog(Player):
    """The catalog of a bare driver. A subclass has the methods that run statements.

    Statements name their values as ``:name``.
    """

    ascii_type: ClassVar[str]
    text_type: ClassVar[str]
    key_type: ClassVar[str]
    time_type: ClassVar[str]

    #: Words of the statements that differ between databases.
    words: ClassVar[Mapping[str, str]] = {"key": "key", "now": ":now", "differs": "IS NOT", "ends": ""}
    more_columns: ClassVar[str] = ""
    catalog_indexes: ClassVar[tuple[str, ...]] = ("CREATE INDEX IF NOT EXISTS ix_ltm_catalog_key ON ltm_catalog (key)",)

    @abstractmethod
    def execute(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a statement that commits by itself and return its rows."""

    @abstractmethod
    def run_together(self, statements: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Run statements in one transaction."""

    def now(self) -> Any:
        """Return the value of ``:now``; None if the statements use the server's time."""
        return None

    def create_catalog(self) -> None:
        """Create the tables."""
        types = {f"ascii{length}": self.ascii_type.format(length) for length in (36, 64, 200)}
        types |= {"text": self.text_type, "key_type": self.key_type, "time": self.time_type}
        for statement in (_CATALOG, *_OTHERS):
            self.execute(statement.format(**types, **self.words, more=self.more_columns), {})
        for statement in self.catalog_indexes:
            self.execute(statement, {})

    def track(self, entry: Entry, content_hash: str) -> bool:
        """See the base class."""
        metadata = json.dumps(entry.metadata, ensure_ascii=False)
        values = {
            "id": generate_entry_id(entry.key),
            "key": entry.key,
            "content_hash": content_hash,
            "byte_size": len(entry.value["text"]),
            "metadata": metadata,
            "metadata_copy": metadata,
            "metadata_hash": compute_content_hash(entry.metadata),
            "now": self.now(),
        }
        return self.track_row(values) == 1

    def track_row(self, values: Mapping[str, Any]) -> int:
        """Run the upsert and return the version of the row."""
        rows = self.execute(self.track_statement("", "", ""), values)
        return int(rows[0][0])

    def track_statement(self, more_name: str, more_value: str, more_set: str) -> str:
        """Return the upsert with ON CONFLICT ... RETURNING, for SQLite and PostgreSQL."""
        insert = _TRACK.format(**self.words, more_name=more_name, more_value=more_value, new_row="")
        changes = ", ".join(f"{name} = excluded.{name}" for name in _SET)
        return (
            f"{insert} ON CONFLICT (id) DO UPDATE SET {changes}{more_set}, "
            "version = CASE WHEN ltm_catalog.expires_at <= excluded.updated_at THEN 1 "
            "ELSE ltm_catalog.version + 1 END, expires_at = excluded.expires_at RETURNING version"
        )

    def snapshot(self) -> str:
        """See the base class."""
        snapshot = str(uuid.uuid4())
        values = {"snapshot": snapshot, "label": snapshot, "now": self.now()}
        self.run_together([(statement.format(**self.words), values) for statement in (_KEEP, _FINISH)])
        return snapshot

    def changes(self, snapshot: str) -> list[str]:
        """See the base class."""
        rows = self.execute(_CHANGES.format(**self.words), {"snapshot": snapshot, "now": self.now()})
        entries = [(*row[:6], json.loads(row[6]), *row[7:]) for row in rows]
        return sorted(entry[1] for entry in entries)

    def delete_snapshot(self, snapshot: str) -> None:
        """See the base class."""
        values = {"snapshot": snapshot}
        self.run_together(
            [
                ("DELETE FROM ltm_snapshots WHERE id = :snapshot", values),
                ("DELETE FROM ltm_snapshot_entries WHERE snapshot_id = :snapshot", values),
            ]
        )


class BareCatalogOfMySQL(BareCatalog):
    """The same catalog with the words of MySQL and MariaDB."""

    ascii_type, text_type = "VARCHAR({}) CHARACTER SET ascii COLLATE ascii_bin", "LONGTEXT COLLATE utf8mb4_bin"
    time_type = "DATETIME(6)"
    words: ClassVar[Mapping[str, str]] = {
        "key": "`key`",
        "now": "UTC_TIMESTAMP(6)",
        "differs": "<=>",
        "ends": "IS FALSE",
    }
    catalog_indexes: ClassVar[tuple[str, ...]] = ()
    more_columns = ", INDEX ix_ltm_catalog_key (`key`)"

    #: The text that gives the new row a name, and the text that refers to one of its columns.
    new_row: ClassVar[str] = " AS new"
    incoming: ClassVar[str] = "new.{}"

    def track_row(self, values: Mapping[str, Any]) -> int:
        """Run the upsert and return the version of the row."""
        insert = _TRACK.format(**self.words, more_name="", more_value="", new_row=self.new_row)
        new = self.incoming.format
        changes = ", ".join(f"{name} = {new(name)}" for name in (*_SET, "expires_at"))
        version = f"IF(ltm_catalog.expires_at <= {new('updated_at')}, 1, ltm_catalog.version + 1)"
        statement = f"{insert} ON DUPLICATE KEY UPDATE version = LAST_INSERT_ID({version}), {changes}"
        return self.last_id(statement, values) or 1

    @abstractmethod
    def last_id(self, statement: str, values: Mapping[str, Any]) -> int:
        """Run a statement and return the value that it passes to LAST_INSERT_ID, 0 if it passes none."""
