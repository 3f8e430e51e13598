"""Answers of MySQL and MariaDB do not depend on session settings: we set ours, and check those of a caller's engine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text

from databases import Database, drop_tables
from engines import refused
from run_length import of_this_day
from session_variables import callers_engine, first_difference, tried
from the_edge_agent.memory import SQLAlchemyBackend
from the_edge_agent.memory.core.results import Result
from the_edge_agent.memory.sql.dialects.mysql import settings as mysql_settings

of_mysql = pytest.mark.targets(of_mysql=True, portable=False)
OTHER_ENGINES = {  # which keep our tables; MyISAM takes no long keys
    "mysql": ("MyISAM", ["ltm_snapshots", "ltm_schema_version"]),
    "mariadb": ("Aria", ["ltm_entries", "ltm_catalog", "ltm_snapshots", "ltm_snapshot_entries", "ltm_schema_version"]),
}
DRIVERS = {"pymysql": "pymysql", "mysqldb": "MySQLdb", "mysqlconnector": "mysql.connector"}
INSTALLED = [name for name, module in DRIVERS.items() if find_spec(module.partition(".")[0])]

# Each fails a call or changes an answer where it is let be.
EVERYWHERE = {
    "sql_mode": "'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT'",
    "sql_select_limit": "2",
    "completion_type": "1",
    "max_sort_length": "64",
    "sql_big_selects": "0, max_join_size = 1",
    "sql_safe_updates": "1",
    "timestamp": "1000000000",
    "character_set_client": "latin1",
    "character_set_results": "latin1",
    "collation_connection": "latin1_swedish_ci",
    "sql_quote_show_create": "0",
    "default_storage_engine": "MyISAM",
    "time_zone": "'+09:00'",
}
OF_ONE = {
    "mysql": {"max_execution_time": "1", "use_secondary_engine": "FORCED"},
    "mariadb": {"max_statement_time": "0.000001", "alter_algorithm": "'INSTANT'", "sort_buffer_size": "1024"},
}
MODES = {"mysql": "", "mariadb": ",EMPTY_STRING_IS_NULL,ORACLE"}
# What a caller's engine may have: it changes no answer of ours, as our statements and tables say all themselves.
HARMLESS = {"default_storage_engine", "time_zone"}


def wrong_settings(database: Database) -> dict[str, str]:
    modes = EVERYWHERE["sql_mode"].rstrip("'") + MODES[database.target.family] + "'"
    return {**EVERYWHERE, "sql_mode": modes, **OF_ONE[database.target.family]}


@pytest.fixture
def admin(database: Database) -> Any:
    """An engine on a database without our tables."""
    engine = create_engine(database.url)
    drop_tables(engine)
    yield engine
    drop_tables(engine)
    engine.dispose()


@of_mysql
def test_whatever_the_user_has_set_our_sessions_answer_the_same(database: Database, admin: Engine) -> None:
    expected = tried(database.url, is_ours=True)
    drop_tables(admin)
    wrong = ", ".join(f"{name} = {value}" for name, value in wrong_settings(database).items())
    found = tried(database.url, f"SET SESSION {wrong}", is_ours=True)
    assert isinstance(expected, list), expected
    assert found == expected, first_difference(expected, found)


@of_mysql
@pytest.mark.parametrize("driver", of_this_day(INSTALLED, 1))
def test_no_answer_depends_on_the_collation_of_the_connection(database: Database, driver: str, admin: Engine) -> None:
    """Every text that is compared comes from a column, which has a collation of its own."""
    url = make_url(database.url).set(drivername=f"mysql+{driver}").render_as_string(hide_password=False)
    found = []
    for collation in ("utf8mb4_bin", "utf8mb4_unicode_ci"):
        found.append(tried(url, f"SET NAMES utf8mb4 COLLATE {collation}", is_ours=False))
        drop_tables(admin)
    assert isinstance(found[0], list), found[0]
    assert found[0] == found[1], first_difference(*found)


@of_mysql
@pytest.mark.parametrize("driver", INSTALLED)
def test_our_connections_rest_in_autocommit_so_that_a_single_call_is_one_statement(
    database: Database, driver: str
) -> None:
    level = "tx_isolation" if database.target.family == "mariadb" else "transaction_isolation"
    with SQLAlchemyBackend(make_url(database.url).set(drivername=f"mysql+{driver}")) as backend:
        backend.store("k", 1)
        assert isinstance(backend._engine, Engine)
        pooled = backend._engine.raw_connection()
        cursor = pooled.cursor()
        cursor.execute(f"SELECT @@autocommit, @@{level}")
        assert cursor.fetchall() in ([(1, "READ-COMMITTED")], ((1, "READ-COMMITTED"),))
        cursor.close()
        pooled.close()


@pytest.mark.targets(family="mariadb", portable=False)
def test_galera_does_not_run_a_statement_again_by_itself(database: Database) -> None:
    with database.open() as backend, backend._engine.connect() as connection:
        assert connection.scalar(text("SELECT @@wsrep_retry_autocommit")) == 0


@of_mysql
@pytest.mark.parametrize("driver", INSTALLED)
def test_a_server_that_was_built_without_galera_gets_all_other_settings(
    database: Database, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_settings, "_GALERA", "no_such_variable = 0")
    with SQLAlchemyBackend(make_url(database.url).set(drivername=f"mysql+{driver}")) as backend:
        assert backend.store("k", 1)["created"] is True
        assert isinstance(backend._engine, Engine)
        with backend._engine.connect() as connection:
            assert connection.scalar(text("SELECT @@max_sort_length")) == 2048


@of_mysql
def test_a_callers_engine_with_a_setting_that_changes_answers_is_refused_by_name(database: Database) -> None:
    for name, value in wrong_settings(database).items():
        engine = callers_engine(database.url, f"SET SESSION {name} = {value}")
        if name in HARMLESS:
            SQLAlchemyBackend(engine=engine).close()
        else:
            reason = refused(engine=engine)
            assert name.replace("collation", "character_set") in reason
            assert "SET SESSION" in reason
        engine.dispose()


@of_mysql
@pytest.mark.parametrize("mode", ["", "ORACLE", "EMPTY_STRING_IS_NULL", "NO_BACKSLASH_ESCAPES"])
def test_a_callers_engine_whose_mode_loses_or_changes_data_is_refused(database: Database, mode: str) -> None:
    if mode in MODES["mariadb"].split(",")[1:] and database.target.family == "mysql":
        return  # it has no such mode
    strict = f"STRICT_TRANS_TABLES,{mode}" if mode else ""
    engine = callers_engine(database.url, f"SET SESSION sql_mode = '{strict}'")
    assert "sql_mode" in refused(engine=engine)
    engine.dispose()


@of_mysql
def test_a_later_connection_of_a_callers_engine_is_looked_at_too(database: Database, engine: Engine) -> None:
    with SQLAlchemyBackend(engine=engine) as backend:
        backend.store_many({"key": str(number), "value": number} for number in range(5))
        held = engine.connect()  # the one that the memory has seen
        with engine.connect() as connection:
            connection.execute(text("SET SESSION sql_select_limit = 2"))
        result = backend.retrieve_many([str(number) for number in range(5)])
        held.close()
    assert (result["success"], result["error_type"]) == (False, "configuration_error")
    assert "sql_select_limit" in result["error"]


@of_mysql
def test_a_table_of_another_storage_engine_is_refused_until_it_is_changed(database: Database, engine: Engine) -> None:
    with database.open(), database.open_catalog():
        pass
    other, tables = OTHER_ENGINES[database.target.family]
    for table in tables:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} ENGINE={other}"))
        for source in ({"url": database.url}, {"engine": engine}):
            reason = refused(**source)
            assert f"the table {table} has the storage engine {other}" in reason
        with engine.begin() as connection:
            connection.execute(text(reason.partition("run: ")[2]))
        database.open().close()


@of_mysql
def test_what_ddl_prints_makes_tables_of_innodb_wherever_it_is_run(database: Database, admin: Engine) -> None:
    backend = SQLAlchemyBackend(database.url, lazy=True)
    with admin.begin() as connection:
        connection.execute(text("SET SESSION default_storage_engine = MyISAM"))
        for statement in backend.ddl():
            connection.exec_driver_sql(statement.replace("%", "%%"))
        connection.execute(text("SET SESSION default_storage_engine = InnoDB"))
    backend.close()
    database.open(create_tables=False).close()


@of_mysql
def test_what_ddl_prints_may_run_twice_and_makes_the_indexes_too(database: Database, admin: Engine) -> None:
    """A member of Group Replication replays what another one has run, and leaves its group if that fails."""
    backend = SQLAlchemyBackend(database.url, catalog="sqlalchemy", lazy=True)
    made = [statement for statement in backend.ddl() if statement.startswith("CREATE")]
    with admin.begin() as connection:
        for statement in made * 2:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        indexed = [index["column_names"] for index in inspect(connection).get_indexes("ltm_entries")]
        assert ["expires_at"] in indexed
        assert ["updated_at", "key"] in indexed
        assert [index["column_names"] for index in inspect(connection).get_indexes("ltm_catalog")] == [["key"]]
    backend.close()


@of_mysql
def test_a_database_with_another_default_character_set_serves(database: Database, admin: Engine) -> None:
    name = make_url(database.url).database
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci"))
    with database.open(catalog="sqlalchemy") as backend:
        assert backend.store("😀", ["😀", "é"], {"é": "日本"})["created"] is True
        assert backend.search("😀 é", {"é": {"$lt": "😀"}})["results"][0]["value"] == ["😀", "é"]
        assert backend.catalog.get_snapshot(backend.catalog.create_snapshot("😀"))["name"] == "😀"
        assert [entry["key"] for entry in backend.catalog.list_entries("😀", {"é": "日本"})] == ["😀"]
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} CHARACTER SET utf8mb4"))


@of_mysql
@pytest.mark.parametrize("driver", INSTALLED)
def test_a_character_set_that_loses_characters_is_refused(database: Database, driver: str) -> None:
    url = make_url(database.url).set(drivername=f"mysql+{driver}")
    with SQLAlchemyBackend(url.update_query_dict({"charset": "UTF8MB4"})) as backend:
        assert backend.store("😀", 1)["created"] is True
    for charset in ("latin1", "utf8"):
        with_charset = url.update_query_dict({"charset": charset})
        begins = f"SET NAMES {charset}"
        assert f"charset {charset}" in refused(url=with_charset)
        assert f"charset {charset}" in refused(url=url, connect_args={"charset": charset})
        for engine in (create_engine(with_charset), callers_engine(url, begins)):
            if (driver, charset) == ("mysqlconnector", "utf8") and engine.url == with_charset:
                continue  # which it takes for utf8mb4
            assert "charset" in (reason := refused(engine=engine)) or "character_set" in reason
            engine.dispose()
        with SQLAlchemyBackend(url, connect_args={"init_command": begins}) as backend:
            backend.store("😀", "😀", {"😀": "é"})
            assert backend.search("😀", {"😀": "é"})["results"][0]["value"] == "😀"


@pytest.mark.targets(of_mysql=True, portable=False)
def test_long_keys_are_sorted_on_an_engine_of_the_callers(database: Database) -> None:
    """By the servers' default a sort looks at the first 1,024 bytes of a key."""
    engine = create_engine(database.url, pool_size=1, max_overflow=0)
    keys = sorted("x" * length for length in range(490, 513))
    with SQLAlchemyBackend(engine=engine) as memory:
        memory.store_many({"key": key, "value": 1, "metadata": {"n": 1}} for key in reversed(keys))
        assert memory.list_keys()["keys"] == keys
        found = memory.search(None, {"n": 1}, limit=100)
        assert [entry["key"] for entry in found["results"]] == keys  # of one time
        with engine.connect() as connection:
            assert connection.execute(text("SELECT @@max_sort_length")).scalar() == 2048
    engine.dispose()


@of_mysql
def test_a_limit_of_rows_that_an_application_sets_later_is_named_with_what_to_change(database: Database) -> None:
    results = after_setting(database, "sql_big_selects = 0, max_join_size = 1")
    assert {(result["error_type"], "set sql_big_selects = 1" in result["error"]) for result in results} == {
        ("configuration_error", True)
    }


def after_setting(database: Database, settings: str) -> list[Result]:
    """Return the failures of a search and a store after the application has changed the session's settings."""
    engine = create_engine(database.url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0)
    with SQLAlchemyBackend(engine=engine) as memory:
        for number in range(3):
            memory.store(f"k{number}", "fox", {"n": number})
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET SESSION {settings}")
        results = [memory.search("fox", {"n": {"$gt": 0}}), memory.store("new", 1)]
    engine.dispose()
    return [result for result in results if not result["success"]]
