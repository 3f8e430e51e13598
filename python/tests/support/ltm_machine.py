"""A Hypothesis state machine: it makes random calls, and every database must answer each exactly as the model does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeAlias

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import ltm_calls as calls
from databases import expire_all, run_sql
from ltm_calls import CURRENT, EVERY_METHOD, PREFIXES
from ltm_model import Call, LTMModel
from the_edge_agent.memory import LTMBackend, LTMError

Names: TypeAlias = tuple[str, ...]

MODEL: Final = "the model"


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

    @rule(operations=st.lists(calls.operations, min_size=1, max_size=4), names=calls.namespaces)
    def alter(self, operations: list[Call], names: Names) -> None:
        """Store and delete, one after the other."""
        for method, arguments in operations:
            self._write(method, names=names, **self._resolved(arguments, names))

    @rule(entries=calls.entries, names=calls.namespaces)
    def store_many(self, entries: list[dict[str, Any]], names: Names) -> None:
        self._write("store_many", entries, names=names)

    @rule(keys=st.lists(calls.keys, max_size=5), names=calls.namespaces)
    def delete_many(self, keys: list[str], names: Names) -> None:
        self._write("delete_many", keys, names=names)

    @rule(prefix=st.sampled_from(PREFIXES), names=calls.namespaces, nested=calls.nested)
    def delete_all(self, prefix: str, names: Names, nested: bool) -> None:
        self._write("delete_all", "" if nested else prefix, nested=nested, names=names)

    @rule(touches=st.lists(calls.touches, min_size=1, max_size=3), names=calls.namespaces)
    def touch(self, touches: list[tuple[str, Any]], names: Names) -> None:
        for key, ttl in touches:
            self._write("touch", key, ttl, names=names)

    @rule(entries=calls.copies, on_conflict=calls.ways, names=calls.namespaces)
    def import_entries(self, entries: list[dict[str, Any]], on_conflict: str, names: Names) -> None:
        """Import entries. A memory chooses which of several conflicts it reports, so only one can be in conflict."""
        there = {(key, namespace) for key, _, _, namespace in self._model.namespace(*names).iterate_all(nested=True)}
        places = [(entry["key"], tuple(entry.get("namespace", ()))) for entry in entries]
        conflicts = [place for number, place in enumerate(places) if place in there or place in places[:number]]
        self._write("import_entries", entries, on_conflict if len(conflicts) < 2 else "replace", names=names)

    @rule(origin=calls.namespaces, names=calls.namespaces, on_conflict=st.sampled_from(("skip", "replace")))
    def copy(self, origin: Names, names: Names, on_conflict: str) -> None:
        """Copy the entries of a namespace into another one."""
        _wait_for_the_next_microsecond()
        results = {
            name: memory.namespace(*names).import_entries(
                [*memory.namespace(*origin).iterate_entries(prefix="a")], on_conflict
            )
            for name, memory in self._all()
        }
        for name, result in results.items():
            _assert_same(name, "import_entries", result, results[MODEL])
        self._compare_contents()

    @rule(operations=st.lists(calls.operations, max_size=6), ending=calls.endings, names=calls.namespaces)
    def transact(self, operations: list[Call], ending: str, names: Names) -> None:
        resolved = [(method, self._resolved(arguments, names)) for method, arguments in operations]
        _wait_for_the_next_microsecond()
        expected: dict[str, Any] = {}
        for name, memory in self._all():
            transaction = memory.namespace(*names).transaction()
            for method, arguments in resolved:
                queued = getattr(transaction, method)(**arguments)
                _assert_same(name, f"transaction.{method}", queued, {"success": True, "queued": True})
            if ending == "be refused and roll back":
                _assert_refused(name, "transaction.store", transaction.store("", 1), "validation_error")
                _assert_refused(name, "commit", transaction.commit(), "validation_error")
            ended = transaction.commit() if ending == "commit" else transaction.rollback()
            expected = expected or ended  # that of the model, which is first
            _assert_same(name, ending, ended, expected)
            _assert_refused(name, "second commit", transaction.commit(), "validation_error")
        self._compare_contents()

    # --- reads -------------------------------------------------------------------------------------

    @rule(
        keys=st.lists(calls.keys, max_size=5),
        default=calls.values,
        names=calls.namespaces,
        times=st.booleans(),
        refresh=st.booleans(),
    )
    def retrieve(self, keys: list[str], default: Any, names: Names, times: bool, refresh: bool) -> None:
        self._check("retrieve_many", keys, names=names)
        self._check("retrieve_many", keys, times=times, names=names)
        for key in keys:
            self._check("retrieve", key, default, times=times, refresh_ttl=refresh, names=names)

    @rule(searches=st.lists(calls.searches, min_size=1, max_size=4), names=calls.namespaces, nested=calls.nested)
    def search(self, searches: list[dict[str, Any]], names: Names, nested: bool) -> None:
        for conditions in searches:
            self._check(
                "search", **{**conditions, "prefix": None} if nested else conditions, nested=nested, names=names
            )

    @rule(limit=calls.limits, offset=calls.offsets, names=calls.namespaces, refresh=st.booleans())
    def newest(self, limit: int, offset: int, names: Names, refresh: bool) -> None:
        self._check("search", limit=limit, offset=offset, refresh_ttl=refresh, names=names)

    @rule(prefix=calls.prefixes, limit=calls.limits, after=calls.afters, names=calls.namespaces)
    def list_keys(self, prefix: str | None, limit: int, after: str | None, names: Names) -> None:
        self._check("list_keys", prefix, limit, after, names=names)
        for order in ("key", "-key"):
            self._check("entries", prefix, limit, after, order, names=names)

    @rule(prefix=calls.prefixes, limit=calls.limits, order=calls.orders, nested=calls.nested, names=calls.namespaces)
    def pages(self, prefix: str | None, limit: int, order: str, nested: bool, names: Names) -> None:
        """Compare all pages; the text of ``next`` has the time of an entry, which is another one in each memory."""
        expected: dict[str, Any] = {}
        for name, memory in self._all():
            pages, after = list[Any](), None
            while not pages or after is not None:
                begin = None if nested else prefix
                page = memory.namespace(*names).entries(begin, limit, after, order, nested=nested)
                assert page["success"], f"{name}: entries gave\n{page}"
                pages.append(page["entries"])
                after = page["next"]
            expected = expected or {"pages": pages}
            _assert_same(name, "entries", {"pages": pages}, expected)

    @rule(prefix=calls.prefixes, names=calls.namespaces, nested=calls.nested)
    def count_and_iterate(self, prefix: str | None, names: Names, nested: bool) -> None:
        begin = None if nested else prefix
        self._check("count", begin, nested=nested, names=names)
        for method in ("iterate_all", "iterate_entries"):
            self._check_items(method, begin, nested=nested, names=names)

    @rule(conditions=calls.listings, names=calls.namespaces)
    def list_namespaces(self, conditions: dict[str, Any], names: Names) -> None:
        self._check("list_namespaces", names=names, **conditions)

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

    def _write(self, method: str, *arguments: Any, names: Names = (), **options: Any) -> None:
        _wait_for_the_next_microsecond()
        self._check(method, *arguments, names=names, **options)
        self._compare_contents()

    def _compare_contents(self) -> None:
        """Compare every whole entry of every namespace."""
        self._check_items("iterate_entries")

    def _check(self, method: str, *arguments: Any, names: Names = (), **options: Any) -> dict[str, Any]:
        """Make a call on the model and on each memory, in one namespace; return the answer of the model."""
        expected: dict[str, Any] = {}
        for name, memory in self._all():
            answer = getattr(memory.namespace(*names), method)(*arguments, **options)
            expected = expected or answer  # that of the model, which is first
            _assert_same(name, method, answer, expected)
        return expected

    def _check_items(self, method: str, *arguments: Any, names: Names = (), **options: Any) -> None:
        expected: dict[str, Any] = {}
        for name, memory in self._all():
            items = {"yielded": [*getattr(memory.namespace(*names), method)(*arguments, **options)]}
            expected = expected or items
            _assert_same(name, method, items, expected)

    def _all(self) -> list[tuple[str, Any]]:
        """Return the model and the memories by name, the model first."""
        return [(MODEL, self._model), *self._memories.opened.items()]

    def _resolved(self, arguments: dict[str, Any], names: Names) -> dict[str, Any]:
        if arguments.get("if_version") != CURRENT:
            return arguments
        return {**arguments, "if_version": self._model.namespace(*names).version(arguments["key"])}


def _called(memory: LTMBackend, method: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Call a method and return its result; if it raises an ``LTMError``, return the result of the error."""
    try:
        result: dict[str, Any] = getattr(memory, method)(*arguments, **options)
    except LTMError as failure:
        return failure.result
    return result


def _assert_same(name: str, method: str, actual: dict[str, Any], expected: dict[str, Any]) -> None:
    has_text = actual.get("success") is not False or isinstance(actual.get("error"), str)
    assert has_text, f"{name}: {method} fails without a text: {actual}"
    texts = [
        {field: json.dumps(_shown(value)) for field, value in result.items() if field != "error"}
        for result in (actual, expected)
    ]
    assert texts[0] == texts[1], f"{name}: {method} gave\n{actual}\nand the model\n{expected}"


def _shown(value: Any) -> Any:
    """Return a value with its times as they are the same in all memories.

    A time that a test has chosen stays as it is. A time of a write, or the end of a lifetime, becomes its distance from
    now in hours. Two times of writes that belong to one entry are compared.
    """
    if isinstance(value, datetime):
        assert value.tzinfo is timezone.utc, value
        is_chosen = not 2010 < value.year < 2090
        return value.isoformat() if is_chosen else round((value - datetime.now(timezone.utc)) / timedelta(hours=1))
    if isinstance(value, tuple):
        return ["tuple", *map(_shown, value)]
    if isinstance(value, list):
        return [*map(_shown, value)]
    if isinstance(value, dict):
        shown = {field: _shown(part) for field, part in value.items()}
        if isinstance(value.get("created_at"), datetime) and isinstance(value.get("updated_at"), datetime):
            shown["was updated"] = value["created_at"] < value["updated_at"]
        return shown
    return value


def _assert_refused(name: str, method: str, actual: Any, error_type: str) -> str:
    """Check that a call failed with this error type and no further fields; return the text of the error."""
    assert isinstance(actual, dict), f"{name}: {method} was not refused"
    _assert_same(name, method, actual, {"success": False, "error_type": error_type})
    return str(actual["error"])


def _wait_for_the_next_microsecond() -> None:
    before = time.time_ns() // 1000
    while time.time_ns() // 1000 <= before:
        pass
