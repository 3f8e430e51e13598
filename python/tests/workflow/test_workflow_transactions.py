"""The action ``ltm.transaction``: several stores and deletes, all or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import Database
from the_edge_agent.memory import LTMBackend
from workflow_nodes import Run, failure, runner

pytestmark = pytest.mark.targets(portable=False)

MOVE = """
  - name: move
    uses: ltm.transaction
    with:
      operations:
        - delete: {key: draft, if_version: "{{ state.seen }}"}
        - store: {key: final, value: "{{ state.text }}", metadata: {by: "{{ state.who }}"}, ttl: 60}
    output: moved
"""


@pytest.fixture
def memory(database: Database) -> Iterator[LTMBackend]:
    with database.open() as backend:
        yield backend


@pytest.fixture
def run(memory: LTMBackend, tmp_path: Path) -> Run:
    return runner(memory, tmp_path)


def test_all_operations_are_done_and_each_has_its_result(run: Run, memory: LTMBackend) -> None:
    memory.store("draft", "tea")
    moved = run(MOVE, text="Green tea", who="Ana", seen=1)["moved"]
    assert moved == {
        "success": True,
        "operations": 2,
        "results": [
            {"success": True, "deleted": True, "key": "draft"},
            {"success": True, "stored": True, "key": "final", "created": True, "version": 1},
        ],
    }
    assert [*memory.iterate_all()] == [("final", "Green tea", {"by": "Ana"})]
    [entry] = memory.entries()["entries"]
    assert entry["ttl"] == 60


def test_a_conflict_undoes_all_and_names_its_key(run: Run, memory: LTMBackend) -> None:
    memory.store("draft", "tea")
    memory.store("draft", "more tea")
    error = failure(run, MOVE, text="Green tea", who="Ana", seen=1)
    assert (error.node, error.error_type) == ("move", "conflict")
    assert "conflict of the key 'draft'" in str(error)
    assert [*memory.iterate_all()] == [("draft", "more tea", None)]


def test_operations_see_those_before_them(run: Run, memory: LTMBackend) -> None:
    nodes = """
  - name: twice
    uses: ltm.transaction
    with:
      operations:
        - store: {key: n, value: 1, if_version: 0}
        - store: {key: n, value: 2, if_version: 1}
"""
    assert [result["version"] for result in run(nodes)["results"]] == [1, 2]
    assert memory.retrieve("n")["value"] == 2


def test_it_takes_a_namespace_and_times(run: Run, memory: LTMBackend) -> None:
    run(
        "  - name: a\n    uses: ltm.transaction\n    with:\n      namespace: [users, Ana]\n      operations:\n"
        "        - store: {key: a, value: 1, expires_at: 2099-12-31, index: false}\n"
    )
    [entry] = memory.namespace("users", "Ana").entries()["entries"]
    assert (entry["key"], str(entry["expires_at"])) == ("a", "2099-12-31 00:00:00+00:00")


def test_code_reads_again_after_a_conflict(run: Run, memory: LTMBackend) -> None:
    memory.store("n", 1)
    nodes = """
  - name: count
    run: |
      conflicts = 0
      for attempt in range(3):
          before = actions.ltm_retrieve("n")
          if attempt == 0:
              actions.ltm_store("n", 10)  # another agent
          try:
              operation = {"key": "n", "value": before["value"] + 1, "if_version": before["version"]}
              actions.ltm_transaction(operations=[{"store": operation}])
              break
          except Exception as error:
              assert error.error_type == "conflict"
              conflicts += 1
      return {"conflicts": conflicts}
"""
    assert run(nodes) == {"conflicts": 1}
    assert memory.retrieve("n")["value"] == 11


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ("[]", "operations must be a list of at least one"),
        ("{store: {key: a, value: 1}}", "operations must be a list"),
        ("[{store: {key: a, value: 1}}, {store: {key: b}}]", "operations[1]: store needs the argument 'value'"),
        ("[{store: {key: a, value: 1}}, {delete: {}}]", "operations[1]: delete needs the argument 'key'"),
        ("[{stor: {key: a, value: 1}}]", "operations[0]: an operation is {store: "),
        ("[{store: {key: a, value: 1}, delete: {key: b}}]", "operations[0]: an operation is {store: "),
        ("[{store: a}]", "operations[0]: an operation is {store: "),
        ("[{store: {key: a, vlaue: 1}}]", "operations[0]: store has no argument 'vlaue'; did you mean `value`?"),
        ("[{delete: {key: a, ttl: 1}}]", "operations[0]: delete has no argument 'ttl'"),
        ("[{store: {key: a, value: 1}}, {store: {key: '', value: 1}}]", "operations[1]: key must not be empty"),
        ("[{store: {key: a, value: 1, expires_at: soon}}]", "operations[0]: expires_at must be a time"),
    ],
)
def test_a_bad_operation_is_named_and_nothing_is_stored(
    run: Run, memory: LTMBackend, operations: str, message: str
) -> None:
    error = failure(run, f"  - {{name: a, uses: ltm.transaction, with: {{operations: {operations}}}}}\n")
    assert error.error_type == "validation_error"
    assert message in str(error)
    assert memory.count()["count"] == 0
