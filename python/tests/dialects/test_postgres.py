"""Features of the native PostgreSQL classes only; their contracts are tested together with those of the others."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from databases import Database, run_sql
from native_memories import everything, fill
from the_edge_agent.memory import (
    LTMError,
    PostgresBackend,
    PostgresCatalog,
    SQLAlchemyBackend,
    SQLAlchemyCatalog,
    create_catalog_backend,
    create_ltm_backend,
    parse_ltm_config,
)
from the_edge_agent.memory.database.search_plan import STEP_LIMITS, StepLimits

pytestmark = pytest.mark.targets(family="postgresql", native=True)

# --- the same tables -----------------------------------------------------------------------------------


def layout(url: str) -> dict[str, Any]:
    """Return the columns, keys and indexes of every table."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "SELECT table_name, column_name, data_type, character_maximum_length, collation_name, is_nullable, "
                "generation_expression FROM information_schema.columns WHERE table_name LIKE 'ltm%' ORDER BY 1, 2"
            )
        ).all()
        indexes = connection.execute(
            text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'ltm%' ORDER BY 1")
        ).all()
        version = connection.execute(text("SELECT * FROM ltm_schema_version")).all()
    return {"columns": columns, "indexes": indexes, "version": version}


def drop_tables(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for name in inspect(connection).get_table_names():
            connection.execute(text(f"DROP TABLE {name}"))


def test_both_make_the_same_tables(database: Database) -> None:
    drop_tables(database.url)
    PostgresBackend(database.url).close()
    found = layout(database.url)
    drop_tables(database.url)
    SQLAlchemyBackend(database.url).close()
    assert layout(database.url) == found


@pytest.mark.parametrize("few", [0, 2, 5, 100])
def test_a_filter_finds_the_same_whether_few_or_many_satisfy_it(
    database: Database, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STEP_LIMITS, "postgresql", (StepLimits(few, 2 * few), StepLimits(3 * few, 4 * few)))
    with PostgresBackend(database.url) as memory, SQLAlchemyBackend(database.url) as other:
        for start in range(0, 20, 4):  # four of one time each
            memory.store_many(
                {"key": f"k{n:02}", "value": f"fox {n}", "metadata": {"half": n % 2, "n": n, "five": n // 4}}
                for n in range(start, start + 4)
            )
        newest = [f"k{n:02}" for start in range(16, -1, -4) for n in range(start, start + 4)]
        for limit, offset in ((1, 0), (3, 2), (4, 8), (20, 0), (5, 20)):
            for condition, numbers in (
                ({"half": 0}, range(0, 20, 2)),
                ({"half": {"$in": [0, 1]}, "five": 1}, range(4, 8)),
                ({"n": 7}, [7]),
                ({"n": 7.5}, []),
                ({"$or": [{"n": 3}, {"five": 4}]}, [3, *range(16, 20)]),
                ({"half": 1, "n": {"$lt": 6}}, [1, 3, 5]),
            ):
                expected = [key for key in newest if int(key[1:]) in numbers][offset : offset + limit]
                for query in (None, "-hound"):
                    for each in (memory, other):
                        found = each.search(query, condition, limit, offset=offset, prefix="k")
                        assert [entry["key"] for entry in found["results"]] == expected, (condition, limit, offset)


@pytest.mark.parametrize("first", ["native", "SQLAlchemy"])
def test_each_reads_searches_and_updates_what_the_other_has_written(database: Database, first: str) -> None:
    classes: dict[str, Any] = {"native": PostgresBackend, "SQLAlchemy": SQLAlchemyBackend}
    second = next(name for name in classes if name != first)
    with classes[first](database.url) as writer, classes[second](database.url) as reader:
        fill(writer)
        assert everything(reader) == everything(writer)
        assert reader.store("k1/😀", "a hound", {"n": 7.0}, if_version=1)["version"] == 2
        assert writer.search("hound", {"n": 7})["results"] == reader.search("hound", {"n": 7})["results"] != []
        assert writer.store("k1/😀", "none of them")["version"] == 3
        assert [entry["key"] for entry in reader.search("hound")["results"]] == ["k3/😀"]
        assert reader.cleanup_expired()["deleted_count"] == 1
        assert writer.cleanup_expired() == {"success": True, "deleted_count": 0, "remaining_count": 0}
        assert everything(reader) == everything(writer)


def test_each_catalog_reads_what_the_other_has_written(database: Database) -> None:
    with PostgresCatalog(database.url) as one, SQLAlchemyCatalog(database.url) as other:
        catalogs: tuple[Any, ...] = (one, other)
        for number, catalog in enumerate(catalogs):
            catalog.track_entry(f"k{number}", "h1", None, 2**40, {"n": 1.0}, inlined_value=[0])
        since = one.create_snapshot("by one")
        other.track_entry("k0", "h2", None, 1, None)
        other.delete_entry("k1")
        assert [entry["key"] for entry in other.get_changed_entries(since)] == ["k0"]
        for call in ("get_changed_entries", "get_deleted_entries", "get_snapshot"):
            assert getattr(one, call)(since) == getattr(other, call)(since) != []
        assert one.list_entries() == other.list_entries()
        assert one.list_entries(metadata_filter={"n": 1}) == other.list_entries(metadata_filter={"n": 1})


def test_a_value_in_a_blob_storage_is_an_error_and_never_a_wrong_value(database: Database, tmp_path: Any) -> None:
    storage = {"uri": str(tmp_path), "inline_threshold": 10}
    with SQLAlchemyBackend(database.url, storage=storage) as other, PostgresBackend(database.url) as memory:
        other.store("large", "x" * 100)
        for result in (memory.retrieve("large"), memory.retrieve_many(["large"])):
            assert (result["error_type"], result["damaged"]) == ("query_error", ["large"])
        assert memory.search()["damaged"] == memory.search("large")["damaged"] == ["large"]
        assert memory.store("large", 1)["version"] == 2
        assert memory.retrieve("large")["value"] == other.retrieve("large")["value"] == 1


def test_many_make_the_tables_at_once(database: Database) -> None:
    drop_tables(database.url)
    classes: list[Any] = [PostgresBackend, SQLAlchemyBackend] * 4
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(classes.pop()(database.url))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    for memory in made:
        assert memory.store("k", 1)["success"] is True
        memory.close()


def test_a_table_of_another_layout_is_left_alone(database: Database) -> None:
    drop_tables(database.url)
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ltm_entries (key TEXT, value JSON)"))
    with pytest.raises(LTMError, match="another layout"):
        PostgresBackend(database.url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["ltm_entries"]
    drop_tables(database.url)


# --- the ledger ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["name", "mapping", "same url", "object"])
def test_a_catalog_in_the_same_database_is_written_in_the_same_transaction(database: Database, form: str) -> None:
    forms: dict[str, Any] = {
        "name": "postgres",
        "mapping": {"type": "postgres"},
        "same url": {"type": "postgres", "url": database.url},
    }
    given = forms.get(form) or PostgresCatalog(database.url)
    with PostgresBackend(database.url, catalog=given) as memory:
        fill(memory)
        catalog: Any = memory.catalog
        assert [entry["key"] for entry in catalog.list_entries()] == memory.list_keys()["keys"]
        assert catalog.get_entry("late")["expires_at"] is not None
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}
        memory.delete_many(["k0/😀", "k1/😀"])
        memory.cleanup_expired()
        assert catalog.cleanup_expired()["remaining_count"] == 0
        assert [entry["key"] for entry in catalog.list_entries()] == memory.list_keys()["keys"]
        before = catalog.list_entries()
        run_sql(memory, "ALTER TABLE ltm_catalog ADD CONSTRAINT cut CHECK (key <> 'new')")
        assert memory.store("new", 1)["error_type"] == "validation_error"
        assert memory.retrieve("new")["found"] is False
        assert catalog.list_entries() == before
        run_sql(memory, "ALTER TABLE ltm_catalog DROP CONSTRAINT cut")
    if form == "object":
        given.close()


def test_a_catalog_of_another_kind_follows(database: Database) -> None:
    with PostgresBackend(database.url, catalog={"type": "sqlite", "path": ":memory:"}) as memory:
        fill(memory)
        catalog: Any = memory.catalog
        assert [entry["key"] for entry in catalog.list_entries()] == memory.list_keys()["keys"]
        assert memory.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


@pytest.mark.parametrize("default", ["DateStyle=German", "client_encoding=LATIN1", "TimeZone=Asia/Kolkata"])
def test_other_defaults_of_a_database_make_no_difference(database: Database, default: str) -> None:
    with (
        PostgresBackend(with_option(database.url, default), catalog="postgres") as memory,
        SQLAlchemyBackend(database.url) as other,
        SQLAlchemyCatalog(database.url) as ledger,
    ):
        fill(memory)
        assert everything(memory) == everything(other)
        catalog: Any = memory.catalog
        assert catalog.list_entries() == ledger.list_entries() != []


# --- users and databases that may only be read ---------------------------------------------------------


def with_option(url: str, option: str) -> str:
    return f"{url}?options=-c%20{option.replace('=', '%3D')}"


def test_a_database_that_is_read_only_by_default_is_read_and_never_written(database: Database) -> None:
    read_only = with_option(database.url, "default_transaction_read_only=on")
    drop_tables(database.url)
    for unmade in (PostgresBackend, PostgresCatalog, SQLAlchemyBackend):
        with pytest.raises(LTMError, match="the database is read-only") as raised:
            unmade(read_only)
        assert raised.value.error_type == "connection_error"
    PostgresBackend(database.url).close()
    with PostgresBackend(read_only, catalog="postgres") as memory, SQLAlchemyBackend(read_only) as other:
        assert memory.store("k", 1) == other.store("k", 1)
        assert memory.store("k", 1)["error_type"] == "connection_error"
        assert memory.delete_many(["k"])["error_type"] == "connection_error"
        assert memory.count()["count"] == memory.search("k")["count"] == 0
        assert memory.cleanup_expired() == other.cleanup_expired()


def test_a_user_who_may_only_read_learns_that_nothing_has_expired(database: Database) -> None:
    reader = with_option(database.url, "role=pg_monitor")  # a role that each server has
    with PostgresBackend(database.url) as memory, PostgresCatalog(database.url) as catalog:
        run_sql(memory, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_monitor")
        with (
            PostgresBackend(reader, catalog="postgres") as reading,
            PostgresCatalog(reader) as looking,
            SQLAlchemyBackend(reader) as other,
        ):
            nothing = {"success": True, "deleted_count": 0, "remaining_count": 0}
            assert reading.cleanup_expired() == other.cleanup_expired() == looking.cleanup_expired() == nothing
            memory.store("k", 1, ttl=0.001)
            catalog.track_entry("k", "h", None, 1, None, expires_at=datetime(2020, 1, 1, tzinfo=timezone.utc))
            for refused in (reading, looking, other):
                assert refused.cleanup_expired()["error_type"] == "query_error"
                assert "lacks a privilege" in refused.cleanup_expired()["error"]
        assert memory.cleanup_expired()["deleted_count"] == catalog.cleanup_expired()["deleted_count"] == 1


# --- configuration -------------------------------------------------------------------------------------


def test_they_are_found_by_name(database: Database) -> None:
    settings = {"backend": "postgres", "url": database.url, "pool_size": 2, "catalog": "postgres"}
    catalog: Any = create_catalog_backend("postgres", url=database.url)
    with (
        create_ltm_backend("Postgres", url=database.url) as memory,
        catalog,
        parse_ltm_config({"ltm": settings}) as own,
    ):
        assert isinstance(memory, PostgresBackend)
        assert isinstance(catalog, PostgresCatalog)
        own.store("k", 1)
        assert memory.retrieve("k")["found"] is True
        assert catalog.get_entry("k") is not None


def test_no_password_is_shown(database: Database) -> None:
    url = make_url(database.url)
    with PostgresBackend(database.url, lazy=True, catalog="postgres") as memory:
        shown = repr(memory) + repr(memory.catalog) + repr(memory._database)
    assert str(url.password) not in shown
    assert f"{url.username}:***@{url.host}:{url.port}/{url.database}" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "url"),
        ({"url": "postgresql"}, "url"),
        ({"url": ""}, "url"),
        ({"url": 5}, "url"),
        ({"url": "mysql://user:secret@h/d"}, "url"),
        ({"url": "postgresql://h/d?secret=option"}, "has an option that"),
        ({"url": "postgresql://h/d?pool_size=3"}, "has an option that"),
        ({"url": "postgresql://h/d?secret"}, "has an option that"),
        ({"url": "postgresql://user:secret%zz@h/d"}, "url"),
        ({"url": "postgresql://h:secret/d"}, "port"),
        ({"pool_size": 0}, "pool_size"),
        ({"pool_size": True}, "pool_size"),
        ({"timeout": 0}, "timeout"),
        ({"connect_timeout": "5"}, "connect_timeout"),
        ({"lazy": "no"}, "lazy"),
        ({"catalog": 5}, "catalog"),
        ({"catalog": {"type": "postgres", "lazy": 5}}, "lazy"),
        ({"catalog": {"type": "postgres", "path": "a"}}, "has no key 'path'"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    defaults = {"url": "postgresql://h/d", "lazy": True} if options and "url" not in options else {}
    with pytest.raises(LTMError, match=message) as raised:
        PostgresBackend(**{**defaults, **options})
    assert raised.value.error_type == "configuration_error"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("kind", [PostgresBackend, PostgresCatalog])
@pytest.mark.parametrize(
    "rest",
    [
        "u:s3cret@hunter2@h/d",
        "u:s3cret@hunter2@h/d?sslmode=disable",
        "u:s3?cret@hunter2@h/d",
        "u:12/hunter2@h/d",
        "hunter2/x:y@h/d",
    ],
)
def test_a_password_that_is_not_percent_encoded_is_refused_and_not_shown(kind: type[Any], rest: str) -> None:
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        with pytest.raises(LTMError, match="percent-encoded") as raised:
            kind(f"{scheme}://{rest}", lazy=True)
        assert raised.value.error_type == "configuration_error"
        assert not any(word in str(raised.value.result) for word in ("s3cret", "hunter2", "12"))


def test_a_password_that_is_percent_encoded_is_taken() -> None:
    memory = PostgresBackend("postgresql://u:s3cret%40hunter2%2F1@h/d%40e?sslmode=disable", lazy=True)
    assert repr(memory) == "PostgresBackend('postgresql://u:***@h:5432/d@e')"
    assert "12" not in repr(PostgresBackend("postgresql://u:12?x@h/d", lazy=True))  # as libpq reads it
