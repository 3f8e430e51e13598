"""``Schema``: finds, checks and creates the tables of one database, or returns the SQL that creates them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Update,
    and_,
    delete,
    exc,
    false,
    insert,
    inspect,
    literal_column,
    select,
    update,
)
from sqlalchemy.schema import DropTable

from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.layouts import (
    LANGUAGE,
    SCHEMA_VERSION,
    another_layout,
    check_kind,
    check_language_of,
    check_version,
    language_name,
    missing_columns,
    setting_of_language,
)
from the_edge_agent.memory.sql.dialects import Dialect, for_dialect
from the_edge_agent.memory.sql.dialects.base import definitions_of
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.errors import breaks_constraint
from the_edge_agent.memory.sql.schema import legacy
from the_edge_agent.memory.sql.schema.rows import entry_parameters, entry_row
from the_edge_agent.memory.sql.schema.steps import steps_of, upgrade
from the_edge_agent.memory.sql.schema.tables import Tables


@dataclass(frozen=True)
class Schema:
    """Our tables in one database, with the columns and indexes of its dialect.

    Attributes:
        tables: the tables, including what the dialect adds.
        dialect: the dialect of the server.
        packet: how many bytes one statement may have; None for no limit.
        search: whether the entries' table stores words. None for a catalog, which needs no entries' table and accepts
            any.
        language: the language that the words must have. None accepts the language of the table; a new one gets English.
    """

    tables: Tables
    dialect: Dialect
    packet: int | None
    search: bool | None
    language: str | None = None

    @classmethod
    def of(
        cls,
        connection: Connection,
        tables: Tables,
        dialect_class: type[Dialect] | None,
        *,
        search: bool | None = None,
        language: str | None = None,
    ) -> Schema:
        """Probe the server, and add what its dialect needs to these copies of the tables. Nothing else changes."""
        dialect_class = dialect_class or for_dialect(connection.dialect)
        dialect = dialect_class(tables.entries.c.updated_at.type)
        dialect.schema.probe(connection, tables.entries, tables.catalog)
        dialect.schema.index_expiry(tables.entries)
        dialect.schema.extend(tables.entries, tables.catalog)
        for table in tables.all():
            table.kwargs.update(dialect.features.table_options)
        packet = dialect.schema.max_entry_bytes(connection)
        connection.rollback()
        return cls(tables, dialect, packet, search, language)

    def statements(self, connection: Connection) -> list[str]:
        """Return the SQL that creates the missing tables, and brings tables of earlier versions up to date.

        Raises:
            LTMError: ``configuration_error`` if the database has tables of another program or of the other kind.
        """
        self.check_layouts(connection)
        has_table = inspect(connection).has_table
        entries, *others = self.tables.all()
        is_new = self.search is not None and not has_table(entries.name)
        has_version = self.version(connection) is not None
        if self.search and not legacy.will_be_created(connection, entries):
            self.language_of(connection)
        missing = [table for table in others if not has_table(table.name)]
        if is_new:
            definitions = self.dialect.schema.definitions(entries, *missing)
        else:
            definitions = definitions_of(*missing) if missing else []
        compiled = [definition.compile(dialect=connection.dialect) for definition in definitions]
        rows: list[Any] = []
        if is_new and self.search and self.language_setting(connection) is None:
            rows.append(insert(self.tables.settings).values(self._setting()))
        if not has_version:
            rows.append(insert(self.tables.schema_version).values(id=1, version=SCHEMA_VERSION))
        literal = {"literal_binds": True}
        compiled += [row.compile(dialect=connection.dialect, compile_kwargs=literal) for row in rows]
        steps = [] if is_new or self.search is None else steps_of(connection, entries)
        if has_version and self.version(connection) != SCHEMA_VERSION:
            steps.append(str(self._new_version.compile(dialect=connection.dialect, compile_kwargs=literal)))
        return [*steps, *(str(statement).strip() for statement in compiled)]

    def is_complete(self, connection: Connection) -> bool:
        """Return whether all tables exist in this release's version. If not, check that they can be created.

        Raises:
            LTMError: ``configuration_error`` if the database has tables of another program or of the other kind.
        """
        try:
            is_complete = self.version(connection) == SCHEMA_VERSION
        except exc.DBAPIError:
            connection.rollback()
            self.check_layouts(connection)  # the version table may belong to another program
            raise
        is_complete = is_complete and (self.search is None or self._has_entries(connection))
        if not is_complete:
            self.check_layouts(connection)
        self.dialect.schema.check_tables(connection, self.tables.all())
        connection.rollback()
        return is_complete

    def language_of(self, connection: Connection) -> Language | None:
        """Return the language rules of the entries' table, which exists, or None if it stores no words.

        Raises:
            LTMError: ``configuration_error`` if the table has another language than the requested one, or no language.
        """
        if not self.search:
            return None
        setting = self.language_setting(connection)
        connection.rollback()
        return check_language_of(self.tables.entries.name, self.language, setting)

    def stored_language(self, connection: Connection) -> str:
        """Return the name of the language of the entries' table, which stores words.

        Raises:
            LTMError: ``configuration_error`` if the table has no language.
        """
        return language_name(self.tables.entries.name, self.language_setting(connection))

    @property
    def is_language(self) -> ColumnElement[bool]:
        """The condition for the row of the settings table that has the language of the entries' table."""
        settings = self.tables.settings
        return and_(settings.c.table_name == self.tables.entries.name, settings.c.name == LANGUAGE)

    def language_setting(self, connection: Connection) -> str | None:
        """Return the stored language setting, see ``layouts.setting_of_language``, or None if there is none."""
        settings = self.tables.settings
        if not inspect(connection).has_table(settings.name):
            return None
        setting = connection.scalar(select(settings.c.value).where(self.is_language))
        return None if setting is None else str(setting)

    def _setting(self) -> dict[str, str]:
        value = setting_of_language(self.language)
        return {"table_name": self.tables.entries.name, "name": LANGUAGE, "value": value}

    def _has_entries(self, connection: Connection) -> bool:
        """Return whether the entries' table exists with all columns. Refuse one of the other kind (words or none)."""
        entries = self.tables.entries
        if not inspect(connection).has_table(entries.name):
            return False
        everything: Select[Any] = select(literal_column("*")).select_from(entries).where(false())
        with connection.execute(everything) as nothing:
            check_kind(entries.name, nothing.keys(), search=self.search)
            return not missing_columns(nothing.keys())

    def check_layouts(self, connection: Connection) -> None:
        """Refuse a database in which a table with one of our names has another layout, or is of the other kind.

        Raises:
            LTMError: ``configuration_error``.
        """
        foreign = self.foreign_tables(connection)
        self._check_kind(connection)  # after foreign_tables: a table that another process created meanwhile is ours
        for name in foreign:
            raise another_layout(name)

    def _check_kind(self, connection: Connection) -> None:
        name = self.tables.entries.name
        check_kind(name, legacy.columns_of(connection, name) or (), search=self.search)

    def foreign_tables(self, connection: Connection) -> list[str]:
        """Return the names of the tables that exist in another layout than ours (today's or the earlier one)."""
        entries, *others = self._with_search_tables()
        foreign = [table.name for table in others if legacy.is_foreign(connection, table, may_be_earlier=False)]
        return [entries.name] * legacy.is_foreign(connection, entries, may_be_earlier=True) + foreign

    def create(self, connection: Connection, deadline: Deadline) -> None:
        """Create the missing tables before the deadline. Many processes may do this at the same time.

        Raises:
            LTMError: ``configuration_error`` if the database changes or loses what we store.
        """
        if self.search:
            is_new = legacy.will_be_created(connection, self.tables.entries)
            connection.rollback()
            if is_new:  # the language first, because an entries' table without a language is refused
                self._in_transaction(connection, deadline, self._create_settings)
                self._in_transaction(connection, deadline, self._write_language)
            else:
                self._check_kind(connection)
                self.language_of(connection)
        connection.rollback()
        self._in_transaction(connection, deadline, self._create_tables)
        self._check_kind(connection)  # another process may have created a table of the other kind meanwhile
        self.dialect.schema.check_tables(connection, self.tables.all())
        connection.rollback()
        if self.search is not None:
            language = self.language_of(connection)
            legacy.move_entries(connection, deadline, self.dialect, self.tables.entries, language)
            connection.rollback()
            self._in_transaction(connection, deadline, partial(upgrade, self))
        if self.search is not None and not self.dialect.features.has_exact_keys:
            self._check_keys(connection)
            connection.rollback()
        self._in_transaction(connection, deadline, self._write_version)

    def _in_transaction(self, connection: Connection, deadline: Deadline, work: Callable[[Connection], None]) -> None:
        with self.dialect.transactions.begin(connection, deadline, write=True):
            work(connection)

    def _create_tables(self, connection: Connection) -> None:
        entries, *others = self.tables.all()
        if self.search is None:
            self.dialect.schema.create(connection, *others)
            return
        legacy.set_aside(connection, self.dialect, entries)
        self._check_kind(connection)  # a text index on a table without words would break the table
        self.dialect.schema.create(connection, entries, *others)

    def _create_settings(self, connection: Connection) -> None:
        if not inspect(connection).has_table(self.tables.settings.name):
            connection.execute(self.dialect.schema.new_table(self.tables.settings))

    def _write_language(self, connection: Connection) -> None:
        if self.language_setting(connection) is None:
            connection.execute(insert(self.tables.settings).values(self._setting()))

    def _write_version(self, connection: Connection) -> None:
        version = self.version(connection)
        if version is None:
            connection.execute(insert(self.tables.schema_version).values(id=1, version=SCHEMA_VERSION))
        elif version != SCHEMA_VERSION:
            connection.execute(self._new_version)

    @property
    def _new_version(self) -> Update:
        return update(self.tables.schema_version).values(version=SCHEMA_VERSION)

    def _check_keys(self, connection: Connection) -> None:
        """Refuse a database that confuses keys, sorts them wrongly, rounds times, or miscounts.

        The caller rolls back.
        """
        prefix = f"{uuid.uuid4()}/"
        keys = sorted(prefix + key for key in ("a", "A", "a ", "á", "a\u0301", "B", "_", "日", "\uffff", "😀"))
        clock = self.dialect.times.clock(connection, statements=len(keys))
        now = clock and clock.replace(microsecond=123_457)
        entries, column = self.tables.entries, self.tables.entries.c.key
        statement = insert(entries).values(entry_row(self.dialect, entries))
        are_ours = and_(column >= prefix, column < prefix[:-1] + "0")
        try:
            for key in keys:
                connection.execute(statement, entry_parameters(self.dialect, Store.of(key, None, None), now))
            is_exact = connection.scalars(select(column).where(are_ours).order_by(column)).all() == keys
        except exc.DBAPIError as error:
            if not breaks_constraint(error):
                raise
            is_exact = False
        if not is_exact:
            raise LTMError(
                "configuration_error",
                "this database does not keep keys exactly (case, accents, trailing spaces, order by code point); "
                "create the table with a binary collation for the column key",
            )
        if now and set(connection.scalars(select(entries.c.updated_at).where(are_ours))) != {now}:
            raise LTMError("configuration_error", "this database does not keep the microseconds of times")
        if connection.execute(delete(entries).where(are_ours)).rowcount != len(keys):
            raise LTMError(
                "configuration_error",
                f"the driver {connection.dialect.driver} does not report how many rows a statement has changed; "
                "use another one",
            )

    def drop(self, connection: Connection) -> None:
        """Drop our tables, as far as they exist, with their search tables."""
        present = [table for table in self._with_search_tables() if inspect(connection).has_table(table.name)]
        connection.rollback()
        if not present:
            return
        with self.dialect.transactions.begin(connection, None, write=True):
            for table in present:
                connection.execute(DropTable(table))

    def _with_search_tables(self) -> list[Table]:
        return [*self.tables.all(), *self.dialect.schema.search_tables(self.tables.entries)]

    def version(self, connection: Connection) -> int | None:
        """Return the version of the schema, or None if the tables are missing or incomplete.

        Raises:
            LTMError: ``configuration_error`` if it is a later version than ours.
        """
        table = self.tables.schema_version
        if not inspect(connection).has_table(table.name):
            return None
        version: Any = connection.scalar(select(table.c.version))
        return None if version is None else check_version(table.name, version)
