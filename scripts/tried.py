"""Lists the settings of servers, drivers and engines that `make configurations` tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSED = "configuration_error"
POOLERS = ("pgbouncer", "pgbouncer_session", "pgbouncer_new")


@dataclass(frozen=True)
class Configuration:
    """One row of the table.

    Attributes:
        name: the name of the row.
        server: the name of a server in ``dbservers``; empty for a database in a file or in RAM.
        settings: settings that are added to the server's own configuration.
        pooler: the name of the pooler in front of the server; empty for none.
        create: the text after ``CREATE DATABASE name``.
        sql: statements that are run first, in the database or the file; ``{database}`` is the name of the database.
        url: for a file, its URL, in which ``{folder}`` is a new folder; for a server, the name of the driver.
        query: parameters of the URL.
        arguments: the arguments of the differential test.
        expected: the ``error_type`` with which this configuration must be refused; empty if it must work exactly.
        contract: a target of the tests; if it is set, its whole contract runs in place of the differential test.
    """

    name: str
    server: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    pooler: str = ""
    create: str = ""
    sql: tuple[str, ...] = ()
    url: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    expected: str = ""
    contract: str = ""

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of the server and the pooler that must run."""
        return tuple(filter(None, (self.server, self.pooler)))


def _engine(**arguments: Any) -> tuple[str, ...]:
    return ("--engine", json.dumps(arguments))


def _options(**options: Any) -> tuple[str, ...]:
    return ("--options", json.dumps(options))


def _sqlite() -> Iterator[Configuration]:
    file, both = "sqlite:///{folder}/memory.db", ("--native", "--catalog")
    yield Configuration("sqlite", url=file)
    yield Configuration("sqlite, catalog", url=file, arguments=("--catalog",))
    yield Configuration("sqlite, native", url=file, arguments=both)
    yield Configuration("sqlite, in memory", url="sqlite://", arguments=("--catalog",))
    yield Configuration("sqlite, in memory, native", url="sqlite://", arguments=both)
    yield Configuration("sqlcipher", url="sqlite+pysqlcipher://:secret@/{folder}/memory.db?kdf_iter=4000")
    for pragma in (
        "journal_mode=DELETE",
        "journal_mode=PERSIST",
        "page_size=512",
        "page_size=65536",
        "auto_vacuum=FULL",
    ):
        sql = (f"PRAGMA {pragma}", "CREATE TABLE theirs (a)")
        yield Configuration(f"sqlite, {pragma}", url=file, sql=sql)
        yield Configuration(f"sqlite, native, {pragma}", url=file, sql=sql, arguments=both)
    for encoding in ("UTF-16le", "UTF-16be"):
        sql = (f"PRAGMA encoding='{encoding}'", "CREATE TABLE theirs (a)")
        yield Configuration(f"sqlite, {encoding}", url=file, sql=sql, expected=REFUSED)
        yield Configuration(f"sqlite, native, {encoding}", url=file, sql=sql, arguments=both, expected=REFUSED)
    for pool in ("NullPool", "StaticPool", "SingletonThreadPool"):
        engine = _engine(poolclass=pool, connect_args={"check_same_thread": False})
        yield Configuration(f"sqlite, engine, {pool}", url=file, arguments=engine)
    for level in ("SERIALIZABLE", "READ UNCOMMITTED", "AUTOCOMMIT"):
        yield Configuration(f"sqlite, engine, {level}", url=file, arguments=_engine(isolation_level=level))
    yield Configuration("sqlite, engine, types detected", url=file, arguments=_engine(connect_args={"detect_types": 3}))
    yield Configuration("sqlite, engine, echo", url=file, arguments=_engine(echo=True, hide_parameters=True))
    yield Configuration("sqlite, one connection", url=file, arguments=_options(pool_size=1, max_overflow=0))
    yield Configuration("duckdb", url="duckdb:///{folder}/memory.duckdb")
    yield Configuration("firebird", server="firebird")


def _postgres() -> Iterator[Configuration]:
    drivers = {"psycopg": (), "psycopg2": (), "native": ("--native", "--catalog")}
    for driver, arguments in drivers.items():
        url = "" if driver == "native" else driver
        yield Configuration(f"postgresql, {driver}", "postgres", url=url, arguments=arguments)
        for pooler in POOLERS:
            name = f"postgresql, {driver}, {pooler}"
            yield Configuration(name, "postgres", pooler=pooler, url=url, arguments=arguments)
        for encoding in ("SQL_ASCII", "LATIN1"):
            create = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            name = f"postgresql, {driver}, {encoding}"
            yield Configuration(name, "postgres", create=create, url=url, arguments=arguments, expected=REFUSED)
    statement = "pgbouncer_statement"
    yield Configuration("postgresql, psycopg, statement pooling", "postgres", pooler=statement, expected=REFUSED)
    yield Configuration(
        "postgresql, native, statement pooling",
        "postgres",
        pooler=statement,
        arguments=("--native",),
        expected=REFUSED,
    )
    for threshold in (0, 5):
        options = _options(prepare_threshold=threshold)
        yield Configuration(f"postgresql, prepared after {threshold}", "postgres", arguments=options)
        native = ("--native", *options)
        yield Configuration(f"postgresql, native, prepared after {threshold}", "postgres", arguments=native)
    yield Configuration("postgresql, catalog", "postgres", arguments=("--catalog",))
    locales = {
        "locale of the system": "LOCALE 'C.UTF-8'",
        "locale C.UTF-8": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
        "locale PG_UNICODE_FAST": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST' LOCALE 'C'",
    }
    for name, locale in locales.items():
        create = f"TEMPLATE template0 ENCODING 'UTF8' {locale}"
        yield Configuration(f"postgresql, {name}", "postgres", create=create)
        yield Configuration(f"postgresql, native, {name}", "postgres", create=create, arguments=drivers["native"])
    settings = {
        "times": ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'"),
        "far times": ("TimeZone = 'Pacific/Kiritimati'", "DateStyle = 'German'"),
        "texts": (
            "bytea_output = 'escape'",
            "standard_conforming_strings = off",
            "default_text_search_config = 'german'",
        ),
        "numbers": ("extra_float_digits = -15", "array_nulls = off", "transform_null_equals = on"),
        "a short GIN search": ("gin_fuzzy_search_limit = 1",),
        "serializable": ("default_transaction_isolation = 'serializable'",),
        "repeatable read": ("default_transaction_isolation = 'repeatable read'", "default_transaction_deferrable = on"),
        "jit": ("jit_above_cost = 0", "jit_inline_above_cost = 0", "jit_optimize_above_cost = 0"),
        "no scans": ("enable_seqscan = off", "enable_sort = off", "enable_hashagg = off", "enable_nestloop = off"),
        "no indexes": ("enable_indexscan = off", "enable_bitmapscan = off", "enable_indexonlyscan = off"),
        "generic plans": ("plan_cache_mode = 'force_generic_plan'", "work_mem = '64kB'"),
        "parallel": ("debug_parallel_query = on", "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0"),
        "LATIN1 clients": ("client_encoding = 'LATIN1'",),
        "limits": ("statement_timeout = '20s'", "lock_timeout = '1s'", "idle_in_transaction_session_timeout = '20s'"),
        "asynchronous commit": ("synchronous_commit = off", "quote_all_identifiers = on", "row_security = off"),
    }
    for name, lines in settings.items():
        sql = tuple(f"ALTER DATABASE {{database}} SET {line}" for line in lines)
        for driver, arguments in drivers.items():
            url = "" if driver == "native" else driver
            yield Configuration(f"postgresql, {driver}, {name}", "postgres", sql=sql, url=url, arguments=arguments)
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ UNCOMMITTED", "AUTOCOMMIT"):
        for driver in ("psycopg", "psycopg2"):
            engine = _engine(isolation_level=level)
            yield Configuration(f"postgresql, {driver}, engine, {level}", "postgres", url=driver, arguments=engine)
    for pool in ("NullPool", "StaticPool", "AssertionPool"):
        yield Configuration(f"postgresql, engine, {pool}", "postgres", arguments=_engine(poolclass=pool))
    yield Configuration(
        "postgresql, engine, pgbouncer",
        "postgres",
        pooler="pgbouncer",
        arguments=_engine(pool_size=3),
        expected=REFUSED,
    )
    safe = _engine(connect_args={"prepare_threshold": None})
    yield Configuration("postgresql, safe engine, pgbouncer", "postgres", pooler="pgbouncer", arguments=safe)
    for pooler in POOLERS:
        for kind in ("", "-native"):
            target = f"postgresql-{pooler}{kind}"
            yield Configuration(f"contract, {target}", "postgres", pooler=pooler, contract=target)


def _mysql(server: str) -> Iterator[Configuration]:
    for driver in ("pymysql", "mysqldb", "mysqlconnector"):
        yield Configuration(f"{server}, {driver}", server, url=driver)
        yield Configuration(f"{server}, {driver}, catalog", server, url=driver, arguments=("--catalog",))
    for charset in ("latin1", "utf8mb3", "utf8mb4 COLLATE utf8mb4_general_ci"):
        yield Configuration(f"{server}, database in {charset}", server, create=f"CHARACTER SET {charset}")
    for charset in ("latin1", "utf8"):
        query = {"charset": charset}
        yield Configuration(f"{server}, connections in {charset}", server, query=query, expected=REFUSED)
    variables = {
        "few rows": "sql_select_limit = 2",
        "ANSI": "sql_mode = 'ANSI'",
        "no modes": "sql_mode = ''",
        "many modes": "sql_mode = 'TRADITIONAL,ANSI_QUOTES,PIPES_AS_CONCAT,HIGH_NOT_PRECEDENCE,IGNORE_SPACE'",
        "no backslashes": "sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "padded": "sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'" if server == "mariadb" else "sql_mode = 'REAL_AS_FLOAT'",
        "chained": "completion_type = 1",
        "released": "completion_type = 2",
        "Tokyo": "time_zone = '+09:00'",
        "a frozen clock": "timestamp = 1000000000",
        "short sorts": "max_sort_length = 64",
        "small joins": "max_join_size = 1",
        "no autocommit": "autocommit = 0",
        "serializable": "SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "other collation": "collation_connection = 'latin1_swedish_ci'",
        "results in latin1": "character_set_results = 'latin1'",
        "safe updates": "sql_safe_updates = 1, sql_auto_is_null = 1",
        "short divisions": "div_precision_increment = 0, group_concat_max_len = 4",
    }
    if server == "mariadb":
        variables["empty is null"] = "sql_mode = 'EMPTY_STRING_IS_NULL'"
        variables["ORACLE"] = "sql_mode = 'ORACLE'"
        variables["simulated"] = (
            "sql_mode = 'ORACLE,EMPTY_STRING_IS_NULL,SIMULTANEOUS_ASSIGNMENT,TIME_ROUND_FRACTIONAL'"
        )
    for name, variable in variables.items():
        arguments = _options(connect_args={"init_command": f"SET {variable}"})
        yield Configuration(f"{server}, {name}", server, arguments=arguments)
    settings: dict[str, dict[str, str]] = {
        "MyISAM": {"default_storage_engine": "MyISAM"},
        "lower case": {"lower_case_table_names": "1"},
        "statements": {"log_bin": "binlog", "binlog_format": "STATEMENT", "server_id": "1"},
        "compact rows": {"innodb_default_row_format": "COMPACT"},
        "latin1": {"character_set_server": "latin1", "collation_server": "latin1_swedish_ci"},
        "small packets": {"max_allowed_packet": "1M"},
        "serializable server": {"transaction_isolation": "SERIALIZABLE"},
        "chained server": {"completion_type": "1", "max_sort_length": "64"},
    }
    if server == "mariadb":
        settings["Aria"] = {"default_storage_engine": "Aria"}
        settings["ORACLE server"] = {"sql_mode": "ORACLE,EMPTY_STRING_IS_NULL"}
    for name, values in settings.items():
        yield Configuration(f"{server}, {name}", server, settings=values, arguments=("--catalog",))
    small = {"innodb_page_size": "4096"}
    yield Configuration(f"{server}, small pages", server, settings=small, expected=REFUSED)
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"):
        yield Configuration(f"{server}, engine, {level}", server, arguments=_engine(isolation_level=level))
    dirty = _engine(isolation_level="READ UNCOMMITTED")
    yield Configuration(f"{server}, engine, READ UNCOMMITTED", server, arguments=dirty, expected=REFUSED)
    for pool in ("NullPool", "StaticPool"):
        yield Configuration(f"{server}, engine, {pool}", server, arguments=_engine(poolclass=pool))
    autocommit = _engine(connect_args={"autocommit": True})
    yield Configuration(f"{server}, engine, autocommit of the driver", server, arguments=autocommit, expected=REFUSED)
    two_rows = _engine(connect_args={"init_command": "SET sql_select_limit = 2"})
    yield Configuration(f"{server}, engine, few rows", server, arguments=two_rows, expected=REFUSED)


CONFIGURATIONS = (*_sqlite(), *_postgres(), *_mysql("mysql"), *_mysql("mariadb"))
