"""Rows of other programs become entries: JSON Lines, CSV, LangGraph's store, and the earlier public TEA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from databases import Database
from the_edge_agent.memory import (
    LTMError,
    SQLiteBackend,
    import_langgraph,
    import_rows,
    import_tea,
    read_csv_rows,
    read_json_rows,
)
from the_edge_agent.memory.transfer import tables

CREATED = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.fixture
def memory() -> Iterator[SQLiteBackend]:
    with SQLiteBackend(errors="raise") as memory:
        yield memory


def entries_of(memory: Any, *names: str) -> dict[str, tuple[Any, Any]]:
    return {key: (value, metadata) for key, value, metadata in memory.namespace(*names).iterate_all()}


ROWS: Final[list[dict[str, Any]]] = [{"id": "a", "text": "fox", "n": 1.0}, {"id": 7, "text": None, "n": 10**30}]


class TestRows:
    def test_all_fields_that_are_left_are_the_value(self, memory: SQLiteBackend) -> None:
        assert import_rows(memory, ROWS, key="id")["imported_count"] == 2
        assert entries_of(memory) == {
            "7": ({"text": None, "n": 10**30}, None),
            "a": ({"text": "fox", "n": 1.0}, None),
        }

    def test_fields_may_be_the_value_and_the_metadata(self, memory: SQLiteBackend) -> None:
        import_rows(memory, ROWS[:1], key="id", value="text", metadata=["n"])
        assert entries_of(memory) == {"a": ("fox", {"n": 1.0})}

    def test_rows_that_are_there_are_left_alone(self, memory: SQLiteBackend) -> None:
        import_rows(memory, ROWS[:1], key="id")
        assert import_rows(memory, ROWS, key="id")["unchanged_count"] == 1

    def test_a_key_that_comes_twice_is_a_conflict(self, memory: SQLiteBackend) -> None:
        rows = [*ROWS, {"id": "a", "text": "hound"}]
        with pytest.raises(LTMError, match="'a' is there already"):
            import_rows(memory, rows, key="id")
        assert import_rows(memory, rows, key="id", on_conflict="replace")["success"]
        assert entries_of(memory)["a"] == ({"text": "hound"}, None)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"n": 1}, "row 2 has no field 'id'"),
            ({"id": "b"}, "row 2 has no field 'text'"),
            ({"id": 1.5, "text": ""}, "row 2: the key must be text or an integer"),
            ({"id": True, "text": ""}, "row 2: the key must be text or an integer"),
        ],
    )
    def test_a_bad_row_is_named(self, memory: SQLiteBackend, row: dict[str, Any], message: str) -> None:
        with pytest.raises(LTMError, match=message):
            import_rows(memory, [*ROWS[:1], row], key="id", value="text")

    def test_json_lines(self) -> None:
        lines = [b'\xef\xbb\xbf{"key": "\xc3\xa9", "n": 1.0}\n', b"\n", b'{"key": 1}']
        assert [*read_json_rows(lines)] == [{"key": "é", "n": 1.0}, {"key": 1}]
        for bad, message in ((b"[1]\n", "line 1 is no JSON object"), (b"{\n", "line 1 is no JSON"), (b"\xff", "UTF-8")):
            with pytest.raises(LTMError, match=message):
                [*read_json_rows([bad])]

    def test_csv(self) -> None:
        lines = [b"\xef\xbb\xbfkey,text\r\n", b'\xc3\xa9,"red\r\n', b'fox, ""quick"""\r\n', b"\r\n", b"b,\r\n"]
        assert [*read_csv_rows(lines)] == [{"key": "é", "text": 'red\r\nfox, "quick"'}, {"key": "b", "text": ""}]
        assert [*read_csv_rows([b"a;b\n", b"1;2\n"], delimiter=";")] == [{"a": "1", "b": "2"}]
        assert [*read_csv_rows([])] == []
        for bad, message in (
            ([b"a,b\n", b"1\n"], "row 1 has 1 fields; the first row names 2"),
            ([b"a,a\n"], "names a field twice"),
            ([b"a\n", b'"1'], "no CSV"),
            ([b"a\n", b"\xff"], "line 2 is not UTF-8"),
        ):
            with pytest.raises(LTMError, match=message):
                [*read_csv_rows(bad)]


def run(url: str, *statements: str | tuple[str, dict[str, Any]]) -> None:
    from sqlalchemy import text

    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            sql, values = (statement, {}) if isinstance(statement, str) else statement
            connection.execute(text(sql), values)
    engine.dispose()


class TestLangGraph:
    """The tables are as LangGraph makes them; SQLite has the value as bytes and the times as text."""

    @pytest.fixture
    def url(self, database: Database) -> Iterator[str]:
        is_sqlite = database.target.family == "sqlite"
        time, json_type = ("TIMESTAMP", "text") if is_sqlite else ("TIMESTAMP WITH TIME ZONE", "jsonb")
        run(
            database.url,
            "DROP TABLE IF EXISTS store",
            f"CREATE TABLE store (prefix text NOT NULL, key text NOT NULL, value {json_type} NOT NULL, "
            f"created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP, "
            "PRIMARY KEY (prefix, key))",
        )
        placeholder, moment = (
            (":v", "'2024-05-06 07:08:09'")
            if is_sqlite
            else ("CAST(:v AS jsonb)", "TIMESTAMPTZ '2024-05-06 07:08:09+00'")
        )
        insert = (
            "INSERT INTO store (prefix, key, value, created_at, updated_at) "
            f"VALUES (:p, :k, {placeholder}, {moment}, CURRENT_TIMESTAMP)"
        )

        def value(each: Any) -> Any:
            return json.dumps(each).encode() if is_sqlite else json.dumps(each)

        run(
            database.url,
            *((insert, {"p": "users.ada", "k": f"k{n}", "v": value({"n": n, "big": 10**20})}) for n in range(7)),
            (insert, {"p": "users", "k": "é", "v": value({"text": "fox", "x": 1.5})}),
        )
        yield database.url
        run(database.url, "DROP TABLE store")

    @pytest.mark.targets(family="sqlite", portable=False, in_memory=False)
    @pytest.mark.parametrize("has_lifetimes", [False, True])
    def test_items_in_sqlite_keep_namespace_times_and_lifetime(
        self, url: str, memory: SQLiteBackend, monkeypatch: pytest.MonkeyPatch, has_lifetimes: bool
    ) -> None:
        self.check(url, memory, monkeypatch, has_lifetimes)

    @pytest.mark.targets(family="postgresql", portable=False)
    @pytest.mark.parametrize("has_lifetimes", [False, True])
    def test_items_in_postgresql_keep_namespace_times_and_lifetime(
        self, url: str, memory: SQLiteBackend, monkeypatch: pytest.MonkeyPatch, has_lifetimes: bool
    ) -> None:
        self.check(url, memory, monkeypatch, has_lifetimes)

    def check(self, url: str, memory: SQLiteBackend, monkeypatch: pytest.MonkeyPatch, has_lifetimes: bool) -> None:
        monkeypatch.setattr(tables, "_PAGE_ROWS", 3)
        if has_lifetimes:
            time, number = ("TIMESTAMP", "REAL") if url.startswith("sqlite") else ("TIMESTAMPTZ", "INT")
            run(
                url,
                f"ALTER TABLE store ADD COLUMN expires_at {time}",
                f"ALTER TABLE store ADD COLUMN ttl_minutes {number}",
                "UPDATE store SET expires_at = '2150-01-02 03:04:05.678901+00:00', ttl_minutes = 90 WHERE key = 'k1'",
                "UPDATE store SET expires_at = '2020-01-02 03:04:05', ttl_minutes = 1 WHERE key = 'k2'",
            )
        report = import_langgraph(memory, url)
        assert (report["imported_count"], report["expired_count"]) == ((7, 1) if has_lifetimes else (8, 0))
        assert entries_of(memory, "users") == {"é": ({"text": "fox", "x": 1.5}, None)}
        one = memory.namespace("users", "ada").entries("k1")["entries"][0]
        end = datetime(2150, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
        assert (one["value"], one["version"], one["created_at"]) == ({"n": 1, "big": 10**20}, 1, CREATED)
        assert (one["expires_at"], one["ttl"]) == ((end, 5400.0) if has_lifetimes else (None, None))
        assert import_langgraph(memory, url)["unchanged_count"] == report["imported_count"]

    def test_a_database_without_the_table_is_an_error(self, memory: SQLiteBackend, tmp_path: Path) -> None:
        with pytest.raises(LTMError, match="cannot be read") as caught:
            import_langgraph(memory, f"sqlite:///{tmp_path / 'absent.db'}")
        assert caught.value.error_type == "connection_error"
        assert not [*tmp_path.iterdir()]
        run(f"sqlite:///{tmp_path / 'other.db'}", "CREATE TABLE other (id INTEGER)")
        with pytest.raises(LTMError, match="does not have the table `store`"):
            import_langgraph(memory, f"sqlite:///{tmp_path / 'other.db'}")


class TestTEA:
    """The tables are as the earlier public TEA makes them."""

    ENTRIES = (
        "CREATE TABLE ltm_entries (key VARCHAR(512) NOT NULL PRIMARY KEY, value JSON NOT NULL, metadata JSON, "
        "search_text TEXT, created_at DATETIME, updated_at DATETIME)"
    )
    CATALOG = (
        "CREATE TABLE {} (id VARCHAR(64) PRIMARY KEY, key VARCHAR(1024) NOT NULL UNIQUE, content_hash VARCHAR(72) NOT "
        "NULL, storage_uri TEXT, byte_size INTEGER NOT NULL, inlined_value TEXT, metadata TEXT NOT NULL, expires_at "
        "TIMESTAMP, created_at TIMESTAMP, updated_at TIMESTAMP)"
    )

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'te?a.db'}".replace("?", "%3F")

    def track(self, key: str, value: Any = None, expires_at: str | None = None, table: str = "ltm_catalog") -> Any:
        sql = (
            f"INSERT INTO {table} VALUES (:i, :k, 'sha256:x', NULL, 1, :v, '{{\"m\": 1}}', :e, "
            "'2024-05-06 07:08:09', '2024-05-06T07:08:09+00:00')"
        )
        return sql, {"i": key, "k": key, "v": value, "e": expires_at}

    def store(self, key: str, value: str, metadata: str | None = None, table: str = "ltm_entries") -> Any:
        sql = (
            f"INSERT INTO {table} (key, value, metadata, created_at, updated_at) VALUES (:k, :v, :m, "
            "'2024-05-06 07:08:09.000000', '2024-05-06 07:08:09.000000')"
        )
        return sql, {"k": key, "v": value, "m": metadata}

    def test_entries_have_the_expiry_of_the_catalog(
        self, url: str, memory: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "_PAGE_ROWS", 2)
        run(
            url,
            *(self.ENTRIES, self.CATALOG.format("ltm_catalog")),
            *(self.store("a", "1.0", '{"n": 1}'), self.store("b", "null", "null"), self.store("c", '"x"')),
            *(self.track("a", None, "2150-01-01 00:00:00"), self.track("b", None, "2020-01-01 00:00:00")),
            *(self.track("only", '{"inline": true}'), self.track("zone", "1", "2150-01-01T02:00:00+02:00")),
        )
        assert import_tea(memory, url)["imported_count"] == 4
        assert entries_of(memory) == {
            "a": (1.0, {"n": 1}),
            "c": ("x", None),
            "only": ({"inline": True}, {"m": 1}),
            "zone": (1, {"m": 1}),
        }
        times = memory.retrieve_many(["a", "c", "zone"], times=True)["entries"]
        end = datetime(2150, 1, 1, tzinfo=timezone.utc)
        assert [each["expires_at"] for each in times.values() if each] == [end, None, end]
        assert [each["created_at"] for each in times.values() if each] == [CREATED] * 3
        assert import_tea(memory, url)["unchanged_count"] == 4

    def test_tables_of_its_sqlite_classes(self, url: str, memory: SQLiteBackend) -> None:
        run(
            url,
            self.ENTRIES.replace("ltm_entries", "ltm_store"),
            self.CATALOG.format("ltm_entries"),
            self.store("a", "[1]", table="ltm_store"),
            self.track("b", "2", table="ltm_entries"),
        )
        import_tea(memory, url)
        assert entries_of(memory) == {"a": ([1], None), "b": (2, {"m": 1})}

    def test_entries_whose_value_is_elsewhere_are_named(self, url: str, memory: SQLiteBackend) -> None:
        run(url, self.CATALOG.format("ltm_catalog"), self.track("a", "1"), self.track("far"))
        with pytest.raises(LTMError, match=r"all entries were stored but 1 of the catalog.*'far'") as caught:
            import_tea(memory, url)
        assert (caught.value.result["missing"], caught.value.result["imported_count"]) == (["far"], 1)

    def test_a_memory_of_ours_is_refused(self, memory: SQLiteBackend, tmp_path: Path) -> None:
        with SQLiteBackend(tmp_path / "ours.db") as ours:
            ours.store("k", 1)
        with pytest.raises(LTMError, match="tea memory copy"):
            import_tea(memory, f"sqlite:///{tmp_path / 'ours.db'}")

    def test_a_value_that_is_no_json_is_named(self, url: str, memory: SQLiteBackend) -> None:
        run(url, self.ENTRIES, self.store("bad", "{"))
        with pytest.raises(LTMError, match="the entry 'bad' cannot be read: its value is no JSON"):
            import_tea(memory, url)
