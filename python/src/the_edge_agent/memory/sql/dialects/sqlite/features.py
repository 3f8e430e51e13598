"""``SQLiteFeatures``: what SQLite can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.sql.dialects.base import Features
from the_edge_agent.memory.sqlite.files import DatabaseFile


class Timestamp(DATETIME):
    """SQLAlchemy's times as text, but written four times as fast. A text that is not a time is returned as it is."""

    def bind_processor(self, dialect: EngineDialect) -> Callable[[datetime | None], str | None]:
        """Return the function that converts a time for the database; it drops the zone."""
        return lambda value: None if value is None else value.isoformat(" ", "microseconds")

    def result_processor(self, dialect: EngineDialect, coltype: object) -> Callable[[Any], Any]:
        """Return the function that converts a time of the database."""
        read: Any = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            try:
                return read(value)
            except (TypeError, ValueError):  # not raised, because its message shows the text
                return value

        return process


_TIME: Final = Timestamp()  # type: ignore[no-untyped-call]


@dataclass(kw_only=True)
class SQLiteFeatures(Features):
    """What SQLite can do.

    Attributes:
        has_metadata_words: whether the text index has words for metadata, too; the probe decides.
        file: the database file, which is checked while the database is open; None in memory. The probe sets it.
    """

    product: str = "SQLite"
    time_type: TypeEngine[Any] = _TIME
    has_exact_keys: bool = True
    partial_index: str | None = "sqlite_where"
    is_embedded: bool = True
    finds_damage: bool = True
    isolation_level: str = "SERIALIZABLE"
    commits_single_statements: bool = True
    has_snapshot_reads: bool = True
    has_text_index: bool = True
    has_json: bool = True
    position: str = "instr"
    has_metadata_words: bool = True
    file: DatabaseFile | None = None

    @property
    def search_path(self) -> str:
        """A short text for people that says how words are searched. It is correct only after the probe."""
        return "full-text index (FTS5)" if self.has_text_index else super().search_path

    @property
    def filter_path(self) -> str:
        """A short text for people that says how metadata filters are decided. It is correct only after the probe."""
        return "json_each" if self.has_json else super().filter_path
