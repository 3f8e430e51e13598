"""The ``ltm.*`` actions of agents: they pass the file's arguments to the backend, and return its dict unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import Database
from the_edge_agent import WorkflowFileError
from the_edge_agent.memory import LTMBackend
from workflow_nodes import Run, failure, runner

pytestmark = pytest.mark.targets(portable=False)


@pytest.fixture
def memory(database: Database) -> Iterator[LTMBackend]:
    with database.open() as backend:
        yield backend


@pytest.fixture
def run(memory: LTMBackend, tmp_path: Path) -> Run:
    return runner(memory, tmp_path)


def fill(memory: LTMBackend, *keys: str) -> None:
    assert memory.store_many([{"key": key, "value": key.upper()} for key in keys])["stored_count"] == len(keys)


class TestStore:
    LEASE = (
        "  - {name: take, uses: ltm.store, output: taken,\n"
        "     with: {key: lease, value: '{{ state.who }}', ttl: '{{ state.minutes * 60 }}', if_version: 0}}\n"
    )
    COUNT = (
        "  - {name: read, uses: ltm.retrieve, with: {key: n, default: 0}, output: before}\n"
        "  - {name: write, uses: ltm.store,\n"
        "     with: {key: n, value: '{{ state.before.value + 1 }}', if_version: '{{ state.before.version or 0 }}'}}\n"
    )

    def test_a_lifetime_may_come_from_a_template(self, run: Run, memory: LTMBackend) -> None:
        taken = {"success": True, "stored": True, "key": "lease", "created": True, "version": 1}
        assert run(self.LEASE, who="Ana", minutes=5) == {"taken": taken}
        assert memory.retrieve("lease")["value"] == "Ana"

    def test_the_end_of_an_entry_may_be_given_as_a_moment(self, run: Run, memory: LTMBackend) -> None:
        run(
            "  - {name: a, uses: ltm.store, with: {key: a, value: 1, expires_at: '2099-12-31T23:59:59.000001+01:00'}}\n"
            "  - {name: b, uses: ltm.store_many, with: {entries: [{key: b, value: 1, expires_at: '2099-12-31'}]}}\n"
            "  - {name: c, uses: ltm.store, with: {key: c, value: 1, expires_at: '2001-12-31'}}\n"
        )
        ends = {entry["key"]: str(entry["expires_at"]) for entry in memory.iterate_entries()}
        assert ends == {"a": "2099-12-31 22:59:59.000001+00:00", "b": "2099-12-31 00:00:00+00:00"}

    def test_what_has_expired_is_created_anew(self, run: Run, memory: LTMBackend) -> None:
        run(self.LEASE, who="Ana", minutes=0.0001)
        deadline = time.monotonic() + 10
        while memory.retrieve("lease")["found"]:
            assert time.monotonic() < deadline
        assert run(self.LEASE, who="Bea", minutes=0.5)["taken"]["created"] is True

    def test_a_conflict_fails_its_node_and_stores_nothing(self, run: Run, memory: LTMBackend) -> None:
        run(self.LEASE, who="Ana", minutes=5)
        error = failure(run, self.LEASE, who="Bea", minutes=5)
        assert (error.node, error.error_type) == ("take", "conflict")
        assert "`ltm.store` failed: the entry has version 1" in str(error)
        assert memory.retrieve("lease")["value"] == "Ana"

    def test_a_version_that_was_read_can_be_required(self, run: Run) -> None:
        assert [run(self.COUNT)["version"] for _ in range(3)] == [1, 2, 3]

    def test_run_code_may_catch_a_conflict_and_learns_the_version(self, run: Run, memory: LTMBackend) -> None:
        memory.store("k", 1)
        memory.store("k", 2)
        code = (
            "  - name: a\n    run: |\n"
            "      try:\n          actions.ltm_store('k', 3, if_version=1)\n"
            "      except Exception as error:\n          why = [error.error_type, error.result['version']]\n"
        )
        assert run(code) == {"why": ["conflict", 2]}

    @pytest.mark.parametrize("wrong", ["ttl: 0", "ttl: soon", "ttl: '60'", "if_version: -1", "expires_at: soon"])
    def test_a_bad_lifetime_or_version_fails_its_node(self, run: Run, memory: LTMBackend, wrong: str) -> None:
        error = failure(run, f"  - {{name: a, uses: ltm.store, with: {{key: k, value: 1, {wrong}}}}}\n")
        assert error.error_type == "validation_error"
        assert wrong.partition(":")[0] in str(error)
        assert memory.count()["count"] == 0


class TestMany:
    def test_store_many_takes_entries_from_the_state_or_the_file(self, run: Run, memory: LTMBackend) -> None:
        nodes = (
            "  - {name: a, uses: ltm.store_many, with: {entries: '{{ state.entries }}'}, output: first}\n"
            "  - name: b\n    uses: ltm.store_many\n    with:\n      entries:\n"
            "        - {key: 'to/{{ state.who }}', value: [1, 2.0], metadata: {m: null}, ttl: 60}\n"
        )
        result = run(nodes, who="Ana", entries=[{"key": "b", "value": None}, {"key": "b", "value": {"z": 1, "a": 2}}])
        results = [{"key": "b", "created": True, "version": 1}, {"key": "b", "created": False, "version": 2}]
        assert result.pop("first") == {"success": True, "stored_count": 2, "results": results}
        results = [{"key": "to/Ana", "created": True, "version": 1}]
        assert result == {"success": True, "stored_count": 1, "results": results}
        assert [*memory.iterate_all()] == [("b", {"z": 1, "a": 2}, None), ("to/Ana", [1, 2.0], {"m": None})]

    def test_store_many_stores_all_or_nothing(self, run: Run, memory: LTMBackend) -> None:
        node = "  - {name: a, uses: ltm.store_many, with: {entries: '{{ state.entries }}'}}\n"
        error = failure(run, node, entries=[{"key": "a", "value": 1}, {"key": "b"}])
        assert error.error_type == "validation_error"
        assert "entries[1] must have key and value" in str(error)
        assert memory.count()["count"] == 0

    def test_retrieve_many_gives_an_entry_or_null_for_each_key(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", 1.0, {"m": 1})
        result = run("  - {name: a, uses: ltm.retrieve_many, with: {keys: [b, a, 'a ']}, output: found}\n")["found"]
        entries = {"b": None, "a": {"value": 1.0, "metadata": {"m": 1}, "version": 1}, "a ": None}
        assert result == {"success": True, "entries": entries, "found_count": 1, "missing_count": 2}
        assert [*result["entries"]] == ["b", "a", "a "]

    def test_delete_many_counts_what_there_was(self, run: Run, memory: LTMBackend) -> None:
        fill(memory, "a", "b", "c")
        node = "  - {name: a, uses: ltm.delete_many, with: {keys: '{{ state.old }}'}}\n"
        assert run(node, old=["a", "x", "c", "a"]) == {"success": True, "deleted_count": 2}
        assert memory.list_keys()["keys"] == ["b"]

    @pytest.mark.parametrize("action", ["retrieve_many", "delete_many"])
    def test_a_bad_key_fails_its_node_and_is_told_by_its_place(self, run: Run, action: str) -> None:
        error = failure(run, f"  - {{name: a, uses: ltm.{action}, with: {{keys: [a, '']}}}}\n")
        assert error.error_type == "validation_error"
        assert "keys[1]: key must not be empty" in str(error)


class TestKeys:
    def test_list_pages_through_the_keys_in_order(self, run: Run, memory: LTMBackend) -> None:
        fill(memory, "n/b", "n/A", "n/a", "n/日", "m")
        nodes = (
            "  - {name: a, uses: ltm.list, with: {prefix: n/, limit: 3}, output: first}\n"
            "  - {name: b, uses: ltm.list, with: {prefix: n/, limit: 3, after: '{{ state.first.next }}'}}\n"
        )
        result = run(nodes)
        assert result.pop("first") == {"success": True, "keys": ["n/A", "n/a", "n/b"], "next": "n/b"}
        assert result == {"success": True, "keys": ["n/日"], "next": None}

    def test_list_without_arguments_gives_the_first_hundred(self, run: Run, memory: LTMBackend) -> None:
        fill(memory, *(f"{number:03}" for number in range(101)))
        result = run("  - {name: a, uses: ltm.list}\n")
        assert (len(result["keys"]), result["next"]) == (100, "099")

    def test_count_counts_all_or_those_with_a_prefix(self, run: Run, memory: LTMBackend) -> None:
        fill(memory, "a/1", "a/2", "b")
        nodes = (
            "  - {name: a, uses: ltm.count, output: all}\n"
            "  - {name: b, uses: ltm.count, with: {prefix: '{{ state.of }}'}}\n"
        )
        assert run(nodes, of="a/") == {"all": {"success": True, "count": 3}, "success": True, "count": 2}

    def test_cleanup_removes_what_has_expired(self, run: Run, memory: LTMBackend) -> None:
        fill(memory, "kept")
        memory.store_many([{"key": f"old/{number}", "value": 1, "ttl": 1e-6} for number in range(3)])
        deadline = time.monotonic() + 10
        while memory.count()["count"] > 1:
            assert time.monotonic() < deadline
        nodes = (
            "  - {name: a, uses: ltm.cleanup, with: {batch_size: '{{ state.size }}'}, output: first}\n"
            "  - {name: b, uses: ltm.cleanup}\n"
        )
        result = run(nodes, size=2)
        assert result.pop("first") == {"success": True, "deleted_count": 2, "remaining_count": 1}
        assert result == {"success": True, "deleted_count": 1, "remaining_count": 0}
        assert memory.list_keys()["keys"] == ["kept"]

    @pytest.mark.parametrize(
        "node",
        [
            "uses: ltm.list, with: {limit: 0}",
            "uses: ltm.list, with: {limit: ten}",
            "uses: ltm.list, with: {after: 1}",
            "uses: ltm.count, with: {prefix: [a]}",
            "uses: ltm.cleanup, with: {batch_size: 10001}",
        ],
    )
    def test_a_bad_argument_fails_its_node_and_is_named(self, run: Run, node: str) -> None:
        error = failure(run, f"  - {{name: a, {node}}}\n")
        assert error.error_type == "validation_error"
        assert node.partition("with: {")[2].partition(":")[0] in str(error)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("uses: ltm.store, with: {key: k, value: 1, tll: 5}", "has no argument `tll`; did you mean `ttl`?"),
        (
            "uses: ltm.store, with: {key: k, value: 1, version: 5}",
            "has no argument `version`; did you mean `if_version`?",
        ),
        ("uses: ltm.store_many", "needs the argument `entries`"),
        ("uses: ltm.store_many, with: {entries: [], ttl: 5}", "has no argument `ttl`; it takes `entries`, `namespace`"),
        ("uses: ltm.retrieve_many, with: {key: k}", "has no argument `key`; did you mean `keys`?"),
        ("uses: ltm.delete_many", "needs the argument `keys`"),
        ("uses: ltm.list, with: {prefixes: a}", "has no argument `prefixes`; did you mean `prefix`?"),
        ("uses: ltm.count, with: {limit: 1}", "has no argument `limit`; it takes `prefix`, `nested`, `namespace`"),
        ("uses: ltm.cleanup, with: {batch: 1}", "has no argument `batch`; did you mean `batch_size`?"),
        ("uses: ltm.list_keys", "unknown action `ltm.list_keys`; did you mean `ltm.list`?"),
    ],
)
def test_arguments_are_checked_before_anything_runs(run: Run, node: str, message: str) -> None:
    with pytest.raises(WorkflowFileError) as caught:
        run(f"  - {{name: a, {node}}}\n")
    assert str(caught.value).endswith(message)


def test_run_code_calls_each_by_its_second_name(run: Run) -> None:
    code = (
        "  - name: a\n    run: |\n"
        "      stored = actions.ltm_store_many([{'key': key, 'value': 1} for key in 'abc'])['stored_count']\n"
        "      found = actions.ltm_retrieve_many(keys=['a', 'x'])['found_count']\n"
        "      deleted = actions.ltm_delete_many(['a', 'x'])['deleted_count']\n"
        "      listed = actions.ltm_list(limit=1)['keys']\n"
        "      counted = actions.ltm_count()['count']\n"
        "      cleaned = actions.ltm_cleanup()['deleted_count']\n"
    )
    assert run(code) == {"stored": 3, "found": 1, "deleted": 1, "listed": ["b"], "counted": 2, "cleaned": 0}
