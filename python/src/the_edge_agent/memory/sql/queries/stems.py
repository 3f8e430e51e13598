"""``Stems``: rewrites search texts that another release of the stemmer made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, update

from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.database.layouts import setting_of_language
from the_edge_agent.memory.sql.schema.create import Schema


class Stems:
    """The search texts of one table of entries, and the setting with the stemmer that made them."""

    def __init__(self, schema: Schema) -> None:
        """Build the statements."""
        self._schema, entries = schema, schema.tables.entries
        columns = entries.c
        is_same = and_(
            columns.key == bindparam("b_key"),
            columns.version == bindparam("b_version"),
            columns.updated_at == bindparam("b_moment", type_=columns.updated_at.type),
        )
        words = {"search_text": bindparam("b_words", type_=columns.search_text.type)}
        self._renew = update(entries).where(is_same).values({**words, **schema.dialect.queries.unindexed(entries)})
        self._keep = update(schema.tables.settings).where(schema.is_language).values(value=bindparam("b_value"))

    def are_of(self, connection: Connection, rules: Language) -> bool:
        """Return whether the search texts were made by this release's rules and the installed stemmer."""
        return self._schema.language_setting(connection) == setting_of_language(rules.name)

    def renew(self, connection: Connection, rows: Sequence[tuple[str, int, Any, str]]) -> None:
        """Store the search texts in rows of ``(key, version, updated_at, search text)``.

        Skip entries that changed since.
        """
        names = ("b_key", "b_version", "b_moment", "b_words")
        connection.execute(self._renew, [dict(zip(names, row, strict=True)) for row in rows])

    def keep(self, connection: Connection, rules: Language) -> None:
        """Record that the installed stemmer made all search texts."""
        connection.execute(self._keep, {"b_value": setting_of_language(rules.name)})
