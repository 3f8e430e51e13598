"""A Hypothesis state machine: it makes random calls, and every database must answer each exactly as the model does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import ltm_calls as calls
from databases import expire_all, run_sql
from ltm_calls import CURRENT, EVERY_METHOD, KEYS
from ltm_model import Call, LTMModel
from the_edge_agent.memory import LTMBackend, LTMError


class Memories:
    """The memories that are compared, by name.

    They stay open from one sequence of calls to the next, because to open them takes longer than a sequence.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Any]], lasting: Collection[str] = ()) -> None:
        """Open all memories; ``lasting`` names those that can be closed and opened again."""
        self.lasting = tuple(lasting)
        self.opened: dict[str, Any] = {}
        self._openers = openers
        for name in openers:
            self.open(name)

    def open(self, name: str) -> None:
        """Open a memory, or open it again."""
        self.opened[name] = self._openers[name]()

    def empty(self) -> None:
        """Delete all entries, expired ones too."""
        for name in self.lasting:
            if self.opened[name]._database.closed:  # the last sequence of calls ended with it closed
                self.open(name)
        self._on_each(lambda memory: run_sql(memory, "DELETE FROM ltm_entries"))

    def time_passes(self) -> None:
        """Let every entry that has a lifetime expire."""
        self._on_each(expire_all)

    def _on_each(self, work: Callable[[Any], None]) -> None:
        for name, memory in self.opened.items():
            engine = getattr(memory, "_engine", None)
            assert engine is None or engine.pool.checkedout() == 0, f"{name}: a connection is still in use"
            work(memory)

    def close(self) -> None:
        """Close all memories."""
        for memory in self.opened.values():
            memory.close()


@contextmanager
def opened(openers: Mapping[str, Callable[[], Any]], lasting: Collection[str] = ()) -> Iterator[type[LTMMachine]]:
    """Open memories and yield the class of the machine that calls them."""
    memories = Memories(openers, lasting)

    class Machine(LTMMachine):
        def __init__(self) -> None:
            super().__init__(memories)

    try:
        yield Machine
    finally:
        memories.close()


class LTMMachine(RuleBasedStateMachine):
    """Makes the same calls on every memory and on the model, and compares their answers.

    "Newest first" needs writes at different microseconds, so each write waits for the next microsecond. All entries of
    one transaction are equally new, in the memories and in the model. No test waits until a lifetime of an hour ends:
    an UPDATE lets entries expire.
    """

    def __init__(self, memories: Memories) -> None:
        """Begin with empty memories."""
        super().__init__()
        self._memories, self._model = memories, LTMModel()
        self._reopened = self._refused = False  # each of the two rules runs once in a sequence
        memories.empty()

    @initialize(entries=calls.entries)
    def begin(self, entries: list[dict[str, Any]]) -> None:
        self._write("store_many", entries)

    # --- writes ------------------------------------------------------------------------------------

    @rule(operations=st.lists(calls.operations, min_size=1, max_size=4))
    def alter(self, operations: list[Call]) -> None:
        """Store and delete, one after the other."""
        for method, arguments in operations:
            self._write(method, **self._resolved(arguments))

    @rule(entries=calls.entries)
    def store_many(self, entries: list[dict[str, Any]]) -> None:
        self._write("store_many", entries)

    @rule(keys=st.lists(calls.keys, max_size=5))
    def delete_many(self, keys: list[str]) -> None:
        self._write("delete_many", keys)

    @rule(operations=st.lists(calls.operations, max_size=6), ending=calls.endings)
    def transact(self, operations: list[Call], ending: str) -> None:
        resolved = [(method, self._resolved(arguments)) for method, arguments in operations]
        _wait_for_the_next_microsecond()
        discarded = {"success": True, "discarded": len(operations)}
        expected = self._model.commit(resolved) if ending == "commit" else discarded
        for name, memory in self._memories.opened.items():
            transaction = memory.transaction()
            for method, arguments in resolved:
                queued = getattr(transaction, method)(**arguments)
                _assert_same(name, f"transaction.{method}", queued, {"success": True, "queued": True})
            if ending == "be refused and roll back":
                _assert_refused(name, "transaction.store", transaction.store("", 1), "validation_error")
                _assert_refused(name, "commit", transaction.commit(), "validation_error")
            ended = transaction.commit() if ending == "commit" else transaction.rollback()
            _assert_same(name, ending, ended, expected)
            _assert_refused(name, "second commit", transaction.commit(), "validation_error")
        self._compare_contents()

    # --- reads -------------------------------------------------------------------------------------

    @rule(keys=st.lists(calls.keys, max_size=5), default=calls.values)
    def retrieve(self, keys: list[str], default: Any) -> None:
        self._check("retrieve_many", keys)
        for key in keys:
            self._check("retrieve", key, default)

    @rule(searches=st.lists(calls.searches, min_size=1, max_size=4))
    def search(self, searches: list[dict[str, Any]]) -> None:
        for conditions in searches:
            self._check("search", **conditions)

    @rule(limit=calls.limits, offset=calls.offsets)
    def newest(self, limit: int, offset: int) -> None:
        self._check("search", limit=limit, offset=offset)

    @rule(prefix=calls.prefixes, limit=calls.limits, after=calls.afters)
    def list_keys(self, prefix: str | None, limit: int, after: str | None) -> None:
        self._check("list_keys", prefix, limit, after)

    @rule(prefix=calls.prefixes)
    def count_and_iterate(self, prefix: str | None) -> None:
        self._check("count", prefix)
        expected = {"yielded": self._model.iterate_all(prefix)}
        for name, memory in self._memories.opened.items():
            _assert_same(name, "iterate_all", {"yielded": list(memory.iterate_all(prefix))}, expected)

    # --- time, mistakes, and the end ---------------------------------------------------------------

    @precondition(lambda self: self._model.has_mortals)
    @rule()
    def time_passes(self) -> None:
        self._model.time_passes()
        self._memories.time_passes()
        self._compare_contents()

    @precondition(lambda self: self._model.has_expired)
    @rule(batch_size=st.sampled_from((1, 2, 100)))
    def tidy_up(self, batch_size: int) -> None:
        """Clean up until no expired entry is left, because the database chooses which entries it deletes first."""
        while self._check("cleanup_expired", batch_size)["deleted_count"]:
            pass
        self._compare_contents()

    @precondition(lambda self: not self._refused)
    @rule()
    def refuse_bad_input(self) -> None:
        self._refused = True
        for error_type, method, arguments, options in calls.BAD_CALLS:
            texts = {
                _assert_refused(name, method, _called(memory, method, *arguments, **options), error_type)
                for name, memory in self._memories.opened.items()
            }
            assert len(texts) == 1, f"{method} is refused in different words: {texts}"
        self._compare_contents()

    @precondition(lambda self: self._memories.lasting and not self._reopened)
    @rule(which=st.integers(0, 99))
    def reopen(self, which: int) -> None:
        self._reopened = True
        name = self._memories.lasting[which % len(self._memories.lasting)]
        memory = self._memories.opened[name]
        memory.close()
        memory.close()
        for method, arguments in EVERY_METHOD:
            _assert_refused(name, f"closed {method}", _called(memory, method, *arguments), "connection_error")
        self._memories.open(name)
        self._compare_contents()

    # -----------------------------------------------------------------------------------------------

    def _write(self, method: str, *arguments: Any, **options: Any) -> None:
        _wait_for_the_next_microsecond()
        self._check(method, *arguments, **options)
        self._compare_contents()

    def _compare_contents(self) -> None:
        self._check("retrieve_many", KEYS)

    def _check(self, method: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        expected: dict[str, Any] = getattr(self._model, method)(*arguments, **options)
        for name, memory in self._memories.opened.items():
            _assert_same(name, method, getattr(memory, method)(*arguments, **options), expected)
        return expected

    def _resolved(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("if_version") != CURRENT:
            return arguments
        return {**arguments, "if_version": self._model.version(arguments["key"])}


def _called(memory: LTMBackend, method: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Call a method and return its result; if it raises an ``LTMError``, return the result of the error."""
    try:
        result: dict[str, Any] = getattr(memory, method)(*arguments, **options)
    except LTMError as failure:
        return failure.result
    return result


def _assert_same(name: str, method: str, actual: dict[str, Any], expected: dict[str, Any]) -> None:
    shown = dict(actual)
    if actual.get("success") is False:
        assert isinstance(shown.pop("error", None), str), f"{name}: {method} fails without a text: {actual}"
    texts = [{field: json.dumps(value) for field, value in result.items()} for result in (shown, expected)]
    assert texts[0] == texts[1], f"{name}: {method} gave\n{actual}\nand the model\n{expected}"


def _assert_refused(name: str, method: str, actual: Any, error_type: str) -> str:
    """Check that a call failed with this error type and no further fields; return the text of the error."""
    assert isinstance(actual, dict), f"{name}: {method} was not refused"
    _assert_same(name, method, actual, {"success": False, "error_type": error_type})
    return str(actual["error"])


def _wait_for_the_next_microsecond() -> None:
    before = time.time_ns() // 1000
    while time.time_ns() // 1000 <= before:
        pass
