"""Namespaces, lifetimes, whole entries and imports in the actions of agents."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from databases import Database
from memory_backend import FiveMethods
from memory_catalog import NineMethods
from the_edge_agent import YAMLEngine
from the_edge_agent.memory import LTMBackend, SQLAlchemyBackend, raising
from the_edge_agent.workflow.actions.catalog import CATALOG_ACTIONS
from the_edge_agent.workflow.actions.ltm import LTM_ACTIONS
from workflow_nodes import Run, failure, runner

pytestmark = pytest.mark.targets(portable=False)

UTC = "+00:00"


@pytest.fixture
def memory(database: Database) -> Iterator[LTMBackend]:
    with database.open() as backend:
        yield backend


@pytest.fixture
def run(memory: LTMBackend, tmp_path: Path) -> Run:
    return runner(memory, tmp_path)


def use(action: str, arguments: str = "", output: str = "") -> str:
    """Return a node in YAML that uses an action."""
    named = f", output: {output}" if output else ""
    return f"  - {{name: {output or 'a'}, uses: {action}, with: {{{arguments}}}{named}}}\n"


class TestNamespaces:
    OF_USER = "namespace: [users, '{{ state.user }}']"

    def test_names_may_be_templates(self, run: Run, memory: LTMBackend) -> None:
        nodes = use("ltm.store", f"key: a, value: 1, {self.OF_USER}", "b") + use(
            "ltm.retrieve", f"key: a, {self.OF_USER}"
        )
        assert run(nodes, user="Ana/1")["found"] is True
        assert memory.namespace("users", "Ana/1").retrieve("a")["found"] is True
        assert memory.retrieve("a")["found"] is False

    def test_the_whole_list_may_be_a_template(self, run: Run, memory: LTMBackend) -> None:
        run(use("ltm.store", "key: a, value: 1, namespace: '{{ state.names }}'"), names=["users", "Ana"])
        assert memory.namespace("users", "Ana").count()["count"] == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("namespace: []", "namespace must be a list of at least one name, not an empty list"),
            ("namespace: null", "namespace must be a list of at least one name, not NoneType"),
            ("namespace: users", "namespace must be a list of at least one name, not str"),
            ("namespace: ''", "namespace must be a list of at least one name, not str"),
            ("namespace: {users: Ana}", "namespace must be a list of at least one name, not dict"),
            ("namespace: '{{ state.none }}'", "namespace must be a list of at least one name, not an empty list"),
            ("namespace: [users, '']", "namespace[1] must not be empty"),
            ("namespace: [users, null]", "namespace[1] must be text, not NoneType"),
            ("namespace: [5]", "namespace[0] must be text, not int"),
            ("namespace: [users, '{{ state.number }}']", "namespace[1] must be text, not int"),
            ("namespace: [[users]]", "namespace[0] must be text, not list"),
            ("namespace: ['{{ state.absent | default(\"\") }}']", "namespace[0] must not be empty"),
            ("namespace: ['{{ state.absent | default(none) }}']", "namespace[0] must be text, not NoneType"),
            ("namespace: [\"{{ 'x' if false }}\"]", "namespace[0] must be text, not NoneType"),
            ('namespace: ["a\\0b"]', "NUL"),
        ],
    )
    def test_a_bad_name_never_means_the_whole_memory(
        self, run: Run, memory: LTMBackend, arguments: str, message: str
    ) -> None:
        memory.store("a", 1)
        error = failure(run, use("ltm.delete_all", f"prefix: '', nested: true, {arguments}"), none=[], number=5)
        assert error.error_type == "validation_error"
        assert message in str(error)
        assert memory.count()["count"] == 1

    def test_a_name_that_is_missing_in_the_state_fails_the_node(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", 1)
        error = failure(run, use("ltm.delete_all", f"prefix: '', {self.OF_USER}"))
        assert error.error_type == "template_error"
        assert "`state.user` is missing" in str(error)
        assert memory.count()["count"] == 1

    def test_every_action_of_the_memory_takes_one(self) -> None:
        with YAMLEngine() as engine:
            actions = {name: engine.actions_registry[name] for name in (*LTM_ACTIONS, *CATALOG_ACTIONS)}
            for name, action in actions.items():
                assert "namespace" in inspect.signature(action).parameters, name
                result = action({}, namespace=[""], **_required(action))
                assert result["error_type"] == "validation_error", name

    def test_a_memory_without_namespaces_says_so(self) -> None:
        with YAMLEngine(ltm_backend=FiveMethods()) as engine:
            result = engine.actions_registry["ltm.count"]({}, namespace=["a"])
            assert result["error_type"] == "validation_error"
            assert "namespaces" in result["error"]
            assert engine.actions_registry["ltm.count"]({})["count"] == 0

    def test_nested_reads_and_deletes_the_namespaces_below(self, run: Run, memory: LTMBackend) -> None:
        memory.namespace("users", "Ana").store("a", "red fox")
        memory.namespace("users", "Bea").store("b", "red hen")
        memory.store("c", "red")
        users = "nested: true, namespace: [users]"
        state = run(
            use("ltm.count", users, "number")
            + use("ltm.search", f"query: red fox, {users}", "found")
            + use("ltm.entries", users, "listed")
            + use("ltm.delete_all", f"prefix: '', {users}", "deleted")
        )
        assert state["number"]["count"] == 2
        assert [(each["namespace"], each["key"]) for each in state["found"]["results"]] == [
            (["Ana"], "a"),
            (["Bea"], "b"),
        ]
        assert [(each["namespace"], each["key"]) for each in state["listed"]["entries"]] == [
            (["Ana"], "a"),
            (["Bea"], "b"),
        ]
        assert state["deleted"] == {"success": True, "deleted_count": 2}
        assert memory.list_keys()["keys"] == ["c"]

    def test_namespaces_are_listed_as_lists(self, run: Run, memory: LTMBackend) -> None:
        for names in (["users", "Ana"], ["users", "Bea", "notes"], ["teams"]):
            memory.namespace(*names).store("a", 1)
        state = run(
            use("ltm.list_namespaces", "", "all")
            + use("ltm.list_namespaces", "prefix: ['*', Bea], max_depth: 2, limit: 5", "some")
            + use("ltm.list_namespaces", "suffix: [notes], namespace: [users]", "below")
        )
        every = [["teams"], ["users", "Ana"], ["users", "Bea", "notes"]]
        assert state["all"] == {"success": True, "namespaces": every, "count": 3}
        assert state["some"]["namespaces"] == [["users", "Bea"]]
        assert state["below"]["namespaces"] == [["Bea", "notes"]]


class TestLifetimes:
    def test_a_lifetime_of_null_is_never_and_none_at_all_is_that_of_the_memory(self) -> None:
        with SQLAlchemyBackend("sqlite://", ttl=60) as memory, YAMLEngine(ltm_backend=memory) as engine:
            nodes: list[dict[str, Any]] = [
                {"name": "a", "uses": "ltm.store", "with": {"key": "a", "value": 1}},
                {"name": "b", "uses": "ltm.store", "with": {"key": "b", "value": 1, "ttl": None}},
                {"name": "c", "uses": "ltm.store", "with": {"key": "c", "value": 1, "ttl": 5}},
                {
                    "name": "d",
                    "uses": "ltm.store_many",
                    "with": {"entries": [{"key": "d", "value": 1}, {"key": "e", "value": 1, "ttl": None}]},
                },
            ]
            list(engine.load_from_dict({"nodes": nodes}).invoke())
            ttls = {entry["key"]: entry["ttl"] for entry in memory.iterate_entries()}
        assert ttls == {"a": 60.0, "b": None, "c": 5.0, "d": 60.0, "e": None}

    def test_settings_give_the_lifetime(self, tmp_path: Path) -> None:
        settings = {"ltm": {"url": f"sqlite:///{tmp_path}/m.db", "ttl": 86400, "errors": "raise"}}
        nodes: list[dict[str, Any]] = [
            {"name": "a", "uses": "ltm.store", "with": {"key": "a", "value": 1}},
            {"name": "b", "uses": "ltm.entries", "output": "listed"},
        ]
        with YAMLEngine() as engine:
            [final] = engine.load_from_dict({"settings": settings, "nodes": nodes}).invoke()
        assert [entry["ttl"] for entry in final["state"]["listed"]["entries"]] == [86400.0]

    def test_touch_renews_a_lifetime(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", 1, ttl=60)
        memory.store("b", 1)
        state = run(
            use("ltm.touch", "key: a, ttl: 3600", "longer")
            + use("ltm.touch", "key: a", "again")
            + use("ltm.touch", "key: b", "never")
            + use("ltm.touch", "key: c", "missing")
        )
        for result in (state["longer"], state["again"]):
            left = datetime.fromisoformat(result["expires_at"]) - datetime.now(timezone.utc)
            assert timedelta(minutes=50) < left < timedelta(minutes=70)
            assert result["expires_at"].endswith(UTC)
        assert state["never"] == {"success": True, "key": "b", "found": True, "expires_at": None}
        assert state["missing"] == {"success": True, "key": "c", "found": False, "expires_at": None}

    def test_reads_and_searches_can_renew_lifetimes_too(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", "fox", ttl=3600)
        before = memory.retrieve("a", times=True)["expires_at"]
        assert before is not None
        read = run(use("ltm.retrieve", "key: a, times: true, refresh_ttl: true"))
        found = run(use("ltm.search", "query: fox, refresh_ttl: true"))["results"][0]
        assert before <= datetime.fromisoformat(read["expires_at"]) <= datetime.fromisoformat(found["expires_at"])

    def test_delete_can_require_a_version(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", 1)
        assert failure(run, use("ltm.delete", "key: a, if_version: 2")).error_type == "conflict"
        assert run(use("ltm.delete", "key: a, if_version: 1"))["deleted"] is True

    def test_words_can_be_left_out_of_the_index(self, run: Run, memory: LTMBackend) -> None:
        run(use("ltm.store", "key: a, value: fox, index: false") + use("ltm.store", "key: b, value: fox", "b"))
        assert [entry["key"] for entry in memory.search("fox")["results"]] == ["b"]


class TestTimes:
    TIMES = ("created_at", "updated_at", "expires_at")

    def test_times_are_text(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", "fox", ttl=60)
        state = run(
            use("ltm.retrieve", "key: a, times: true", "one")
            + use("ltm.retrieve_many", "keys: [a, b], times: true", "many")
            + use("ltm.search", "query: fox", "found")
            + use("ltm.entries", "", "listed")
        )
        entry: Any = next(memory.iterate_entries())
        expected = {name: entry[name].isoformat(timespec="microseconds") for name in self.TIMES}
        assert state["many"]["entries"]["b"] is None
        for shown in (state["one"], state["many"]["entries"]["a"], state["found"]["results"][0]):
            assert {name: shown[name] for name in self.TIMES} == expected
        assert state["listed"] == {"success": True, "entries": [{**entry, **expected}], "next": None}

    def test_without_times_there_are_none(self, run: Run, memory: LTMBackend) -> None:
        memory.store("a", 1)
        assert run(use("ltm.retrieve", "key: a")).keys() == {"success", "value", "found", "metadata", "version"}

    def test_a_missing_entry_has_no_times(self, run: Run) -> None:
        result = run(use("ltm.retrieve", "key: a, times: true"))
        assert [result[name] for name in self.TIMES] == [None, None, None]


class TestEntries:
    def test_pages_have_an_order(self, run: Run, memory: LTMBackend) -> None:
        for key in ("n/b", "n/a", "n/c", "m"):
            memory.store(key, 1)

        def keys(arguments: str) -> list[str]:
            return [entry["key"] for entry in run(use("ltm.entries", f"prefix: n/, {arguments}"))["entries"]]

        assert keys("order: key") == ["n/a", "n/b", "n/c"]
        assert keys("order: newest, limit: 2") == ["n/c", "n/a"]
        state = run(
            use("ltm.entries", "prefix: n/, order: '-key', limit: 2", "first")
            + use("ltm.entries", "prefix: n/, order: '-key', after: '{{ state.first.next }}'", "second")
        )
        assert [entry["key"] for entry in state["second"]["entries"]] == ["n/a"]
        assert failure(run, use("ltm.entries", "order: oldest")).error_type == "validation_error"

    def test_what_was_listed_can_be_imported(self, run: Run, memory: LTMBackend) -> None:
        memory.namespace("old").store("a", {"x": [1, None]}, {"m": 1}, ttl=60)
        memory.namespace("old", "deep").store("b", 2, index=False)
        before = [*memory.namespace("old").iterate_entries(nested=True)]
        state = run(
            use("ltm.entries", "nested: true, namespace: [old]", "listed")
            + use("ltm.import", "entries: '{{ state.listed.entries }}', namespace: [new]", "copied")
            + use("ltm.import", "entries: '{{ state.listed.entries }}', namespace: [new], on_conflict: skip", "again")
        )
        assert state["copied"] == {"success": True, "imported_count": 2, "skipped_count": 0, "replaced_count": 0}
        assert state["again"]["skipped_count"] == 2
        assert [*memory.namespace("new").iterate_entries(nested=True)] == before

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ("[{key: a, value: 1}, {key: b, value: 1, created_at: soon}]", "entries[1]: created_at must be a time"),
            ("[{key: a}]", "entries[0]"),
            ("nothing", "entries must be a list"),
            ("[5]", "entries[0]"),
        ],
    )
    def test_a_bad_entry_is_named(self, run: Run, memory: LTMBackend, entries: str, message: str) -> None:
        error = failure(run, use("ltm.import", f"entries: {entries}"))
        assert error.error_type == "validation_error"
        assert message in str(error)
        assert memory.count()["count"] == 0

    def test_delete_all_needs_a_prefix(self, run: Run, memory: LTMBackend) -> None:
        memory.store_many([{"key": key, "value": 1} for key in ("a/1", "a/2", "b")])
        assert failure(run, use("ltm.delete_all", "prefix: null")).error_type == "validation_error"
        assert run(use("ltm.delete_all", "prefix: a/"))["deleted_count"] == 2
        assert memory.list_keys()["keys"] == ["b"]

    def test_run_code_calls_them(self, run: Run) -> None:
        code = (
            "  - name: a\n    run: |\n"
            "      actions.ltm_store('a', 1, ttl=60, namespace=['n'])\n"
            "      names = actions.ltm_list_namespaces()['namespaces']\n"
            "      found = actions.ltm_touch('a', namespace=['n'])['found']\n"
            "      copy = actions.ltm_entries(nested=True)['entries']\n"
            "      number = actions.ltm_import(copy, 'replace')['replaced_count']\n"
            "      gone = actions.ltm_delete_all('', nested=True)['deleted_count']\n"
        )
        state = run(code)
        del state["copy"]
        assert state == {"names": [["n"]], "found": True, "number": 1, "gone": 1}


class TestCatalogs:
    @pytest.fixture(
        params=[NineMethods, lambda: raising(NineMethods()), lambda: "sqlalchemy"],
        ids=["of a third party", "that raises", "of our own"],
    )
    def engine(self, request: pytest.FixtureRequest) -> Iterator[YAMLEngine]:
        with (
            SQLAlchemyBackend("sqlite://", catalog=request.param()) as memory,
            YAMLEngine(ltm_backend=memory) as engine,
        ):
            memory.namespace("users").store("a", 1)
            memory.store("b", 1)
            yield engine

    def test_a_namespace_has_its_part_of_the_catalog(self, engine: YAMLEngine) -> None:
        def call(action: str, **arguments: Any) -> dict[str, Any]:
            result: dict[str, Any] = engine.actions_registry[f"catalog.{action}"]({}, namespace=["users"], **arguments)
            return result

        assert [entry["key"] for entry in call("list")["entries"]] == ["a"]
        assert call("get", key="a")["entry"]["key"] == "a"
        assert call("track", key="c", value=1)["created"] is True
        assert call("snapshot", name="s")["success"] is True
        assert [entry["key"] for entry in call("changes")["changed"]] == ["a", "c"]
        assert call("delete", key="c")["deleted"] is True
        assert call("get", key="")["error_type"] == "validation_error"


def _required(action: Any) -> dict[str, Any]:
    parameters = [*inspect.signature(action).parameters.values()][1:]
    return {each.name: "a" for each in parameters if each.default is each.empty}
