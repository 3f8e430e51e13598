"""SQLAlchemyCatalog: the ledger of what is stored, on any SQL database."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, ClassVar, Final, TypeVar

try:
    from sqlalchemy import URL, Engine
except ImportError as error:
    raise ImportError(
        'SQLAlchemyCatalog needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"'
    ) from error

from the_edge_agent.memory.catalog import compute_content_hash, generate_entry_id
from the_edge_agent.memory.codec import INT64_MAX, encode_metadata, encode_value
from the_edge_agent.memory.filters import parse_filter
from the_edge_agent.memory.results import LTMError, Result, fail, found_entries, ok, returns_result
from the_edge_agent.memory.sql.catalog import sent_bytes
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.engine import Database
from the_edge_agent.memory.sql.options import EngineOptions, check_flag, check_source
from the_edge_agent.memory.sql.rows import Tracked
from the_edge_agent.memory.sql.schema import LTMEntry
from the_edge_agent.memory.validation import (
    check_batch_size,
    check_items,
    check_key,
    check_keys,
    check_limit,
    check_prefix,
    check_text,
)

MAX_HASH_LENGTH: Final = 200
SNAPSHOT_ID_LENGTH: Final = 36
_REQUIRED: Final = frozenset({"key", "content_hash", "storage_uri", "byte_size", "metadata"})
_OPTIONAL: Final = frozenset({"inlined_value", "expires_at"})
_REFUSALS: Final = ("validation_error", "serialization_error")  # of one entry; any other failure is the whole batch's
_SMALL: Final = 500_000  # bytes of an entry that every server reads, whatever its limit

Self = TypeVar("Self", bound="SQLAlchemyCatalog")


class SQLAlchemyCatalog:
    """A ``CatalogBackend`` on SQLite, PostgreSQL, MySQL, MariaDB, or any database that SQLAlchemy speaks to.

    The contract of each method is ``CatalogBackend``'s, the same on every database; ``get_snapshot``,
    ``list_snapshots``, ``delete_snapshot``, ``get_deleted_entries`` and ``close`` come with it. Safe for many
    threads and for forks. A call is one transaction, and takes no longer than ``timeout``.
    """

    #: Set in a subclass to use a dialect class of one's own in place of the database's.
    dialect_class: ClassVar[type[Dialect] | None] = None

    def __init__(
        self,
        url: str | URL | None = None,
        pool_size: int = 5,
        echo: bool = False,
        auto_migrate: bool = True,
        lazy: bool = False,
        *,
        engine: Engine | None = None,
        max_overflow: int = 10,
        pool_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        timeout: float = 30.0,
        engine_args: Mapping[str, Any] | None = None,
        connect_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect and create the tables, unless ``lazy``. Either ``url`` or ``engine`` is needed.

        Args:
            url: a SQLAlchemy database URL.
            pool_size: connections kept open.
            echo: log every statement, without the values.
            auto_migrate: whether to create the tables that are missing; otherwise they must be there.
            lazy: import no driver and connect to nothing until the first call.
            engine: an engine of the caller's, in place of ``url``; shared and never disposed.
            max_overflow: connections above ``pool_size``, closed after use.
            pool_timeout: seconds to wait for a free connection.
            connect_timeout: seconds to wait for the server when connecting.
            timeout: seconds that a call may take, all waiting and trying again included.
            engine_args: more arguments of SQLAlchemy's ``create_engine``.
            connect_args: more arguments of the driver's ``connect``.

        Raises:
            LTMError: ``configuration_error``, ``dependency_missing`` and, unless ``lazy``,
                ``connection_error``, ``connection_timeout`` or ``auth_failed``.
        """
        options = EngineOptions(
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            timeout=timeout,
            echo=echo,
            create_tables=check_flag("auto_migrate", auto_migrate),
            engine_args={} if engine_args is None else engine_args,
            connect_args={} if connect_args is None else connect_args,
        )
        self._owns_database = True
        self._database = Database(
            check_source(url, engine, options),
            options,
            entries_name=LTMEntry.__tablename__,
            dialect_class=self.dialect_class,
        )
        if not check_flag("lazy", lazy):
            self._database.start()

    @classmethod
    def on(cls: type[Self], database: Database) -> Self:
        """Return the catalog on the database of a backend, which closes it; its engine and transactions serve both."""
        catalog = cls.__new__(cls)
        catalog._owns_database, catalog._database = False, database
        return catalog

    def is_on(self, database: Database) -> bool:
        """Return whether this is the database of a backend, so that one transaction can write both."""
        return self._database.is_same(database)

    @property
    def dialect(self) -> str:
        """The name of SQLAlchemy's dialect, such as ``postgresql``; connects first if need be."""
        return str(self._database.start().engine.dialect.name)

    @property
    def _engine(self) -> Engine | None:
        return self._database.engine

    # --- entries -----------------------------------------------------------------------------------

    @returns_result
    def track_entry(
        self,
        key: str,
        content_hash: str,
        storage_uri: str | None,
        byte_size: int | None,
        metadata: dict[str, Any] | None,
        inlined_value: Any = None,
        expires_at: datetime | None = None,
    ) -> Result:
        """Create or replace the entry of a key; see ``CatalogBackend.track_entry``."""
        entry = _tracked(key, content_hash, storage_uri, byte_size, metadata, inlined_value, expires_at)
        self._check_size(entry)
        (created,) = self._track([entry])
        return ok(entry_id=entry.entry_id, created=created)

    def get_entry(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None if there is none; see ``CatalogBackend.get_entry``."""
        entry_id = generate_entry_id(check_key(key))
        return self._database.run(lambda connection, sql: sql.catalog.get(connection, entry_id))

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the first entries by key; see ``CatalogBackend.list_entries``."""
        beginning, condition, most = check_prefix(prefix), parse_filter(metadata_filter), check_limit(limit)
        return self._database.run(
            lambda connection, sql: sql.catalog.list_entries(connection, beginning, condition, most),
            snapshot=condition is not None,
        )

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether it was there; see ``CatalogBackend.delete_entry``."""
        entry_id = generate_entry_id(check_key(key))
        return bool(
            self._database.run(
                lambda connection, sql: sql.catalog.delete(connection, [entry_id], sql.clock(connection)), write=True
            )
        )

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        if not isinstance(atomic, bool):
            raise LTMError("validation_error", "atomic must be true or false")
        good: list[Tracked] = []
        errors: list[dict[str, Any]] = []
        for place, entry in enumerate(check_items(entries, "entries")):
            try:
                good.append(self._checked(entry, f"entries[{place}]"))
            except LTMError as failure:
                if failure.error_type not in _REFUSALS:
                    raise
                key = entry.get("key") if isinstance(entry, Mapping) else None
                errors.append({"key": key, "error": str(failure), "error_type": failure.error_type})
        if errors and atomic:
            counts = {"stored_count": 0, "failed_count": len(errors), "errors": errors}
            return fail(errors[0]["error_type"], errors[0]["error"], **counts)
        self._track(good)
        return ok(stored_count=len(good), failed_count=len(errors), errors=errors)

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        """Return the entries of many keys, of one state; see ``CatalogBackend.retrieve_batch``."""
        wanted = check_keys(keys)
        ids = [generate_entry_id(key) for key in wanted]
        found = self._database.run(lambda connection, sql: sql.catalog.get_many(connection, ids), snapshot=len(ids) > 1)
        return found_entries({key: found.get(key) for key in wanted})

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove expired entries; see ``CatalogBackend.cleanup_expired``."""
        most = check_batch_size(batch_size)
        deleted, remaining = self._database.run(
            lambda connection, sql: sql.catalog.cleanup_expired(connection, most), write=True
        )
        return ok(deleted_count=deleted, remaining_count=remaining)

    # --- snapshots ---------------------------------------------------------------------------------

    def create_snapshot(self, name: str) -> str:
        """Keep what there is now and return the snapshot's id; see ``CatalogBackend.create_snapshot``."""
        snapshot_id, label = str(uuid.uuid4()), check_text(name, "name")
        self._database.run(
            lambda connection, sql: sql.catalog.create_snapshot(connection, snapshot_id, label), write=True
        )
        return snapshot_id

    def get_snapshot(self, snapshot_id: str) -> dict[str, Any] | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, None if there is none."""
        wanted = _check_snapshot_id(snapshot_id, "snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.snapshot(connection, wanted))

    def list_snapshots(self) -> list[dict[str, Any]]:
        """Return all snapshots as ``get_snapshot`` does, newest first."""
        return self._database.run(lambda connection, sql: sql.catalog.snapshots(connection))

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot, not the entries, and return whether it was there."""
        wanted = _check_snapshot_id(snapshot_id, "snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.delete_snapshot(connection, wanted), write=True)

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[dict[str, Any]]:
        """Return what is new or different since a snapshot; see ``CatalogBackend.get_changed_entries``."""
        wanted = None if since_snapshot_id is None else _check_snapshot_id(since_snapshot_id, "since_snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.changed(connection, wanted), snapshot=True)

    def get_deleted_entries(self, since_snapshot_id: str) -> list[dict[str, Any]]:
        """Return what a snapshot has and the catalog has no more, expired entries included, by key.

        Returns:
            ``[{"id", "key", "content_hash", "byte_size", "expires_at"}]``, as the snapshot saw it.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        wanted = _check_snapshot_id(since_snapshot_id, "since_snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.deleted(connection, wanted), snapshot=True)

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; idempotent. Afterwards every call is a ``connection_error``.

        The catalog of a backend (``backend.catalog``) is closed with it, and by it alone.
        """
        if self._owns_database:
            self._database.close()

    def __enter__(self: Self) -> Self:
        """Return the catalog itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the catalog."""
        self.close()

    def __repr__(self) -> str:
        """Name the database, with the password hidden."""
        return f"{type(self).__name__}({self._database.url.render_as_string(hide_password=True)!r})"

    def _track(self, entries: list[Tracked]) -> list[bool]:
        return self._database.run(
            lambda connection, sql: sql.catalog.track(connection, entries, sql.clock(connection, len(entries))),
            write=True,
        )

    def _checked(self, entry: Any, place: str) -> Tracked:
        if not isinstance(entry, Mapping):
            raise LTMError("validation_error", f"{place} must be a dict, not {type(entry).__name__}")
        if not entry.keys() >= _REQUIRED or not entry.keys() <= _REQUIRED | _OPTIONAL:
            known = ", ".join(sorted(_REQUIRED))
            raise LTMError("validation_error", f"{place} must have {known}, may have inlined_value and expires_at")
        try:
            tracked = _tracked(**entry)
            self._check_size(tracked)
        except LTMError as failure:
            raise failure.within(place) from None
        return tracked

    def _check_size(self, entry: Tracked) -> None:
        if (size := sent_bytes(entry, _SMALL)) > _SMALL:
            self._database.check_size(size)


def _tracked(
    key: str,
    content_hash: str,
    storage_uri: str | None,
    byte_size: int | None,
    metadata: dict[str, Any] | None,
    inlined_value: Any = None,
    expires_at: datetime | None = None,
) -> Tracked:
    checked = check_key(key)
    encoded = encode_metadata(metadata)
    return Tracked(
        entry_id=generate_entry_id(checked),
        key=checked,
        content_hash=_check_hash(content_hash),
        storage_uri=None if storage_uri is None else check_text(storage_uri, "storage_uri"),
        byte_size=None if byte_size is None else _check_size(byte_size),
        metadata=encoded,
        metadata_hash=None if encoded is None else compute_content_hash(metadata),
        inlined_value=None if inlined_value is None else encode_value(inlined_value),
        expires_at=None if expires_at is None else _in_utc(expires_at),
    )


def _check_hash(content_hash: Any) -> str:
    checked = check_text(content_hash, "content_hash")
    # No spaces: MySQL and MariaDB compare ASCII columns without those at the end.
    if not 1 <= len(checked) <= MAX_HASH_LENGTH or not all("!" <= character <= "~" for character in checked):
        message = f"content_hash must be 1 to {MAX_HASH_LENGTH} printable ASCII characters without spaces"
        raise LTMError("validation_error", message)
    return checked


def _check_snapshot_id(snapshot_id: Any, what: str) -> str:
    """Return the id, empty if it cannot be one: not every database compares such text with ASCII exactly."""
    checked = check_text(snapshot_id, what)
    return checked if len(checked) == SNAPSHOT_ID_LENGTH and checked.isascii() else ""


def _check_size(byte_size: Any) -> int:
    if isinstance(byte_size, bool) or not isinstance(byte_size, int) or not 0 <= byte_size <= INT64_MAX:
        raise LTMError("validation_error", "byte_size must be an integer from 0 to 2^63 - 1, or None")
    return int(byte_size)


def _in_utc(moment: Any) -> datetime:
    if not isinstance(moment, datetime):
        raise LTMError("validation_error", f"expires_at must be a datetime or None, not {type(moment).__name__}")
    try:
        is_naive = moment.utcoffset() is None
        return moment.replace(tzinfo=timezone.utc) if is_naive else moment.astimezone(timezone.utc)
    except OverflowError:
        raise LTMError("validation_error", "expires_at must be between the years 1 and 9999 in UTC") from None
