"""Exports, imports and copies keep everything, between any two databases, and go on after an interruption."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from databases import ALL_TARGETS, Database, Databases, Target, chosen_targets, run_sql
from memory_backend import MemoryBackend
from the_edge_agent.memory import (
    LTMBackend,
    LTMError,
    SQLAlchemyBackend,
    SQLiteBackend,
    copy_entries,
    export_entries,
    import_file,
)
from the_edge_agent.memory.transfer import arrival

on_sqlite = pytest.mark.targets(family="sqlite", in_memory=False, portable=False)
on_each_family = pytest.mark.targets(portable=False, in_memory=False)
LATER = datetime(2190, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
EARLIER = datetime(2019, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
VALUES: list[Any] = [
    1,
    1.0,
    True,
    None,
    10**30,
    1e300,
    -0.0,
    "日😀\u2028\x7f",
    {"b": 1, "a": [{}]},
    [],
    "",
    "x" * 70_000,
]


def fill(memory: LTMBackend) -> None:
    """Store entries with all that an entry may have."""
    entries: list[dict[str, Any]] = [
        {
            "key": f"é{number} ",
            "value": value,
            "metadata": [None, {}, {"n": 1}, {"z": 1.0, "a": "é"}][number % 4],
            "version": number + 1,
            "created_at": EARLIER,
            "updated_at": EARLIER + timedelta(microseconds=number // 2),
            "expires_at": LATER if number % 3 == 0 else None,
            "ttl": 3600.5 if number % 6 == 0 else None,
            "index": number % 5 != 1,
            "namespace": [(), ("a.b", "c/d"), ("users",)][number % 3],
        }
        for number, value in enumerate(VALUES)
    ]
    entries += [{"key": f"fox{n}", "value": f"the red fox {n}", "namespace": ("Ä",) * (n % 2)} for n in range(20)]
    entries.append({"key": "@a//b.c", "value": "a key of no namespace", "version": 2**63 - 1})
    assert memory.import_entries(entries)["success"]
    memory.store("gone", 1, expires_at=EARLIER)


def exported(memory: LTMBackend, **options: Any) -> bytes:
    file = io.BytesIO()
    export_entries(memory, file, **options)
    return file.getvalue()


def lines_of(memory: LTMBackend, **options: Any) -> list[bytes]:
    """Return all lines of an export but the header."""
    return exported(memory, **options).splitlines()[1:]


def imported(memory: LTMBackend, file: bytes, **options: Any) -> dict[str, Any]:
    return dict(import_file(memory, io.BytesIO(file), **options))


def ranked(memory: LTMBackend, query: str | None) -> list[tuple[str, float]]:
    return [(entry["key"], entry["score"]) for entry in memory.search(query, limit=100)["results"]]


def counts(**given: int) -> dict[str, Any]:
    names = ("imported", "replaced", "unchanged", "skipped", "expired")
    return {"success": True, **{f"{name}_count": given.get(name, 0) for name in names}}


@pytest.fixture
def source() -> Iterator[SQLiteBackend]:
    with SQLiteBackend(errors="raise") as memory:
        fill(memory)
        yield memory


@pytest.fixture
def empty() -> Iterator[SQLiteBackend]:
    with SQLiteBackend(errors="raise") as memory:
        yield memory


def others(target: Target) -> list[Target]:
    of_families = [each for each in ALL_TARGETS if each.name in ("sqlite", "postgresql", "mysql", "mariadb")]
    return [each for each in of_families if each in chosen_targets() and each != target]


class TestEachPairOfDatabases:
    @on_each_family
    def test_a_file_and_a_copy_keep_everything(
        self, database: Database, target: Target, databases: Databases, source: LTMBackend, tmp_path: Path
    ) -> None:
        file = exported(source)
        lines = file.splitlines()[1:]
        with database.open() as here:
            assert imported(here, file) == counts(imported=len(lines) - 1)
            assert lines_of(here) == lines
            for other in others(target):
                with databases.empty(other, tmp_path).open() as there:
                    assert copy_entries(here, there) == counts(imported=len(lines) - 1)
                    assert lines_of(there) == lines
                    assert copy_entries(here, there) == counts(unchanged=len(lines) - 1)
                    for query in ("fox red", "fox*", None):
                        assert ranked(there, query) == ranked(here, query)

    @on_each_family
    def test_compare_and_swap_goes_on_with_the_versions(self, database: Database, source: LTMBackend) -> None:
        with database.open() as memory:
            copy_entries(source, memory)
            place = memory.namespace("users")
            assert place.store("é2 ", 0, if_version=2)["error_type"] == "conflict"
            assert place.store("é2 ", 0, if_version=3)["version"] == 4

    @on_each_family
    def test_large_values_in_a_storage_are_in_the_file(
        self, database: Database, source: LTMBackend, tmp_path: Path
    ) -> None:
        file = exported(source)
        with database.open(storage={"uri": str(tmp_path / "blobs"), "inline_threshold": 1_000}) as memory:
            imported(memory, file)
            assert [*(tmp_path / "blobs").rglob("*")]
            assert lines_of(memory) == file.splitlines()[1:]

    @pytest.mark.targets(family="mysql", portable=False)
    def test_a_value_over_the_limit_of_a_packet_stops_it_and_is_named(
        self, database: Database, empty: LTMBackend
    ) -> None:
        with database.open() as memory:
            engine: Any = memory._engine
            with engine.connect() as connection:
                packet = connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar()
            empty.store("a", 1)
            empty.namespace("big").store("large", "x" * packet)
            with pytest.raises(LTMError, match=r"the entry '@big.large': .* accepts packets of") as caught:
                copy_entries(empty, memory)
            assert caught.value.result["key"] == "@big.large"
            with pytest.raises(LTMError, match=r"the entry '@big.large': .* accepts packets of"):
                imported(memory, exported(empty))


class TestFile:
    def test_it_has_a_header_entries_in_key_order_and_a_checksum(self, empty: LTMBackend) -> None:
        empty.import_entries(
            [
                {"key": "b", "value": {"z": 1, "a": 2.0}, "created_at": EARLIER, "updated_at": EARLIER},
                {
                    "key": "é",
                    "value": None,
                    "namespace": ("n",),
                    "metadata": {},
                    "version": 3,
                    "created_at": EARLIER,
                    "updated_at": EARLIER,
                    "expires_at": LATER,
                    "ttl": 9,
                    "index": False,
                },
            ]
        )
        head, *lines, last = map(json.loads, exported(empty).splitlines())
        assert [*head] == ["format", "version", "source", "exported_at", "namespace", "language"]
        assert (head["format"], head["version"], head["namespace"]) == ("the_edge_agent.memory", 1, [])
        assert [[*line.items()] for line in lines] == [
            [
                *[("namespace", ["n"]), ("key", "é"), ("value", None), ("metadata", {}), ("version", 3)],
                *[("created_at", "2019-01-02T03:04:05.678901+00:00")],
                *[("updated_at", "2019-01-02T03:04:05.678901+00:00")],
                *[("expires_at", "2190-01-02T03:04:05.678901+00:00"), ("ttl", 9.0), ("index", False)],
            ],
            [
                *[("namespace", []), ("key", "b"), ("value", {"z": 1, "a": 2.0}), ("metadata", None), ("version", 1)],
                *[("created_at", "2019-01-02T03:04:05.678901+00:00")],
                *[("updated_at", "2019-01-02T03:04:05.678901+00:00")],
                *[("expires_at", None), ("ttl", None), ("index", True)],
            ],
        ]
        assert last["entries"] == 2
        assert exported(empty).isascii()

    def test_its_checksum_does_not_depend_on_the_header(self, source: LTMBackend, empty: LTMBackend) -> None:
        copy_entries(source, empty)
        assert lines_of(source)[-1] == lines_of(empty)[-1]

    def test_the_header_shows_no_password(self) -> None:
        with SQLAlchemyBackend("postgresql://me:Hunter2@localhost/db", lazy=True) as memory:
            from the_edge_agent.memory.transfer.lines import source_of

            assert "Hunter2" not in source_of(memory)

    def test_expired_entries_are_left_out(self, source: LTMBackend) -> None:
        assert b'"gone"' not in exported(source)

    def test_an_entry_that_expires_before_the_import_is_left_out(self, source: LTMBackend, empty: LTMBackend) -> None:
        head, *lines, _ = exported(source).replace(b"2190", b"2020").splitlines(keepends=True)
        last = {"entries": len(lines), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
        assert imported(empty, b"".join([head, *lines, json.dumps(last).encode(), b"\n"])) == counts(
            imported=29, expired=4
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        {
            "empty": (lambda lines: [], "the file is empty"),
            "no header": (lambda lines: lines[1:], "no export of a memory"),
            "another version": (lambda lines: [lines[0].replace(b":1,", b":99,"), *lines[1:]], "version 99"),
            "no last line": (lambda lines: lines[:-1], "cut off after line 34"),
            "half a last line": (lambda lines: [*lines[:-1], lines[-1][:-5]], "cut off"),
            "half a line": (lambda lines: [*lines[:5], lines[5][:9]], "cut off after line 6"),
            "a missing entry": (lambda lines: [*lines[:5], *lines[6:]], "was changed"),
            "another value": (lambda lines: [lines[0], lines[1].replace(b"x", b"y"), *lines[2:]], "was changed"),
            "no JSON": (lambda lines: [*lines[:5], b"[1\n", *lines[5:]], "line 6 is no JSON"),
            "no object": (lambda lines: [*lines[:5], b"[1]\n", *lines[5:]], "line 6 is no JSON object"),
            "NaN": (lambda lines: [*lines[:5], b'{"key": "k", "value": NaN}\n', *lines[5:]], "line 6 is no JSON"),
            "a bad time": (
                lambda lines: [*lines[:5], b'{"key": "k", "value": 1, "created_at": "x"}\n', *lines[5:]],
                "line 6 has no time in ISO 8601 as created_at",
            ),
            "more lines": (lambda lines: [*lines, lines[1]], "lines after its last line"),
        }.values(),
    )
    def test_a_file_that_was_changed_is_an_error(
        self, source: LTMBackend, empty: LTMBackend, change: Callable[[list[bytes]], list[bytes]], message: str
    ) -> None:
        lines = exported(source).splitlines(keepends=True)
        assert len(lines) == 35
        with pytest.raises(LTMError, match=message) as caught:
            imported(empty, b"".join(change(lines)))
        assert caught.value.error_type == "validation_error"

    def test_damaged_entries_are_named_after_all_others_were_written(
        self, source: SQLiteBackend, empty: LTMBackend
    ) -> None:
        run_sql(source, "UPDATE ltm_entries SET value = '{' WHERE key LIKE '%fox3'")
        file = io.BytesIO()
        with pytest.raises(LTMError, match=r"the file has all entries but 1 damaged: '@Ä.fox3'") as caught:
            export_entries(source, file)
        assert caught.value.result["damaged"] == ["@Ä.fox3"]
        assert caught.value.result["entries"] == 32
        assert imported(empty, file.getvalue()) == {**counts(imported=32), "damaged": ["@Ä.fox3"]}
        with pytest.raises(LTMError, match=r"all entries were copied but 1 damaged: '@Ä.fox3'"):
            copy_entries(source, empty)


class TestGoingOn:
    @pytest.mark.parametrize("stored_batches", range(8))
    def test_an_import_goes_on_after_any_batch(
        self, source: LTMBackend, empty: SQLiteBackend, monkeypatch: pytest.MonkeyPatch, stored_batches: int
    ) -> None:
        monkeypatch.setattr(arrival, "_BATCH_ENTRIES", 5)
        file, calls = exported(source), 0
        store = SQLiteBackend.import_entries

        def interrupted(self: Any, entries: Any, on_conflict: Any = "fail") -> Any:
            nonlocal calls
            if entries and (calls := calls + 1) > stored_batches:
                raise KeyboardInterrupt
            return store(self, entries, on_conflict)

        with monkeypatch.context() as patch:
            patch.setattr(SQLiteBackend, "import_entries", interrupted)
            if stored_batches < 7:
                with pytest.raises(KeyboardInterrupt):
                    imported(empty, file)
        before = empty.count()["count"]
        assert before == min(5 * stored_batches, 33) * (stored_batches < 7)
        assert imported(empty, file) == counts(imported=33 - before, unchanged=before)
        assert lines_of(empty) == file.splitlines()[1:]

    @on_sqlite
    def test_it_goes_on_in_a_namespace_whose_keys_have_another_order(
        self, database: Database, source: LTMBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrival, "_BATCH_ENTRIES", 3)
        monkeypatch.setattr(arrival, "_LEAST_PAGE", 1)
        with database.open(errors="raise") as memory:
            memory.store_many([{"key": f"other{n}", "value": n} for n in range(40)])
            place = memory.namespace("copy")
            copy_entries(source, place)
            place.delete("fox4")
            place.namespace("users").delete("é2 ")
            assert copy_entries(source, place) == counts(imported=2, unchanged=31)
            assert lines_of(place, nested=True) == lines_of_same_order(source, place)

    def test_a_batch_is_limited_by_bytes_too(
        self, source: LTMBackend, empty: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrival, "_BATCH_BYTES", 1_000)
        sizes: list[int] = []
        store = SQLiteBackend.import_entries

        def counted(self: Any, entries: Any, on_conflict: Any = "fail") -> Any:
            sizes.append(len(entries))
            return store(self, entries, on_conflict)

        monkeypatch.setattr(SQLiteBackend, "import_entries", counted)
        imported(empty, exported(source))
        assert max(sizes) < 10
        assert sum(sizes) == 33


def lines_of_same_order(source: LTMBackend, place: LTMBackend) -> list[bytes]:
    """Return the lines of an export in the order of the keys below a namespace."""
    *entries, _ = lines_of(source)
    from the_edge_agent.memory.core.namespaces import Namespace

    def full_key(line: bytes) -> str:
        entry = json.loads(line)
        return Namespace.of(("copy", *entry["namespace"])).full_key(entry["key"])

    return [*sorted(entries, key=full_key), lines_of(place, nested=True)[-1]]


class TestConflict:
    @pytest.fixture
    def other(self, source: LTMBackend, empty: SQLiteBackend) -> SQLiteBackend:
        copy_entries(source, empty)
        empty.namespace("Ä").store("fox3", "another")
        return empty

    def test_fail_names_the_entry_that_differs(self, source: LTMBackend, other: LTMBackend) -> None:
        with pytest.raises(LTMError, match=r"the entry '@Ä.fox3' is there already, version 2, and differs") as caught:
            copy_entries(source, other)
        assert (caught.value.error_type, caught.value.result["key"]) == ("conflict", "@Ä.fox3")

    def test_skip_keeps_it(self, source: LTMBackend, other: LTMBackend) -> None:
        assert copy_entries(source, other, on_conflict="skip") == counts(unchanged=32, skipped=1)
        assert other.namespace("Ä").retrieve("fox3")["value"] == "another"

    def test_replace_replaces_it(self, source: LTMBackend, other: LTMBackend) -> None:
        assert copy_entries(source, other, on_conflict="replace") == counts(unchanged=32, replaced=1)
        assert lines_of(other) == lines_of(source)

    @pytest.mark.parametrize(
        "change",
        [
            {"value": 1.0},
            {"value": True},
            {"metadata": {}},
            {"version": 2},
            {"created_at": EARLIER + timedelta(microseconds=1)},
            {"updated_at": EARLIER},
            {"expires_at": LATER + timedelta(microseconds=1)},
            {"ttl": 61},
            {"index": False},
        ],
        ids=str,
    )
    def test_any_difference_is_one(self, empty: LTMBackend, change: dict[str, Any]) -> None:
        entry = {"key": "k", "value": 1, "metadata": None, "created_at": EARLIER, "updated_at": LATER}
        entry |= {"version": 1, "expires_at": LATER, "ttl": 60}
        empty.import_entries([entry])
        with SQLiteBackend() as other:
            other.import_entries([{**entry, **change}])
            with pytest.raises(LTMError, match="differs"):
                copy_entries(other, empty)

    def test_a_damaged_entry_differs(self, source: LTMBackend, empty: SQLiteBackend) -> None:
        copy_entries(source, empty)
        run_sql(empty, "UPDATE ltm_entries SET value = '{' WHERE key = 'fox0'")
        with pytest.raises(LTMError, match=r"'fox0' is there already, and is damaged") as caught:
            copy_entries(source, empty)
        assert caught.value.error_type == "conflict"
        assert copy_entries(source, empty, on_conflict="replace") == counts(unchanged=32, replaced=1)

    def test_other_words_are_refused(self, source: LTMBackend, empty: LTMBackend) -> None:
        with pytest.raises(LTMError, match="fail, skip, replace"):
            copy_entries(source, empty, on_conflict="ignore")  # type: ignore[arg-type]


class TestNamespaces:
    def test_without_nested_only_the_namespace_itself_is_written(self, source: LTMBackend) -> None:
        source.namespace("users").namespace("below").store("k", 1)
        users = source.namespace("users")
        assert len(lines_of(users, nested=True)) == len(lines_of(users)) + 1

    def test_a_copy_may_have_another_namespace(self, source: LTMBackend, empty: LTMBackend) -> None:
        copy_entries(source.namespace("users"), empty.namespace("people", "x"))
        assert lines_of(empty.namespace("people", "x")) == lines_of(source.namespace("users"))

    def test_progress_ends_with_the_number_of_entries(self, source: LTMBackend, empty: LTMBackend) -> None:
        seen: list[int] = []
        exported(source, progress=seen.append)
        copy_entries(source, empty, progress=seen.append)
        assert seen == [33, 33]


def test_a_memory_without_the_capability_is_refused(source: LTMBackend) -> None:
    class WithoutImport(SQLiteBackend):
        capabilities = SQLiteBackend.capabilities - {"import"}  # type: ignore[misc]

    with WithoutImport() as memory, pytest.raises(LTMError, match="capability 'import'"):
        copy_entries(source, memory)


def test_any_backend_with_the_capabilities_can_be_copied(source: LTMBackend, empty: LTMBackend) -> None:
    memory = MemoryBackend()
    copy_entries(source, memory)
    assert lines_of(memory) == lines_of(source)
    assert copy_entries(source, memory)["unchanged_count"] == 33
    copy_entries(memory, empty)
    assert lines_of(empty) == lines_of(source)
