"""The tables: mapped classes, which users may query through the ORM, and a copy of the tables for each engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Index, Integer, MetaData, SmallInteger, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from the_edge_agent.memory.sql.schema.column_types import (
    Ascii,
    JSONText,
    Key,
    LongText,
    MetadataText,
    Tokens,
    UTCDateTime,
)

_PREFIX = "ltm_"


class Base(DeclarativeBase):
    """The registry of our mapped classes."""


class EntryColumns:
    """The columns of an entry; ``value`` and ``metadata_`` are decoded Python values."""

    # The sort_order puts these columns first, before the column of the subclass.
    key: Mapped[str] = mapped_column(Key(), primary_key=True, sort_order=-1)
    value: Mapped[Any] = mapped_column(JSONText(), nullable=False, sort_order=-1)
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", MetadataText(), sort_order=-1)
    version: Mapped[int] = mapped_column(BigInteger, nullable=False)
    write_id: Mapped[str | None] = mapped_column(Ascii(36))
    storage_uri: Mapped[str | None] = mapped_column(Ascii(200))
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    created_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)
    lifetime: Mapped[int | None] = mapped_column(BigInteger)  # microseconds; None if the entry has no lifetime
    is_indexed: Mapped[int | None] = mapped_column(SmallInteger)  # 0 if its words cannot be searched


class SearchedColumns(EntryColumns):
    """The columns of an entry whose words can be searched. Only such a table has the column ``search_text``."""

    search_text: Mapped[str] = mapped_column(Tokens(), nullable=False)


class LTMEntry(SearchedColumns, Base):
    """One entry of long-term memory. An expired entry stays in the table until a cleanup removes it."""

    __tablename__ = "ltm_entries"


class CatalogEntry(Base):
    """One entry of the catalog: facts about a stored value, and where the value is."""

    __tablename__ = "ltm_catalog"

    id: Mapped[str] = mapped_column(Ascii(64), primary_key=True)
    key: Mapped[str] = mapped_column(Key(), nullable=False, index=True)
    content_hash: Mapped[str] = mapped_column(Ascii(200), nullable=False)
    storage_uri: Mapped[str | None] = mapped_column(LongText())
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    inlined_value: Mapped[Any] = mapped_column(JSONText(), nullable=True)
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", MetadataText())
    metadata_hash: Mapped[str | None] = mapped_column(Ascii(200))
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    created_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)
    version: Mapped[int] = mapped_column(BigInteger, nullable=False)


class CatalogSnapshot(Base):
    """One snapshot of the catalog."""

    __tablename__ = "ltm_snapshots"

    id: Mapped[str] = mapped_column(Ascii(36), primary_key=True)
    name: Mapped[str] = mapped_column(LongText(), nullable=False)
    entry_count: Mapped[int] = mapped_column(BigInteger, nullable=False)
    total_bytes: Mapped[int] = mapped_column(BigInteger, nullable=False)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime(), nullable=False)


class CatalogSnapshotEntry(Base):
    """One catalog entry as a snapshot saw it."""

    __tablename__ = "ltm_snapshot_entries"

    snapshot_id: Mapped[str] = mapped_column(Ascii(36), primary_key=True)
    entry_id: Mapped[str] = mapped_column(Ascii(64), primary_key=True)
    key: Mapped[str] = mapped_column(Key(), nullable=False)
    content_hash: Mapped[str] = mapped_column(Ascii(200), nullable=False)
    metadata_hash: Mapped[str | None] = mapped_column(Ascii(200))
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime())


class Setting(Base):
    """A setting that was chosen when a table of entries was created: its language."""

    __tablename__ = "ltm_settings"

    table_name: Mapped[str] = mapped_column(Ascii(100), primary_key=True)
    name: Mapped[str] = mapped_column(Ascii(100), primary_key=True)
    value: Mapped[str] = mapped_column(LongText(), nullable=False)


class SchemaVersion(Base):
    """One row with the version of the schema. It is written last, so it shows that all other tables exist."""

    __tablename__ = "ltm_schema_version"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(Integer, nullable=False)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one engine, with the columns and indexes that its dialect adds."""

    entries: Table
    catalog: Table
    snapshots: Table
    snapshot_entries: Table
    settings: Table
    schema_version: Table

    def all(self) -> list[Table]:
        """Return every table, in the order of creation."""
        others = (self.snapshots, self.snapshot_entries, self.settings, self.schema_version)
        return [self.entries, self.catalog, *others]


@cache
def entry_class(table_name: str, *, search: bool = True) -> type[EntryColumns]:
    """Return the mapped class of an entries' table: ``LTMEntry`` for the default name, if it stores words."""
    if search and table_name == LTMEntry.__tablename__:
        return LTMEntry
    # A registry of its own, because Base has only the tables that every database has.
    base = type("Base", (DeclarativeBase,), {"__doc__": "The registry of one class."})
    columns = SearchedColumns if search else EntryColumns
    return type("LTMEntry", (columns, base), {"__tablename__": table_name, "__doc__": LTMEntry.__doc__})


def copy_tables(entries_name: str = LTMEntry.__tablename__, prefix: str = _PREFIX, *, search: bool = True) -> Tables:
    """Return a copy of the tables for one engine.

    Args:
        entries_name: the name of the entries' table.
        prefix: the beginning of the names of the other tables.
        search: whether the entries' table stores words.
    """
    metadata = MetaData()
    original: Any = entry_class(LTMEntry.__tablename__, search=search)
    entries = original.__table__.to_metadata(metadata, name=entries_name)
    Index(f"ix_{entries_name}_updated_at", entries.c.updated_at.desc(), entries.c.key)
    others = (CatalogEntry, CatalogSnapshot, CatalogSnapshotEntry, Setting, SchemaVersion)
    originals = (Base.metadata.tables[mapped.__tablename__] for mapped in others)
    copies = (table.to_metadata(metadata, name=prefix + table.name.removeprefix(_PREFIX)) for table in originals)
    return Tables(entries, *copies)
