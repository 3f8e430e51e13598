"""The databases that the tests run on: chooses, creates, empties and drops them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from firebird_database import FirebirdDatabase, load_libraries
from run_length import in_turn
from the_edge_agent.memory import (
    LTMError,
    PostgresBackend,
    PostgresCatalog,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    SQLiteBackend,
    SQLiteCatalog,
)
from the_edge_agent.memory.postgres.database import WRITE
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.url import parse_url, with_installed_driver

SERVERS: Final[Mapping[str, str]] = {
    "postgresql": "TEST_POSTGRES_URL",
    "mysql": "TEST_MYSQL_URL",
    "mariadb": "TEST_MARIADB_URL",
}
# Files of databases that only the contract runs on: (the module of the driver, the URL of a file).
_OTHER_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "duckdb": ("duckdb_sqlalchemy", "duckdb:///{}"),
    "sqlcipher": ("sqlcipher3", "sqlite+pysqlcipher://:a%20secret@/{}?kdf_iter=4000"),
}
# Servers that only the contract runs on: (the module of the driver, the variable with the URL).
_OTHER_SERVERS: Final[Mapping[str, tuple[str, str]]] = {"firebird": ("firebird.driver", "TEST_FIREBIRD_URL")}
# Poolers in front of a server, by name: the variable with the URL of the server through the pooler.
POOLERS: Final[Mapping[str, str]] = {
    "pgbouncer": "TEST_PGBOUNCER_URL",
    "pgbouncer_session": "TEST_PGBOUNCER_SESSION_URL",
    "pgbouncer_new": "TEST_PGBOUNCER_NEW_URL",
}
VARIABLES: Final = (*SERVERS.values(), *(variable for _, variable in _OTHER_SERVERS.values()))
# Drivers that only the contract runs with, by SQLAlchemy's name: the module.
_OTHER_DRIVERS: Final[Mapping[str, str]] = {
    "psycopg2": "psycopg2",
    "mysqldb": "MySQLdb",
    "mysqlconnector": "mysql.connector",
}
COMPILED: Final = ("MySQLdb",)  # modules without wheels; they are tested only if the machine has a compiler
CHOICE: Final = "TEA_TEST_DATABASES"

_CREATE: Final[Mapping[str, str]] = {
    "postgresql": "CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    "mysql": "CREATE DATABASE {} CHARACTER SET utf8mb4",
    "mariadb": "CREATE DATABASE {} CHARACTER SET utf8mb4",
}
_DROP: Final[Mapping[str, str]] = {
    "postgresql": "DROP DATABASE IF EXISTS {} WITH (FORCE)",
    "mysql": "DROP DATABASE IF EXISTS {}",
    "mariadb": "DROP DATABASE IF EXISTS {}",
}
_WAIT_FOR_LOCKS: Final[Mapping[str, str]] = {  # if a test leaves a lock behind, the next one fails soon
    "postgresql": "SET lock_timeout = '10s'",
    "mysql": "SET innodb_lock_wait_timeout = 10",
    "mariadb": "SET innodb_lock_wait_timeout = 10",
}


class PortableBackend(SQLAlchemyBackend):
    """The backend with portable SQL only, as on a database that has no dialect class."""

    dialect_class: ClassVar[type[Dialect] | None] = Dialect


class PortableCatalog(SQLAlchemyCatalog):
    """The catalog with portable SQL only."""

    dialect_class: ClassVar[type[Dialect] | None] = Dialect


@dataclass(frozen=True)
class Target:
    """One database to test, with its own dialect class, with the portable one, or without SQLAlchemy.

    Targets with ``other`` have another database, driver or pooler than the main ones; they run the contract only.
    """

    family: str
    in_memory: bool = False
    portable: bool = False
    native: bool = False
    other: bool = False
    driver: str = ""
    pooler: str = ""

    @property
    def server(self) -> bool:
        """Whether the database is on a server, with users and passwords."""
        return self.family in SERVERS or self.family in _OTHER_SERVERS

    @property
    def of_mysql(self) -> bool:
        """Whether the database is MySQL or MariaDB."""
        return self.family in ("mysql", "mariadb")

    @property
    def name(self) -> str:
        """The name of the target in test ids and in ``TEA_TEST_DATABASES``."""
        kind = "-memory" * self.in_memory + "-portable" * self.portable + "-native" * self.native
        return self.family + f"-{self.pooler}" * bool(self.pooler) + kind + f"-{self.driver}" * bool(self.driver)

    @property
    def runs_a_part(self) -> bool:
        """Whether the target runs only a part of the contract unless it is named, because other targets run the rest.

        An SQLite database in RAM runs the same SQL as one in a file, and portable SQL is the same on each server.
        """
        return self.other or self.in_memory or (self.portable and self.server)

    @property
    def runs_by_default(self) -> bool:
        """Whether the target runs without being named. Of the poolers, only the first one does."""
        return self.pooler in ("", next(iter(POOLERS)))

    @property
    def module(self) -> str | None:
        """The module that an ``other`` database or driver needs; None if our own requirements are enough."""
        return _OTHER_DRIVERS.get(self.driver) or {**_OTHER_FILES, **_OTHER_SERVERS}.get(self.family, (None,))[0]


@dataclass(frozen=True)
class Opener:
    """Opens the memory of one database. It can be sent to another process."""

    target: Target
    url: str

    def __call__(self, **options: Any) -> Any:
        """Return a new backend on the database. Without the option ``language`` it searches exact words."""
        if not options.get("search", True) or "language" in options:
            return _opened(self.target, self.url, _BACKENDS, options)
        try:
            return _opened(self.target, self.url, _BACKENDS, {"language": "none", **options})
        except LTMError as error:
            if "words of the language" not in str(error):
                raise
        return _opened(self.target, self.url, _BACKENDS, options)  # the table was created with another language


@dataclass(frozen=True)
class CatalogOpener:
    """Opens the catalog of one database. It can be sent to another process."""

    target: Target
    url: str

    def __call__(self, **options: Any) -> Any:
        """Return a new catalog on the database."""
        return _opened(self.target, self.url, _CATALOGS, options)


_BACKENDS: Final = {
    "own": SQLAlchemyBackend,
    "portable": PortableBackend,
    "sqlite": SQLiteBackend,
    "postgresql": PostgresBackend,
}
_CATALOGS: Final = {
    "own": SQLAlchemyCatalog,
    "portable": PortableCatalog,
    "sqlite": SQLiteCatalog,
    "postgresql": PostgresCatalog,
}


def _opened(target: Target, url: str, classes: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    if target.family == "firebird":
        load_libraries(url)
    if not target.native:
        return classes["portable" if target.portable else "own"](url, **options)
    if target.family == "sqlite":
        return classes["sqlite"](url.removeprefix("sqlite://").removeprefix("/") or ":memory:", **options)
    return classes[target.family](url, **options)


@dataclass(frozen=True)
class Database:
    """An empty database of one test."""

    target: Target
    url: str

    @property
    def open(self) -> Opener:
        """The function that opens its memory."""
        return Opener(self.target, self.url)

    @property
    def open_catalog(self) -> CatalogOpener:
        """The function that opens its catalog."""
        return CatalogOpener(self.target, self.url)


_MYSQL_DRIVERS: Final = ("mysqldb", "mysqlconnector")
_FAMILIES: Final = ("sqlite", *SERVERS)
ALL_TARGETS: Final = (
    *(Target(family) for family in _FAMILIES),
    Target("sqlite", in_memory=True),
    *(Target(family, portable=True) for family in _FAMILIES),
    Target("sqlite", native=True),
    Target("sqlite", in_memory=True, native=True),
    Target("postgresql", native=True),
    *(Target(family, other=True) for family in (*_OTHER_FILES, *_OTHER_SERVERS)),
    Target("postgresql", other=True, driver="psycopg2"),
    *(Target(family, other=True, driver=driver) for family in ("mysql", "mariadb") for driver in _MYSQL_DRIVERS),
    *(Target("postgresql", other=True, pooler=name, native=native) for name in POOLERS for native in (False, True)),
)

# Only some targets of each group run the contract on one day, other ones on another; see ``waits_today``.
_TAKE_TURNS: Final = (
    (("postgresql-portable", "mysql-portable", "mariadb-portable"), 1),
    (("duckdb", "firebird"), 1),
    (tuple(target.name for target in ALL_TARGETS if target.driver), 2),
)
_OF_THIS_DAY: Final = frozenset(name for names, count in _TAKE_TURNS for name in in_turn(names, count))


class UnknownDatabaseError(Exception):
    """The choice names a database that does not exist."""


def chosen_targets(environment: Mapping[str, str] = os.environ) -> list[Target]:
    """Return the targets to test: the chosen ones, or without a choice all whose server the environment names."""
    choice = _choice(environment)
    if choice is None:
        return [target for target in ALL_TARGETS if target.runs_by_default and _reachable_by_name(target, environment)]
    names = {target.family for target in ALL_TARGETS} | {target.name for target in ALL_TARGETS}
    if unknown := sorted(choice - names):
        raise UnknownDatabaseError(f"{CHOICE}: unknown {', '.join(unknown)}; known: {', '.join(sorted(names))}")
    chosen = [
        target
        for target in ALL_TARGETS
        if target.name in choice or (target.family in choice and target.runs_by_default)
    ]
    for target in chosen:
        is_extra = target.driver or target.pooler
        if not _reachable_by_name(target, environment) and (not is_extra or target.name in choice):
            raise UnknownDatabaseError(f"{CHOICE} names {target.name}, but {_what_is_missing(target, environment)}")
    return [target for target in chosen if _reachable_by_name(target, environment)]


def not_tested(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return a line that says which databases are not tested and why; None if all are tested."""
    families = list(dict.fromkeys(target.family for target in ALL_TARGETS))
    choice = _choice(environment)
    if choice is not None:
        tested = {target.name for target in chosen_targets(environment)}
        left_out = [family for family in families if not any(name.startswith(family) for name in tested)]
        names = left_out or [target.name for target in ALL_TARGETS if target.name not in tested]
        return f"databases not tested: {', '.join(names)} ({CHOICE}={environment[CHOICE]})" if names else None
    by_default = [target for target in ALL_TARGETS if target.runs_by_default and not target.portable]
    absent = {target.name: _what_is_missing(target, environment) for target in by_default}
    missing = [f"{name} ({reason})" for name, reason in absent.items() if reason]
    return f"databases not tested: {', '.join(missing)}" if missing else None


def waits_today(target: Target) -> bool:
    """Return whether similar targets run the contract today in place of this one. In the long form no target waits."""
    return target.name not in _OF_THIS_DAY and any(target.name in names for names, _ in _TAKE_TURNS)


def waiting() -> str:
    """Return a line with the targets that do not run the contract today, because similar ones do."""
    names = [target.name for target in chosen_targets() if waits_today(target) and not is_named(target)]
    return f"similar targets run the contract today in place of: {', '.join(names) or 'none'}"


def is_named(target: Target, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the choice names a target. If it does, all of its tests run, even slow ones."""
    names = {target.name} if target.pooler else {target.family, target.name}
    return bool(names & (_choice(environment) or set()))


def fails_the_run(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether databases are missing that CI must test. If the databases were chosen, none are missing."""
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    required = [target for target in ALL_TARGETS if target.runs_by_default and target.module not in COMPILED]
    return in_ci and _choice(environment) is None and any(_what_is_missing(target, environment) for target in required)


def _choice(environment: Mapping[str, str]) -> set[str] | None:
    chosen = {name.strip() for name in environment.get(CHOICE, "").split(",")} - {""}
    return chosen or None


def _reachable_by_name(target: Target, environment: Mapping[str, str]) -> bool:
    return _what_is_missing(target, environment) is None


def _what_is_missing(target: Target, environment: Mapping[str, str]) -> str | None:
    if target.module is not None and not _is_installed(target.module):
        return f"{target.module} is not installed"
    for variable in (_variable(target.family), POOLERS.get(target.pooler)):
        if variable and not environment.get(variable):
            return f"{variable} is not set"
    return None


def _variable(family: str) -> str | None:
    return SERVERS.get(family) or _OTHER_SERVERS.get(family, (None, None))[1]


@cache
def _is_installed(module: str) -> bool:
    package = module.partition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None


@dataclass
class Databases:
    """The databases of one test session: created when first used, emptied for each test, dropped at the end."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _by_target: dict[str, _ServerDatabase | FirebirdDatabase | Exception] = field(default_factory=dict)

    def empty(self, target: Target, folder: Path) -> Database:
        """Return an empty database of a target; files are created in ``folder``.

        Raises:
            Exception: the server cannot be used. Each later call raises the same error without a wait.
        """
        if target.in_memory:
            return Database(target, "sqlite://")
        if target.family == "sqlite":
            return Database(target, f"sqlite:///{folder / ('native.db' if target.native else 'ltm.db')}")
        if target.family in _OTHER_FILES:
            return Database(target, _OTHER_FILES[target.family][1].format(folder / f"{target.name}.db"))
        if target.name not in self._by_target:
            try:
                url = self.environment[_variable(target.family) or ""]
                if target.family == "firebird":
                    self._by_target[target.name] = FirebirdDatabase(target, url)
                else:
                    self._by_target[target.name] = _ServerDatabase(target, url, self.environment)
            except Exception as error:  # it is stored, so that only the first test waits for an absent server
                self._by_target[target.name] = error
        database = self._by_target[target.name]
        if isinstance(database, Exception):
            raise database
        database.delete_rows()
        return Database(target, database.url)

    def drop(self) -> None:
        """Drop all databases that were created."""
        for database in self._by_target.values():
            if not isinstance(database, Exception):
                database.drop()


class _ServerDatabase:
    """A database on a server, created for the tests."""

    def __init__(self, target: Target, admin_url: str, environment: Mapping[str, str]) -> None:
        self._family = target.family
        self._name = f"tea_test_{secrets.token_hex(6)}"
        self._admin = _engine(admin_url)
        with self._admin.connect() as connection:
            connection.execute(text(_CREATE[self._family].format(self._name)))
        url = self._admin.url.set(database=self._name)
        self._engine = _engine(url.render_as_string(hide_password=False))
        if target.driver:
            url = url.set(drivername=f"{url.get_backend_name()}+{target.driver}")
        if target.pooler:
            pooler = make_url(environment[POOLERS[target.pooler]])
            url = url.set(host=pooler.host, port=pooler.port)
        self.url = url.render_as_string(hide_password=False)
        self._connection: Connection | None = None

    def delete_rows(self) -> None:
        """Empty our tables, which is faster than to create them again."""
        try:
            self._delete_rows()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self._connection = None  # an earlier test has killed it
            self._delete_rows()

    def _delete_rows(self) -> None:
        if self._connection is None:
            self._connection = self._engine.connect()
            self._connection.execute(text(_WAIT_FOR_LOCKS[self._family]))
        for table in self._tables():
            # An empty table may get another language. It gets exact words, the default of ``Opener``.
            statement = "UPDATE ltm_settings SET value = 'none'" if table == "ltm_settings" else f"DELETE FROM {table}"
            self._connection.execute(text(statement))

    def drop(self) -> None:
        """Drop the database and close our connections."""
        if self._connection is not None:
            self._connection.invalidate()  # a test may have killed it
            self._connection.close()
        with self._admin.connect() as connection:
            connection.execute(text(_DROP[self._family].format(self._name)))
        self._engine.dispose()
        self._admin.dispose()

    def _tables(self) -> Sequence[str]:
        names = inspect(self._connection).get_table_names() if self._connection else []
        return [name for name in names if name.startswith("ltm_") and name != "ltm_schema_version"]


def _engine(url: str) -> Engine:
    with_driver = with_installed_driver(parse_url(url)[0])
    return create_engine(with_driver, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True)


def drop_tables(engine: Engine) -> None:
    """Drop all tables that memories and catalogs have created."""
    quote = engine.dialect.identifier_preparer.quote
    with engine.begin() as connection:
        present = [name for name in inspect(connection).get_table_names() if name.startswith("ltm_")]
        for name in sorted(present, key=lambda name: "_fts_" in name):
            connection.execute(text(f"DROP TABLE IF EXISTS {quote(name)}"))


def run_sql(store: Any, *statements: str) -> None:
    """Run SQL statements in one transaction on the database of a memory or a catalog, without its public methods."""
    engine = getattr(store, "_engine", None)
    if engine is None and hasattr(store._database, "run"):
        store._database.run(lambda connection: [connection.execute(each) for each in statements], WRITE)
        return
    if engine is None:
        with store._database.transaction(write=True) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def expire_all(store: Any) -> None:
    """Let all entries with a lifetime expire, with an UPDATE, so that no test has to wait."""
    engine = getattr(store, "_engine", None)
    has_numeric_times = engine is not None and engine.dialect.driver == "firebird-driver"
    past = "0" if has_numeric_times else "'2000-01-01 00:00:00.000000'"
    run_sql(store, f"UPDATE ltm_entries SET expires_at = {past} WHERE expires_at IS NOT NULL")
