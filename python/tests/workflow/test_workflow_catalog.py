"""The ``catalog.*`` actions of agents, on the catalog that ``settings.ltm`` names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from databases import Database
from the_edge_agent import NodeError, WorkflowFileError, YAMLEngine
from the_edge_agent.memory import SQLAlchemyBackend, SQLAlchemyCatalog, compute_content_hash, generate_entry_id

Run: TypeAlias = Callable[..., dict[str, Any]]

on_every_database = pytest.mark.targets(portable=False)

UNKNOWN = "00000000-0000-4000-8000-000000000000"
TIMES = ("expires_at", "created_at", "updated_at")


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Iterator[YAMLEngine]:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"settings: {{ltm: {{backend: sqlalchemy, url: {json.dumps(database.url)}, catalog: {{type: sqlalchemy}}}}}}\n"
        "nodes: [{name: a, uses: catalog.list}]\n",
        encoding="utf-8",
    )
    with YAMLEngine() as engine:
        engine.load_from_file(settings)
        yield engine


@pytest.fixture
def memory(engine: YAMLEngine) -> SQLAlchemyBackend:
    assert isinstance(engine.ltm_backend, SQLAlchemyBackend)
    return engine.ltm_backend


@pytest.fixture
def catalog(memory: SQLAlchemyBackend) -> SQLAlchemyCatalog:
    assert isinstance(memory.catalog, SQLAlchemyCatalog)
    return memory.catalog


@pytest.fixture
def run(engine: YAMLEngine, tmp_path: Path) -> Run:
    """Runs nodes, written in YAML, with an input; returns the final state without the input."""

    def run_nodes(nodes: str, **state: Any) -> dict[str, Any]:
        path = tmp_path / "agent.yaml"
        path.write_text(f"nodes:\n{nodes}", encoding="utf-8")
        *_, final = engine.load_from_file(path).invoke(state)
        assert json.loads(json.dumps(final["state"])) == final["state"], "it can be printed as JSON"
        return {name: value for name, value in final["state"].items() if name not in state}

    return run_nodes


def failure(run: Run, nodes: str, **state: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        run(nodes, **state)
    return caught.value


def track_expired(catalog: SQLAlchemyCatalog, *keys: str) -> None:
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    for key in keys:
        assert catalog.track_entry(key, "h", None, 1, None, expires_at=past)["success"]


@on_every_database
class TestEntries:
    def test_track_takes_hash_and_size_of_the_value_as_the_memory_does(
        self, run: Run, memory: SQLAlchemyBackend
    ) -> None:
        value = {"b": [1, 2.0, "é😀", None], "a": 10**30}
        node = "  - {name: a, uses: catalog.track, with: {key: mine, value: '{{ state.value }}', metadata: {m: 1}}}\n"
        result = run(node, value=value)
        assert result == {"success": True, "entry_id": generate_entry_id("mine"), "created": True}
        memory.store("kept", value, {"m": 1})
        nodes = (
            "  - {name: a, uses: catalog.get, with: {key: mine}, output: mine}\n"
            "  - {name: b, uses: catalog.get, with: {key: kept}, output: kept}\n"
        )
        mine, of_memory = (result["entry"] for result in run(nodes).values())
        assert mine["content_hash"] == compute_content_hash(value)
        for name in {*mine} - {"id", "key", "created_at", "updated_at"}:
            assert mine[name] == of_memory[name]

    def test_null_is_a_value(self, run: Run, catalog: SQLAlchemyCatalog) -> None:
        run("  - {name: a, uses: catalog.track, with: {key: k, value: '{{ state.value }}'}}\n", value=None)
        entry: Any = catalog.get_entry("k")
        assert (entry["content_hash"], entry["byte_size"]) == (compute_content_hash(None), 4)

    def test_all_that_track_is_given_comes_out_of_get(self, run: Run) -> None:
        nodes = (
            "  - name: a\n    uses: catalog.track\n    output: tracked\n    with:\n"
            "      key: 'docs/{{ state.name }} '\n"
            "      content_hash: '{{ state.hash }}'\n"
            "      storage_uri: s3://bucket/é\n"
            "      byte_size: '{{ 2 ** 40 }}'\n"
            "      metadata: {m: [null, 1.0]}\n"
            "      inlined_value: {v: '{{ state.name }}'}\n"
            "      expires_at: 2999-12-31T23:59:59.5+01:00\n"
            "  - {name: b, uses: catalog.get, with: {key: 'docs/日 '}}\n"
        )
        result = run(nodes, name="日", hash="md5:1")
        entry = result["entry"]
        assert {name: value for name, value in entry.items() if name not in ("id", "created_at", "updated_at")} == {
            "key": "docs/日 ",
            "content_hash": "md5:1",
            "storage_uri": "s3://bucket/é",
            "byte_size": 2**40,
            "inlined_value": {"v": "日"},
            "metadata": {"m": [None, 1.0]},
            "expires_at": "2999-12-31T22:59:59.500000+00:00",
        }
        assert entry["id"] == result["tracked"]["entry_id"] == generate_entry_id("docs/日 ")
        moments = [datetime.fromisoformat(entry[name]) for name in TIMES]
        assert moments[0] > moments[1] == moments[2]
        assert all(moment.utcoffset() == timedelta(0) for moment in moments)

    def test_an_entry_is_created_once(self, run: Run) -> None:
        node = "  - {name: a, uses: catalog.track, with: {key: k, content_hash: '{{ state.hash }}'}}\n"
        assert [run(node, hash=text)["created"] for text in ("h1", "h2")] == [True, False]

    def test_get_of_what_is_not_there_finds_nothing(self, run: Run, catalog: SQLAlchemyCatalog) -> None:
        track_expired(catalog, "over")
        node = "  - {name: a, uses: catalog.get, with: {key: '{{ state.of }}'}}\n"
        for key in ("k", "over"):
            assert run(node, of=key) == {"success": True, "found": False, "entry": None}

    def test_list_takes_prefix_filter_and_limit(self, run: Run, memory: SQLAlchemyBackend) -> None:
        memory.store_many([{"key": f"n/{n}", "value": n, "metadata": {"even": n % 2 == 0}} for n in range(6)])
        memory.store("m", 1, {"even": True})
        with_all = "prefix: n/, metadata_filter: {even: '{{ state.even }}'}, limit: 2"
        result = run(f"  - {{name: a, uses: catalog.list, with: {{{with_all}}}}}\n", even=True)
        assert ([entry["key"] for entry in result["entries"]], result["count"]) == (["n/0", "n/2"], 2)
        assert run("  - {name: a, uses: catalog.list}\n")["count"] == 7

    def test_delete_says_whether_it_was_there(self, run: Run, memory: SQLAlchemyBackend) -> None:
        memory.store("k", 1)
        node = "  - {name: a, uses: catalog.delete, with: {key: k}}\n"
        assert [run(node) for _ in range(2)] == [{"success": True, "deleted": was_there} for was_there in (True, False)]
        assert memory.retrieve("k")["found"], "the memory keeps its entry"

    def test_cleanup_removes_what_has_expired(self, run: Run, catalog: SQLAlchemyCatalog) -> None:
        track_expired(catalog, "a", "b", "c")
        catalog.track_entry("kept", "h", None, 1, None)
        nodes = (
            "  - {name: a, uses: catalog.cleanup, with: {batch_size: '{{ state.size }}'}, output: first}\n"
            "  - {name: b, uses: catalog.cleanup}\n"
        )
        result = run(nodes, size=2)
        assert result.pop("first") == {"success": True, "deleted_count": 2, "remaining_count": 1}
        assert result == {"success": True, "deleted_count": 1, "remaining_count": 0}
        assert [entry["key"] for entry in catalog.list_entries()] == ["kept"]


@on_every_database
class TestChanges:
    SNAPSHOT = "  - {name: a, uses: catalog.snapshot, with: {name: 'before {{ state.what }}'}}\n"
    CHANGES = "  - {name: a, uses: catalog.changes, with: {since: '{{ state.since }}'}}\n"

    def test_a_snapshot_counts_what_it_keeps(self, run: Run, memory: SQLAlchemyBackend) -> None:
        memory.store_many([{"key": f"k{n}", "value": n} for n in range(5)])
        result = run(self.SNAPSHOT, what="work")
        assert len(result.pop("snapshot_id")) == 36
        assert result == {"success": True, "entry_count": 5, "total_bytes": 5}

    def test_an_empty_snapshot_counts_nothing(self, run: Run) -> None:
        result = run(self.SNAPSHOT, what="work")
        assert (result["entry_count"], result["total_bytes"]) == (0, 0)

    def test_changes_since_a_snapshot(self, run: Run, memory: SQLAlchemyBackend) -> None:
        memory.store_many([{"key": f"k{n}", "value": n} for n in range(6)])
        since = run(self.SNAPSHOT, what="work")["snapshot_id"]
        memory.store("k1", 1)
        memory.store("k2", "other")
        memory.store("k3", 3, {"meta": 1})
        memory.store("k4", 4, ttl=3600)
        memory.store("new", 1)
        memory.delete_many(["k0", "k5"])
        result = run(self.CHANGES, since=since)
        assert [entry["key"] for entry in result["changed"]] == ["k2", "k3", "k4", "new"]
        assert (result["success"], result["changed_count"], result["deleted_count"]) == (True, 4, 2)
        nothing, until = ({"expires_at": result["changed"][place]["expires_at"]} for place in (0, 2))
        assert nothing == {"expires_at": None}
        assert datetime.fromisoformat(until["expires_at"]) > datetime.now(timezone.utc)
        gone = {"id": generate_entry_id("k0"), "key": "k0", "content_hash": compute_content_hash(0), "byte_size": 1}
        assert result["deleted"][0] == {**gone, "expires_at": None}
        assert [entry["key"] for entry in result["deleted"]] == ["k0", "k5"]

    def test_what_has_expired_since_is_deleted_and_says_when(self, run: Run, memory: SQLAlchemyBackend) -> None:
        memory.store("k", 1, ttl=0.5)
        since = run(self.SNAPSHOT, what="work")["snapshot_id"]
        deadline = time.monotonic() + 10
        while memory.retrieve("k")["found"]:
            assert time.monotonic() < deadline
        (gone,) = run(self.CHANGES, since=since)["deleted"]
        assert datetime.fromisoformat(gone["expires_at"]).utcoffset() == timedelta(0)

    @pytest.mark.parametrize("arguments", ["", ", with: {since: null}", ", with: {since: '{{ state.since }}'}"])
    def test_without_a_snapshot_everything_is_new(
        self, run: Run, memory: SQLAlchemyBackend, catalog: SQLAlchemyCatalog, arguments: str
    ) -> None:
        memory.store("k", 1)
        track_expired(catalog, "over")
        result = run(f"  - {{name: a, uses: catalog.changes{arguments}}}\n", since=None)
        assert [entry["key"] for entry in result.pop("changed")] == ["k"]
        assert result == {"success": True, "deleted": [], "changed_count": 1, "deleted_count": 0}

    @pytest.mark.parametrize("since", [UNKNOWN, "", "no id"])
    def test_an_unknown_snapshot_fails_its_node(self, run: Run, since: str) -> None:
        error = failure(run, self.CHANGES, since=since)
        assert error.error_type == "validation_error"
        assert "`catalog.changes` failed: there is no snapshot with this id" in str(error)


@on_every_database
def test_the_memory_s_own_actions_are_followed(run: Run) -> None:
    nodes = (
        "  - {name: a, uses: ltm.store_many, with: {entries: [{key: a, value: 1, ttl: 60}, {key: b, value: 2}]}}\n"
        "  - {name: b, uses: ltm.delete, with: {key: b}}\n"
        "  - {name: c, uses: catalog.list, output: found}\n"
    )
    (entry,) = run(nodes)["found"]["entries"]
    assert entry["key"] == "a"
    assert entry["expires_at"] > entry["created_at"]


@on_every_database
def test_run_code_calls_each_by_its_second_name(run: Run) -> None:
    code = (
        "  - name: a\n    run: |\n"
        "      created = actions.catalog_track('a', [1])['created']\n"
        "      listed = actions.catalog_list()['count']\n"
        "      size = actions.catalog_get('a')['entry']['byte_size']\n"
        "      since = actions.catalog_snapshot('s')['snapshot_id']\n"
        "      deleted = actions.catalog_delete(key='a')['deleted']\n"
        "      gone = actions.catalog_changes(since)['deleted_count']\n"
        "      cleaned = actions.catalog_cleanup()['deleted_count']\n"
    )
    result = run(code)
    del result["since"]
    assert result == {"created": True, "listed": 1, "size": 3, "deleted": True, "gone": 1, "cleaned": 0}


on_sqlite = pytest.mark.targets(family="sqlite", in_memory=True, portable=False)
GOOD = {"key": "k", "value": 1}


@on_sqlite
class TestArguments:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2999-12-31T23:59:59.123456+00:00", "2999-12-31T23:59:59.123456+00:00"),
            ("2999-12-31T23:59:59Z", "2999-12-31T23:59:59.000000+00:00"),
            ("2999-12-31 23:59:59.1", "2999-12-31T23:59:59.100000+00:00"),
            ("2999-12-31T23:59", "2999-12-31T23:59:00.000000+00:00"),
            ("2999-12-31T23:59-05:30", "3000-01-01T05:29:00.000000+00:00"),
            ("2999-12-31", "2999-12-31T00:00:00.000000+00:00"),
        ],
    )
    def test_a_time_is_read_as_iso_8601_and_is_utc_if_it_does_not_say(self, run: Run, text: str, moment: str) -> None:
        nodes = (
            f"  - {{name: a, uses: catalog.track, with: {{key: k, value: 1, expires_at: {text}}}}}\n"
            "  - {name: b, uses: catalog.get, with: {key: k}}\n"
        )
        assert run(nodes)["entry"]["expires_at"] == moment

    def test_code_may_give_a_datetime(self, run: Run, catalog: SQLAlchemyCatalog) -> None:
        code = (
            "  - name: a\n    run: |\n      import datetime\n"
            "      actions.catalog_track('k', 1, expires_at=datetime.datetime(2999, 1, 1))\n      return {}\n"
        )
        run(code)
        entry: Any = catalog.get_entry("k")
        assert entry["expires_at"] == datetime(2999, 1, 1, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({**GOOD, "key": ""}, "key must not be empty"),
            ({**GOOD, "key": 5}, "key must be"),
            ({**GOOD, "byte_size": -1}, "byte_size must be an integer"),
            ({**GOOD, "byte_size": "5"}, "byte_size must be an integer"),
            ({**GOOD, "storage_uri": ["a"]}, "storage_uri must be"),
            ({**GOOD, "metadata": ["a"]}, "metadata must be a dict"),
            ({**GOOD, "expires_at": "soon"}, "expires_at must be a time in ISO 8601"),
            ({**GOOD, "expires_at": "2999-13-01"}, "expires_at must be a time in ISO 8601"),
            ({**GOOD, "expires_at": "29991231"}, "expires_at must be a time in ISO 8601"),
            ({**GOOD, "expires_at": "0001-01-01T00:00:00+01:00"}, "expires_at must be a time in ISO 8601"),
            ({**GOOD, "expires_at": "٢٩٩٩-12-31"}, "expires_at must be a time in ISO 8601"),
            ({**GOOD, "expires_at": 5}, "expires_at must be a datetime or None, not int"),
            ({**GOOD, "content_hash": "h"}, "give the value or its content_hash, one of the two"),
            ({"key": "k"}, "give the value or its content_hash, one of the two"),
            ({"key": "k", "content_hash": "a b"}, "content_hash must be 1 to 200 printable ASCII characters"),
            ({"key": "k", "content_hash": ""}, "content_hash must be 1 to 200 printable ASCII characters"),
        ],
    )
    def test_what_the_catalog_refuses_fails_its_node(
        self, run: Run, catalog: SQLAlchemyCatalog, arguments: dict[str, Any], message: str
    ) -> None:
        error = failure(run, f"  - {{name: a, uses: catalog.track, with: {json.dumps(arguments)}}}\n")
        assert error.error_type == "validation_error"
        assert message in str(error)
        assert catalog.list_entries() == []

    def test_a_value_that_is_not_json_is_refused(self, run: Run) -> None:
        error = failure(run, "  - {name: a, run: 'actions.catalog_track(\"k\", {1, 2})'}\n")
        assert error.error_type == "serialization_error"

    @pytest.mark.parametrize(
        ("node", "word"),
        [
            ("uses: catalog.get, with: {key: ''}", "key"),
            ("uses: catalog.delete, with: {key: [a]}", "key"),
            ("uses: catalog.list, with: {limit: 0}", "limit"),
            ("uses: catalog.list, with: {prefix: 1}", "prefix"),
            ("uses: catalog.list, with: {metadata_filter: {a: {$like: b}}}", "$like"),
            ("uses: catalog.snapshot, with: {name: [a]}", "name"),
            ("uses: catalog.changes, with: {since: 5}", "since"),
            ("uses: catalog.cleanup, with: {batch_size: 10001}", "batch_size"),
        ],
    )
    def test_a_bad_argument_fails_its_node_and_is_named(self, run: Run, node: str, word: str) -> None:
        error = failure(run, f"  - {{name: a, {node}}}\n")
        assert error.error_type == "validation_error"
        assert word in str(error)

    @pytest.mark.parametrize(
        ("node", "message"),
        [
            ("uses: catalog.track", "needs the argument `key`"),
            ("uses: catalog.track, with: {key: k, hash: h}", "has no argument `hash`; did you mean `content_hash`?"),
            ("uses: catalog.track, with: {key: k, value: 1, ttl: 5}", "has no argument `ttl`"),
            ("uses: catalog.get", "needs the argument `key`"),
            ("uses: catalog.list, with: {filter: {}}", "has no argument `filter`; did you mean `metadata_filter`?"),
            ("uses: catalog.snapshot", "needs the argument `name`"),
            ("uses: catalog.changes, with: {snapshot: s}", "has no argument `snapshot`; it takes `since`"),
            ("uses: catalog.cleanup, with: {batch: 1}", "has no argument `batch`; did you mean `batch_size`?"),
            ("uses: catalog.snapshotz", "unknown action `catalog.snapshotz`; did you mean `catalog.snapshot`?"),
        ],
    )
    def test_names_are_checked_before_anything_runs(self, run: Run, node: str, message: str) -> None:
        with pytest.raises(WorkflowFileError) as caught:
            run(f"  - {{name: a, {node}}}\n")
        assert message in str(caught.value)


def test_snapshots_are_listed_and_deleted(run: Run, catalog: SQLAlchemyCatalog) -> None:
    snapshot_id = catalog.create_snapshot("monday")
    final = run(
        "  - {name: list, uses: catalog.snapshots, output: listed}\n"
        f"  - {{name: delete, uses: catalog.delete_snapshot, with: {{snapshot_id: {snapshot_id}}}, output: deleted}}\n"
        f"  - {{name: again, uses: catalog.delete_snapshot, with: {{snapshot_id: {UNKNOWN}}}, output: again}}\n"
    )
    (snapshot,) = final["listed"]["snapshots"]
    assert (snapshot["id"], snapshot["name"], snapshot["entry_count"]) == (snapshot_id, "monday", 0)
    assert (final["listed"]["count"], final["deleted"]["deleted"], final["again"]["deleted"]) == (1, True, False)
    assert catalog.list_snapshots() == []


def test_sync_makes_the_catalog_agree_with_the_memory(
    run: Run, memory: SQLAlchemyBackend, catalog: SQLAlchemyCatalog
) -> None:
    memory.store("k", 1)
    catalog.delete_entry("k")
    final = run("  - {name: sync, uses: catalog.sync, output: synced}\n")
    assert final["synced"] == {"success": True, "tracked_count": 1, "deleted_count": 0}
