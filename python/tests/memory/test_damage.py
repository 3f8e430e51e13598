"""Damaged entries: rows that somebody else wrote into our tables break no call, and no message shows their content."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine

from databases import Database, run_sql
from run_length import of_this_day
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, check_database
from the_edge_agent.testing.contract import assert_success, keys_of

SECRET: Final = "sesame"
# What is written over the value or the metadata of an entry.
NO_VALUES: Final[dict[str, str]] = {
    "no JSON": f"{{{SECRET}",
    "cut short": f'{{"a": "{SECRET}',
    "empty": "",
    "too deep": "[" * 100_000 + f'"{SECRET}"' + "]" * 100_000,
    "a number too long": f'["{SECRET}", ' + "1" * 5_000 + "]",
    "NaN": f'["{SECRET}", NaN]',
    "infinity": f'["{SECRET}", -Infinity]',
}
# JSON that `store` refuses.
NEVER_STORED: Final[dict[str, str]] = {
    "an infinite number": f'{{"a": "{SECRET}", "n": 1e999}}',
    "a lone surrogate": f'{{"a": "{SECRET}\\ud800"}}',
    "a lone surrogate in a name": f'{{"{SECRET}\\uDFFF": 1}}',
}
NO_METADATA: Final[dict[str, str]] = {
    **NO_VALUES,
    **NEVER_STORED,
    "an integer beyond 64 bits": f'{{"a": "{SECRET}", "n": {2**63}}}',
    "an integer of 50 digits": f'{{"a": ["{SECRET}", {"1" * 50}]}}',
    "a NUL": f'{{"a": "{SECRET}\\u0000"}}',
    "a list": f'["{SECRET}"]',
    "a number": "5",
    "null": "null",
    "deeper than JSON of MySQL": '{"a":' * 101 + f'"{SECRET}"' + "}" * 101,
    "deeper than ours": '{"a":' * 31 + f'"{SECRET}"' + "}" * 31,
}
BAD: Final = "bad\n\u202ekey"
MESSAGE: Final = r"bad\n\u202ekey"

every_database = pytest.mark.targets("portable", "native")


def filled(database: Database, **options: Any) -> Any:
    """Return a memory of three entries; the newest of them is to be damaged."""
    backend = database.open(**options)
    for key, number in (("a", 1), ("c", 3), (BAD, 2)):
        assert_success(backend.store(key, {"text": "red fox", "n": number}, {"n": number, "kind": "animal"}))
    return backend


def key_column(backend: Any) -> str:
    """Return how SQL names the column of the keys."""
    engine = getattr(backend, "_engine", None)
    return "`key`" if engine is not None and engine.dialect.name in ("mysql", "mariadb") else "key"


def write(backend: Any, column: str, text: str, table: str = "ltm_entries") -> None:
    """Write text over a column of the bad entry, beside the contract."""
    named = key_column(backend)
    is_mysql = named == "`key`"
    escaped = (text.replace("\\", "\\\\") if is_mysql else text).replace("'", "''")
    run_sql(backend, f"UPDATE {table} SET {column} = '{escaped}' WHERE substr({named}, 1, 3) = 'bad'")


def assert_nothing_is_shown(*shown: Any) -> None:
    for each in shown:
        text = "".join(traceback.format_exception(each)) if isinstance(each, BaseException) else repr(each)
        assert SECRET not in text
        assert "11111" not in text
        while isinstance(each, BaseException):
            assert SECRET not in repr(vars(each))
            each = each.__cause__ or each.__context__


def assert_every_call_goes_on(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Check what each method does about the bad entry."""
    retrieved, many = backend.retrieve(BAD), backend.retrieve_many(["a", BAD, "c"])
    for result in (retrieved, many):
        assert (result["success"], result["error_type"], result["damaged"]) == (False, "query_error", [BAD])
        assert MESSAGE in result["error"]
        assert "damaged" in result["error"]
    assert backend.retrieve_many(["a", "c"])["found_count"] == 2
    assert backend.list_keys()["keys"] == ["a", BAD, "c"]
    assert backend.count() == {"success": True, "count": 3}
    searches = [backend.search(), backend.search("fox"), backend.search(limit=2), backend.search("red", limit=3)]
    for result in searches:
        assert result["damaged"] == [BAD]
        assert [entry["key"] for entry in result["results"]] == ["c", "a"], "the page is filled"
        assert result["count"] == 2
    assert [entry["key"] for entry in backend.search("fox", limit=1)["results"]] == ["c"]
    assert [entry["key"] for entry in backend.search(limit=1, offset=1)["results"]] == ["a"]
    caplog.clear()
    for iterate, place in ((backend.iterate_all, 0), (backend.iterate_entries, "key")):
        items = iterate()
        assert items.damaged == []
        assert [item[place] for item in items] == ["a", "c"]
        assert items.damaged == [BAD]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(MESSAGE in warning for warning in warnings)
    assert_nothing_is_shown(retrieved, many, *searches, warnings)


@pytest.mark.slow
@every_database
@pytest.mark.parametrize("damage", of_this_day(NO_VALUES, 3))
def test_a_damaged_value_breaks_nothing(database: Database, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with filled(database) as backend:
        write(backend, "value", NO_VALUES[damage])
        assert_every_call_goes_on(backend, caplog)
        result = backend.search(metadata_filter={"kind": "animal"})
        assert [entry["key"] for entry in result["results"]] == ["c", "a"]
        assert result["damaged"] == [BAD]
        assert backend.store(BAD, 1, if_version=1)["version"] == 2, "a store mends it"
        assert backend.retrieve(BAD)["value"] == 1


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize(
    "value", [*NEVER_STORED.values(), f'{"[" * 501}"{SECRET}"{"]" * 501}', f"[{'[1],' * 300}{'[' * 600}{']' * 600}]"]
)
def test_what_store_refuses_is_damage_so_that_a_copy_goes_on(
    database: Database, value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(database) as backend:
        write(backend, "value", value)
        assert_every_call_goes_on(backend, caplog)
        entries = backend.iterate_entries()
        copied = [{name: entry[name] for name in ("key", "value", "metadata", "expires_at")} for entry in entries]
        with SQLAlchemyBackend(f"sqlite:///{tmp_path / 'copy.db'}") as other:
            assert other.store_many(copied)["stored_count"] == 2
        assert entries.damaged == [BAD]


@pytest.mark.slow
@every_database
@pytest.mark.parametrize("damage", of_this_day(NO_METADATA, 5))
def test_damaged_metadata_breaks_nothing_and_fits_no_filter(
    database: Database, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(database) as backend:
        write(backend, "metadata", NO_METADATA[damage])
        assert_every_call_goes_on(backend, caplog)
        for condition in (
            {"kind": "animal"},
            {"n": {"$gt": 0}},
            {"kind": {"$ne": "plant"}},
            {"x": None},
            {"$not": {"n": 9}},
        ):
            for query in (None, "fox"):
                assert keys_of(backend.search(query, condition)) == ["c", "a"], condition
                assert keys_of(backend.search(query, condition, limit=1, offset=1)) == ["a"], condition
        with backend.transaction() as transaction:
            transaction.store("d", 1)
            transaction.delete(BAD)
        assert backend.count()["count"] == 3


@every_database
def test_pages_of_a_search_are_filled_whatever_is_damaged(database: Database) -> None:
    with database.open() as backend:
        backend.store_many(
            [{"key": f"{'good' if place % 2 else 'bad'}{place:02}", "value": "fox"} for place in range(40)]
        )
        write(backend, "value", "{")
        good = [f"good{place:02}" for place in range(1, 40, 2)]
        for query in (None, "fox"):
            pages = [backend.search(query, limit=6, offset=first) for first in range(0, 24, 6)]
            assert [entry["key"] for page in pages for entry in page["results"]] == good
            assert [page["count"] for page in pages] == [6, 6, 6, 2]
            assert all(key.startswith("bad") for page in pages for key in page["damaged"])


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize("column", ["value", "metadata"])
def test_a_blob_is_damage(database: Database, column: str, caplog: pytest.LogCaptureFixture) -> None:
    with filled(database) as backend:
        run_sql(backend, f"UPDATE ltm_entries SET {column} = x'00ff' WHERE substr(key, 1, 3) = 'bad'")
        assert_every_call_goes_on(backend, caplog)


NO_VERSIONS: Final[dict[str, list[str]]] = {
    "sqlite": ["0", "-3", "1.5", "9.3e18", f"'{SECRET}'", "x'00'"],
    **{family: ["0", "-3", str(-(2**63))] for family in ("postgresql", "mysql", "mariadb")},
}


@every_database
def test_an_entry_with_no_version_can_only_be_deleted(database: Database) -> None:
    with filled(database) as backend:
        for written in NO_VERSIONS[database.target.family]:
            backend.delete(BAD)
            backend.store(BAD, {"text": "red fox"})
            named = key_column(backend)
            run_sql(backend, f"UPDATE ltm_entries SET version = {written} WHERE substr({named}, 1, 3) = 'bad'")
            transaction = backend.transaction()
            transaction.store("d", 1)
            transaction.store(BAD, 1)
            refused = {
                "retrieve": backend.retrieve(BAD),
                "retrieve_many": backend.retrieve_many([BAD]),
                "store": backend.store(BAD, 1),
                "only if absent": backend.store(BAD, 1, if_version=0),
                "over 1": backend.store(BAD, 1, if_version=1),
                "over 3": backend.store(BAD, 1, if_version=3),
                "many": backend.store_many([{"key": key, "value": 1} for key in ("a", BAD, "d")]),
                "twice": backend.store_many([{"key": BAD, "value": 1}, {"key": BAD, "value": 2}]),
                "transaction": transaction.commit(),
            }
            for call, result in refused.items():
                told = (result["success"], result.get("error_type"), result.get("damaged"))
                assert told == (False, "query_error", [BAD]), (written, call)
                assert "its version is no integer from 1 to 2^63 - 1; delete it" in result["error"]
            assert_nothing_is_shown(*refused.values())
            entries = backend.iterate_entries()
            assert [entry["key"] for entry in entries] == ["a", "c"], "nothing has changed"
            assert entries.damaged == [BAD]
            found = backend.search("fox", prefix="bad")
            assert (found["count"], found["damaged"]) == (0, [BAD])
            assert backend.retrieve("a")["version"] == 1
            assert backend.delete(BAD)["deleted"] is True
            assert backend.store(BAD, 1)["version"] == 1


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize("column", ["created_at", "updated_at", "expires_at"])
def test_a_time_that_is_none_is_damage_where_times_are_read(database: Database, column: str) -> None:
    with filled(database, catalog="sqlite" if database.target.native else "sqlalchemy") as backend:
        for table in ("ltm_entries", "ltm_catalog"):
            write(backend, column, f"zz {SECRET}", table)
        entries = backend.iterate_entries()
        assert [entry["key"] for entry in entries] == ["a", "c"]
        assert entries.damaged == [BAD]
        assert backend.retrieve(BAD)["found"] is True
        assert backend.retrieve(BAD, times=True)["damaged"] == [BAD]
        assert backend.retrieve_many(["a", BAD], times=True)["damaged"] == [BAD]
        found = backend.search("fox")
        assert (found_keys(found), found["damaged"]) == (["c", "a"], [BAD])
        assert found_keys(backend.search("fox", limit=1, offset=1)) == ["a"]
        for order, keys in (("key", ["a", "c"]), ("-key", ["c", "a"]), ("newest", ["c", "a"])):
            page = backend.entries(order=order)
            assert (sorted(entry["key"] for entry in page["entries"]), page["damaged"]) == (sorted(keys), [BAD])
            assert keys_of_pages(backend, order) == keys
        with pytest.raises(LTMError, match="damaged") as raised:
            backend.catalog.get_entry(BAD)
        assert_nothing_is_shown(raised.value, raised.value.result)
        if column == "expires_at":
            assert backend.sync_catalog()["damaged"] == [BAD]
        assert backend.touch(BAD, ttl=60).get("damaged") == ([BAD] if column == "expires_at" else None)


def found_keys(result: dict[str, Any]) -> list[str]:
    """Return the keys of the results of a search that may have met damage."""
    return [entry["key"] for entry in result["results"]]


def keys_of_pages(backend: Any, order: str) -> list[str]:
    """Return the keys of all pages of one entry."""
    keys: list[str] = []
    after: str | None = ""
    while after is not None:
        page = backend.entries(limit=1, order=order, after=after or None)
        keys += [entry["key"] for entry in page["entries"]]
        after = page["next"]
    return keys


# A lifetime that no store writes.
NO_LIFETIMES: Final[dict[str, list[str]]] = {
    "postgresql": ["0", "-1", "9223372036854775807"],
    "sqlite": ["0", "-1", "9223372036854775807", "1.5", "'x'", "x'00'"],
    "mysql": ["0", "-1", "9223372036854775807"],
    "mariadb": ["0", "-1", "9223372036854775807"],
}


@every_database
def test_a_lifetime_that_is_none_is_damage(database: Database) -> None:
    with filled(database) as backend:
        for written in NO_LIFETIMES[database.target.family]:
            named = key_column(backend)
            run_sql(backend, f"UPDATE ltm_entries SET lifetime = {written} WHERE substr({named}, 1, 3) = 'bad'")
            for refused in (backend.touch(BAD), backend.touch(BAD, 60)):
                assert (refused["error_type"], refused["damaged"]) == ("query_error", [BAD]), written
                assert "its lifetime is no number of microseconds up to 100 years; store it again" in refused["error"]
            assert backend.entries()["damaged"] == [BAD]
            assert backend.retrieve(BAD, times=True)["found"] is True
            assert BAD in found_keys(backend.search("fox"))
        assert backend.store(BAD, 1, ttl=60)["success"] is True
        assert backend.touch(BAD)["found"] is True


# What each database takes as a time, and Python has not.
NO_TIMES: Final[dict[str, list[str]]] = {
    "postgresql": ["20000-01-01", "infinity", "-infinity", "0009-01-01 BC"],
    "sqlite": ["30000-01-01 00:00:00.000000", "infinity", "2999-13-01"],
    "mysql": ["0000-00-00", "2999-00-10"],
    "mariadb": ["0000-00-00", "2999-00-10"],
}


def write_time(backend: Any, column: str, text: str) -> None:
    """Write a time over that of the bad entry, in the memory and in the catalog."""
    named = key_column(backend)
    is_mysql = named == "`key`"
    writes = [
        f"UPDATE {table} SET {column} = '{text}' WHERE substr({named}, 1, 3) = 'bad'"
        for table in ("ltm_entries", "ltm_catalog")
    ]
    run_sql(
        backend,
        *(["SET @kept = @@sql_mode", "SET sql_mode = ''", *writes, "SET sql_mode = @kept"] if is_mysql else writes),
    )


@every_database
@pytest.mark.parametrize("column", ["created_at", "updated_at", "expires_at"])
def test_a_time_that_python_does_not_have_is_damage(database: Database, column: str) -> None:
    with catalogued(database) as backend:
        catalog = backend.catalog
        for text in NO_TIMES[database.target.family]:
            if column == "expires_at" and text < "1":
                continue  # it has expired
            backend.delete(BAD)
            backend.store(BAD, "fox", {"n": 2})
            before = catalog.create_snapshot("before")
            write_time(backend, column, text)
            entries = backend.iterate_entries()
            assert [entry["key"] for entry in entries] == ["a", "c"], text
            assert entries.damaged == [BAD]
            assert backend.retrieve(BAD)["found"] is True, "it returns no time"
            for query, condition in ((None, None), ("fox", None), ("fox", {"-n": None}), (None, {"-n": None})):
                pages = [backend.search(query, condition, limit=1, offset=offset) for offset in (0, 1, 2, 3, 5000)]
                assert [key for page in pages for key in found_keys(page)] == ["c", "a"], text
            with pytest.raises(LTMError, match="damaged"):
                catalog.get_entry(BAD)
            assert catalog.retrieve_batch(["a", BAD])["damaged"] == [BAD]
            for listed in (catalog.list_entries(), catalog.get_changed_entries()):
                assert ([entry["key"] for entry in listed], listed.damaged) == (["a", "c"], [BAD]), text
            assert len(catalog.get_changed_entries(before)) == 0
            if column == "expires_at":
                after = catalog.create_snapshot("after")
                catalog.delete_entry(BAD)
                gone = catalog.get_deleted_entries(after)
                assert (gone, gone.damaged) == ([], [BAD])


@every_database
def test_a_snapshot_that_is_damaged_is_left_out_of_the_list(database: Database) -> None:
    with database.open_catalog() as catalog:
        bad, good = catalog.create_snapshot("bad"), catalog.create_snapshot("good")
        run_sql(catalog, f"UPDATE ltm_snapshots SET total_bytes = -1 WHERE id = '{bad}'")
        listed = catalog.list_snapshots()
        assert ([snapshot["id"] for snapshot in listed], listed.damaged) == ([good], [bad])
        with pytest.raises(LTMError, match=r"the snapshot .* is damaged, its total_bytes is no size; delete it"):
            catalog.get_snapshot(bad)
        assert catalog.get_changed_entries(bad) == []
        assert catalog.delete_snapshot(bad) is True


# Keys that no store takes, in SQL, and what they are called.
BAD_KEYS: Final[dict[str, tuple[str, str]]] = {
    "a BLOB": ("x'6b65ff'", "b'ke\\xff'"),
    "no UTF-8": ("cast(x'6222ff22' as text)", 'b"\0\\xff"'),
    "empty": ("''", ""),
    "a NUL": ("'a' || char(0) || 'b'", "a\0b"),
    "too long": (f"'{'k' * 1200}'", "k" * 1200),
}


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_key_that_no_store_takes_is_treated_alike_by_every_call(database: Database, bad: str) -> None:
    written, named = BAD_KEYS[bad]
    with filled(database) as backend:
        run_sql(backend, f"UPDATE ltm_entries SET key = {written} WHERE substr(key, 1, 3) = 'bad'")
        assert backend.count()["count"] == 3
        pages = [backend.list_keys(), backend.list_keys(limit=2), backend.list_keys(limit=1, after="a")]
        assert [(page["keys"], page["next"]) for page in pages] == [(["a", "c"], None)] * 2 + [(["c"], None)]
        for items in (backend.iterate_all(), backend.iterate_entries()):
            assert len([*items]) == 2
            assert items.damaged == [named]
        filtered = {"n": {"$in": [1, 2, 3]}}
        for search in (
            backend.search(),
            backend.search("fox"),
            backend.search("fox", filtered),
            backend.search("fox", limit=2000),
        ):
            assert ([entry["key"] for entry in search["results"]], search["damaged"]) == (["c", "a"], [named])


@pytest.mark.targets("native", family="sqlite", in_memory=False)
@pytest.mark.parametrize("bad", ["a BLOB", "no UTF-8"])
def test_an_iteration_goes_on_after_pages_that_end_with_such_a_key(database: Database, bad: str) -> None:
    kind = "blob" if bad == "a BLOB" else "text"
    with database.open() as backend:
        backend.store_many(
            [{"key": f"{letter}{number:02}", "value": "v" * 30_000} for letter in "by" for number in range(40)]
        )
        run_sql(backend, f"UPDATE ltm_entries SET key = cast(x'62ff' || id as {kind}) WHERE substr(key, 1, 1) = 'b'")
        items = backend.iterate_all()
        assert [item[0] for item in items] == [f"y{number:02}" for number in range(40)]
        assert len({*items.damaged}) == len(items.damaged) == 40
        assert backend.list_keys(limit=2) == {"success": True, "keys": ["y00", "y01"], "next": "y01"}


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize("column", ["value", "metadata"])
def test_text_that_is_no_utf_8_is_damage(database: Database, column: str, caplog: pytest.LogCaptureFixture) -> None:
    with filled(database) as backend:
        run_sql(backend, f"UPDATE ltm_entries SET {column} = cast(x'22ff22' as text) WHERE substr(key, 1, 3) = 'bad'")
        assert_every_call_goes_on(backend, caplog)
        if database.target.native or database.target.in_memory:
            return
        engine = create_engine(database.url)
        with SQLAlchemyBackend(engine=engine) as other:
            assert_every_call_goes_on(other, caplog)
            with engine.connect() as connection:
                driver_connection: Any = connection.connection.driver_connection
                assert driver_connection.text_factory is str, "a caller's connection is left as it was"
        engine.dispose()


# --- the catalog -------------------------------------------------------------------------------------


def catalogued(database: Database) -> Any:
    names = {"sqlite": "sqlite", "postgresql": "postgres"}
    return filled(database, catalog=names[database.target.family] if database.target.native else "sqlalchemy")


@every_database
@pytest.mark.parametrize("column", ["metadata", "inlined_value"])
@pytest.mark.parametrize("damage", of_this_day(["cut short", "too deep", "an infinite number", "a lone surrogate"], 2))
def test_a_damaged_entry_of_a_catalog_breaks_nothing(
    database: Database, column: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with catalogued(database) as backend:
        catalog = backend.catalog
        before = catalog.create_snapshot("before")
        write(backend, column, NO_METADATA[damage], "ltm_catalog")
        with pytest.raises(LTMError, match="damaged") as raised:
            catalog.get_entry(BAD)
        assert raised.value.error_type == "query_error"
        many = catalog.retrieve_batch(["a", BAD])
        assert (many["error_type"], many["damaged"]) == ("query_error", [BAD])
        caplog.clear()
        listed = catalog.list_entries()
        assert ([entry["key"] for entry in listed], listed.damaged) == (["a", "c"], [BAD])
        assert [entry["key"] for entry in catalog.list_entries(limit=2)] == ["a", "c"], "the list is filled"
        assert [entry["key"] for entry in catalog.list_entries(metadata_filter={"n": {"$gte": 1}})] == ["a", "c"]
        assert MESSAGE in caplog.text
        assert catalog.get_changed_entries(before) == []
        changed = catalog.get_changed_entries()
        assert (len(changed), changed.damaged) == (2, [BAD])
        assert catalog.get_snapshot(catalog.create_snapshot("after"))["entry_count"] == 3
        assert_nothing_is_shown(raised.value, raised.value.result, many, caplog.text)
        assert backend.sync_catalog() == {"success": True, "tracked_count": 1, "deleted_count": 0}, "a sync mends it"
        assert catalog.get_entry(BAD)["metadata"] == {"n": 2, "kind": "animal"}
        write(backend, column, NO_METADATA[damage], "ltm_catalog")
        run_sql(backend, "DELETE FROM ltm_entries")
        assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 3}


@pytest.mark.targets("native", family="sqlite")
@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_key_of_a_catalog_that_no_store_takes_is_damage(database: Database, bad: str) -> None:
    written, named = BAD_KEYS[bad]
    with catalogued(database) as backend:
        catalog = backend.catalog
        before = catalog.create_snapshot("before")
        run_sql(backend, f"UPDATE ltm_catalog SET key = {written} WHERE substr(key, 1, 3) = 'bad'")
        listed, changed = catalog.list_entries(), catalog.get_changed_entries()
        assert ([entry["key"] for entry in listed], listed.damaged) == (["a", "c"], [named])
        assert (len(changed), changed.damaged) == (2, [named])
        assert catalog.get_deleted_entries(before) == []
        assert backend.sync_catalog() == {"success": True, "tracked_count": 1, "deleted_count": 0}, "a sync mends it"
        assert [entry["key"] for entry in catalog.list_entries()] == ["a", BAD, "c"]


@every_database
@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("column", ["value", "metadata"])
def test_a_sync_goes_on_after_what_is_damaged_in_memory(
    database: Database, tmp_path: Path, where: str, column: str
) -> None:
    elsewhere = {"type": "sqlalchemy", "url": f"sqlite:///{tmp_path / 'catalog.db'}"}
    with catalogued(database) if where == "here" else filled(database, catalog=elsewhere) as backend:
        write(backend, column, NO_VALUES["cut short"])
        for key in ("a", "c"):
            backend.catalog.delete_entry(key)
        assert backend.sync_catalog() == {
            "success": True,
            "tracked_count": 2,
            "deleted_count": 0,
            "damaged": [BAD],
        }
        assert [entry["key"] for entry in backend.catalog.list_entries()] == ["a", BAD, "c"], "it stays as it was"


# --- copies ------------------------------------------------------------------------------------------


@pytest.mark.targets("native")
def test_a_copy_into_another_database_and_back_keeps_lifetimes_to_the_microsecond(
    database: Database, tmp_path: Path
) -> None:
    copied = ("key", "value", "metadata", "expires_at")

    def copy(source: Any, target: Any) -> list[Any]:
        entries = [{name: entry[name] for name in copied} for entry in source.iterate_entries()]
        assert_success(target.store_many(entries))
        return entries

    with database.open() as one, SQLAlchemyBackend(f"sqlite:///{tmp_path / 'copy.db'}") as other:
        one.store_many([{"key": f"k{n}", "value": n, "ttl": 3600 + n / 7 if n % 2 else None} for n in range(20)])
        before = copy(one, other)
        assert len({entry["expires_at"] for entry in before}) == 11
        one.delete_many([entry["key"] for entry in before])
        assert copy(other, one) == before
        assert [{name: entry[name] for name in copied} for entry in one.iterate_entries()] == before


# --- tea memory check --data -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.targets(in_memory=False)
def test_the_check_lists_what_is_damaged(database: Database) -> None:
    with catalogued(database) as backend:
        backend.store_many([{"key": f"many{number:04}", "value": number} for number in range(450)])
        assert check_database(database.url, data=True)["entries_read"] == 906
        write(backend, "value", NO_VALUES["cut short"])
        write(backend, "metadata", NO_METADATA["a list"], "ltm_catalog")
    report = check_database(database.url, data=True)
    assert (report["success"], report["error_type"]) == (False, "query_error")
    assert report["damaged"] == [
        {"place": "memory", "key": BAD, "problem": "its value is no JSON"},
        {"place": "catalog", "key": BAD, "problem": "its metadata is no JSON object"},
    ]
    assert_nothing_is_shown(report)
    command = [str(Path(sys.executable).with_name("tea")), "memory", "check", "--data"]
    done = subprocess.run(
        command, env={**os.environ, "TEA_URL": database.url}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"  memory   '{MESSAGE}': its value is no JSON\n" in done.stdout
    assert "failed: 2 entries are damaged" in done.stdout
    assert_nothing_is_shown(done.stdout, done.stderr)
