"""The place of a run: tables of its own on a database, which are dropped at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, MetaData, Table, delete, inspect

from the_edge_agent.memory import LTMError, PostgresBackend, SQLAlchemyBackend, SQLiteBackend
from the_edge_agent.memory.sql.driver.url import parse_url, with_installed_driver
from the_edge_agent.memory.sql.schema.create import Schema

T = TypeVar("T")
_NATIVE: Final[Mapping[str, tuple[Any, str]]] = {
    "sqlite": (SQLiteBackend, "sqlite"),
    "postgresql": (PostgresBackend, "postgres"),
}
_BEGINS: Final = "ltm_"  # tables whose names cannot be chosen
_OF_THE_DATABASE: Final = {"ltm_schema_version", "ltm_settings"}
_OF_A_FILE: Final = ("", "-wal", "-shm", "-journal")


class Place:
    """A place for the calls. It has several handles; each is a memory object, and all use the same tables.

    With ``native`` or ``with_catalog`` the tables have their usual names, so the database must not have them yet.
    Otherwise the table of entries has a random name.

    Attributes:
        handles: how many handles there are.
        lasts: whether the entries still exist after a handle is closed.
        language: the language of the memory.
    """

    def __init__(
        self,
        url: str | None,
        *,
        native: bool = False,
        with_catalog: bool = False,
        engine: Engine | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the arguments. This does not connect to the database.

        Raises:
            LTMError: ``configuration_error``.
        """
        if (url is None) == (engine is None):
            raise LTMError("configuration_error", "either a URL or an engine is needed")
        self._original_url, self._engine, self._options = url, engine, dict(options or {})
        self.language = str(self._options.get("language") or "english").strip().lower()
        self._url = with_installed_driver(parse_url(url)[0]) if engine is None else engine.url
        self._family = self._url.get_backend_name()
        self._native, self._with_catalog = native, with_catalog
        if native and (engine is not None or self._family not in _NATIVE):
            raise LTMError("configuration_error", f"there is no native class for {self._family}")
        has_file = self._family in ("sqlite", "duckdb") and self._url.database not in (None, "", ":memory:")
        self._file = Path(str(self._url.database)) if has_file else None
        in_memory = self._family in ("sqlite", "duckdb") and not has_file
        self.lasts = not in_memory or engine is not None
        self.handles = 1 if not self.lasts else 3 if native else 2
        self._makes_file = self._file is not None and not self._file.exists()
        self._table = ""
        self._has_tables = True

    @contextmanager
    def opened(self) -> Iterator[list[Any]]:
        """Yield the handles on new, empty tables; at the end close them and drop the tables.

        Raises:
            LTMError: ``configuration_error`` if the database has tables of a memory already; any failure of the
                classes under test.
        """
        self._table = f"tea_{secrets.token_hex(4)}"  # short: Firebird 3 allows 31 characters for an index
        self._has_tables = self._check_tables()
        memories: list[Any] = []
        try:
            for number in range(self.handles):
                memories.append(self.open(number))
            yield memories
        finally:
            for memory in memories:
                memory.close()
            self._drop()

    def open(self, number: int) -> Any:
        """Return a new memory on the tables: the handle with this number."""
        if self._native and number < 2:
            factory, catalog = _NATIVE[self._family]
            plain = self._url.set(drivername=self._family).render_as_string(hide_password=False)
            address = (str(self._file) if self._file else ":memory:") if self._family == "sqlite" else plain
            return factory(address, **self._catalog(catalog), **self._options)
        name: dict[str, Any] = {} if self._uses_common_names else {"table_name": self._table}
        options: dict[str, Any] = {} if self._native else self._options
        return SQLAlchemyBackend(**self._source, **name, **self._catalog("sqlalchemy"), **options)

    @property
    def _source(self) -> dict[str, Any]:
        return {"url": self._original_url} if self._engine is None else {"engine": self._engine}

    @property
    def _uses_common_names(self) -> bool:
        return self._native or self._with_catalog

    def _catalog(self, name: str) -> dict[str, Any]:
        return {"catalog": name} if self._with_catalog else {}

    def _check_tables(self) -> bool:
        """Refuse tables that another program created; return whether there are tables of this run."""
        if not self.lasts or self._makes_file:
            return False
        names = self._beside(lambda _, connection: inspect(connection).get_table_names())
        present = [name for name in names if name.lower().startswith(_BEGINS)]
        if present and self._uses_common_names:
            raise LTMError(
                "configuration_error",
                f"the database has tables of a memory already ({', '.join(sorted(present))}); these are never touched: "
                "give the URL of an empty database, or leave --native and --catalog out",
            )
        return bool(present)

    def _drop(self) -> None:
        if self._makes_file and self._file is not None:
            for end in _OF_A_FILE:
                self._file.with_name(self._file.name + end).unlink(missing_ok=True)
        elif self.lasts:
            self._beside(self._drop_tables)

    def _drop_tables(self, schema: Schema, connection: Connection) -> None:
        present = inspect(connection).get_table_names()
        begin = _BEGINS if self._uses_common_names else self._table
        ours = [name for name in present if name.lower().startswith(begin)]
        others = [name for name in present if name.lower().startswith(_BEGINS) and name not in ours]
        if not self._has_tables and {name.lower() for name in others} <= _OF_THE_DATABASE:
            ours += others
            others = []
        connection.rollback()
        with schema.dialect.transactions.begin(connection, None, write=True):
            for name in sorted(ours, key=lambda name: "_fts_" in name):
                # Dropping the table of the text index also drops the tables that it consists of.
                Table(name, MetaData()).drop(connection, checkfirst=True)
            if "ltm_settings" in {name.lower() for name in others}:
                settings = schema.tables.settings
                connection.execute(delete(settings).where(settings.c.table_name == self._table))

    def _beside(self, work: Callable[[Schema, Connection], T]) -> T:
        """Run a function on a connection that is opened as the memories open theirs, so that it fails as theirs do."""
        options = {} if self._native else self._options
        with SQLAlchemyBackend(**self._source, lazy=True, create_tables=False, **options) as memory:
            return memory._database.peek(work)
