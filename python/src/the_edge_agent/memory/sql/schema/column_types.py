"""Column types of our tables. Each becomes the exact type of a dialect when a statement is compiled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DateTime, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from the_edge_agent.memory.core.codec import decode_metadata, decode_stored, encode_metadata, encode_value
from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.sql.dialects import for_dialect


class Key(TypeDecorator[str]):
    """Text of 1 to 512 characters that compares exactly, ordered by code point."""

    impl = String
    cache_ok = True

    def __init__(self) -> None:
        """Create the type with the maximum key length."""
        super().__init__(MAX_KEY_LENGTH)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's exact type."""
        return dialect.type_descriptor(for_dialect(dialect).features.key_type)


class LongText(TypeDecorator[str]):
    """Text of any length in any script."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's exact type."""
        return dialect.type_descriptor(for_dialect(dialect).features.text_type)


class JSONText(LongText):
    """A JSON value as text, exactly as our codec wrote it. The JSON types of databases change data."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode a value."""
        return encode_value(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode a value.

        Raises:
            LTMError: ``query_error`` if the text is damaged.
        """
        return None if value is None else decode_stored(value)


class MetadataText(JSONText):
    """A JSON object as text, exactly as our codec wrote it, or NULL."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode metadata."""
        return encode_metadata(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode metadata.

        Raises:
            LTMError: ``query_error`` if the text is damaged.
        """
        return decode_stored(value, decode_metadata)


class Tokens(TypeDecorator[str]):
    """A search text: ASCII tokens."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's exact type."""
        return dialect.type_descriptor(for_dialect(dialect).features.token_type)


class Ascii(TypeDecorator[str]):
    """Identifiers and hashes: ASCII text up to a length."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's exact type."""
        length: int = self.impl_instance.length  # type: ignore[attr-defined]
        return dialect.type_descriptor(for_dialect(dialect).features.ascii_type(length))


class UTCDateTime(TypeDecorator[datetime]):
    """A time with microseconds. It takes any datetime (without a zone it means UTC) and returns one in UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's exact type."""
        return dialect.type_descriptor(for_dialect(dialect).features.time_type)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        """Return the function that converts a time to UTC. If the column has no zone, the result has none."""
        has_zone = getattr(for_dialect(dialect).features.time_type, "timezone", False)
        convert = self.impl_instance.bind_processor(dialect)

        def process(value: datetime | None) -> Any:
            if value is not None:
                value = value.astimezone(timezone.utc) if value.tzinfo else value.replace(tzinfo=timezone.utc)
                value = value if has_zone else value.replace(tzinfo=None)
            return value if convert is None else convert(value)

        return process

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC.

        A value that is not a time is returned as it is; a database without types may have one.
        """
        if not isinstance(value, datetime):
            return value
        return value.astimezone(timezone.utc) if value.tzinfo else value.replace(tzinfo=timezone.utc)
