"""The engine and its memory: who creates it, who closes it, and what the actions return."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import the_edge_agent.workflow.engine as engine_module
from the_edge_agent import NodeError, WorkflowFileError, YAMLEngine
from the_edge_agent.memory import LTMBackend, LTMError, register_backend
from the_edge_agent.workflow.actions.ltm import LTM_ACTIONS

AGENT = {"nodes": [{"name": "a", "run": "x = 1"}]}


class Recorder(LTMBackend):
    """A memory that keeps nothing and notes what happens to it and to its like."""

    log: ClassVar[list[str]] = []

    def __init__(self, *, name: str = "memory", broken: bool = False) -> None:
        if broken:
            raise LTMError("connection_error", "can't reach the database at db.example")
        self.name = name
        self.log.append(f"made {name}")

    def store(
        self,
        key: str,
        value: Any,
        metadata: dict[str, Any] | None = None,
        *,
        ttl: Any = None,
        if_version: int | None = None,
        expires_at: datetime | None = None,
        **_: Any,
    ) -> Any:
        return {"success": True, "by": self.name, "arguments": [key, value, metadata, ttl, if_version]}

    def retrieve(self, key: str, default: Any = None, **_: Any) -> Any:
        return {"success": True, "by": self.name, "arguments": [key, default]}

    def delete(self, key: str, **_: Any) -> Any:
        return {"success": False, "error": f"{self.name} is read-only", "error_type": "query_error"}

    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        match: Literal["any", "all"] | None = None,
        prefix: str | None = None,
        offset: int = 0,
        explain: bool = False,
        **_: Any,
    ) -> Any:
        return {"success": True, "arguments": [query, metadata_filter, limit, prefix, offset]}

    def close(self) -> None:
        self.log.append(f"closed {self.name}")


@pytest.fixture(autouse=True)
def log() -> list[str]:
    register_backend("recorder", Recorder)
    Recorder.log.clear()
    return Recorder.log


def agent_with(**ltm: Any) -> dict[str, Any]:
    return {**AGENT, "settings": {"ltm": {"backend": "recorder", **ltm}}}


def name_of(backend: LTMBackend | None) -> str:
    assert isinstance(backend, Recorder)
    return backend.name


class TestWhichMemory:
    def test_without_settings_it_is_made_when_it_is_first_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        created: list[Any] = []

        def create(kind: str, **options: Any) -> LTMBackend:
            created.append((kind, options))
            return Recorder()

        monkeypatch.setattr(engine_module, "create_ltm_backend", create)
        with YAMLEngine() as engine:
            list(engine.load_from_dict(AGENT).invoke())
            assert created == []
            engine.actions_registry["ltm.retrieve"]({}, key="k")
            engine.actions_registry["ltm.retrieve"]({}, key="k")
            assert created == [("sqlite", {})]
            assert engine.ltm_backend is engine.ltm_backend
        assert Recorder.log == ["made memory", "closed memory"]

    def test_without_the_extra_only_the_memory_fails_and_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def create(kind: str, **options: Any) -> LTMBackend:
            raise ImportError("pip install 'the-edge-agent[sqlalchemy]'")

        monkeypatch.setattr(engine_module, "create_ltm_backend", create)
        with YAMLEngine() as engine:
            list(engine.load_from_dict(AGENT).invoke())
            with pytest.raises(NodeError) as caught:
                list(engine.load_from_dict({"nodes": [{"name": "s", "uses": "ltm.search"}]}).invoke())
        assert caught.value.error_type == "dependency_missing"
        assert "node `s`: `ltm.search` failed: pip install 'the-edge-agent[sqlalchemy]'" in str(caught.value)

    def test_settings_configure_it(self, log: list[str]) -> None:
        with YAMLEngine() as engine:
            engine.load_from_dict(agent_with(name="one"))
            assert log == ["made one"]
            assert name_of(engine.ltm_backend) == "one"
        assert log == ["made one", "closed one"]

    def test_a_second_file_replaces_it_and_the_new_one_is_made_before_the_old_one_is_closed(
        self, log: list[str]
    ) -> None:
        with YAMLEngine() as engine:
            engine.load_from_dict(agent_with(name="one"))
            engine.load_from_dict(agent_with(name="two"))
            assert log == ["made one", "made two", "closed one"]
            engine.load_from_dict(AGENT)
            assert name_of(engine.ltm_backend) == "two", "a file without settings leaves it"

    @pytest.mark.parametrize(
        "second", [agent_with(broken=True), {**agent_with(name="two"), "nodes": []}], ids=["ltm", "file"]
    )
    def test_a_file_that_fails_to_load_leaves_the_old_one_in_use(self, log: list[str], second: dict[str, Any]) -> None:
        with YAMLEngine() as engine:
            engine.load_from_dict(agent_with(name="one"))
            with pytest.raises(WorkflowFileError):
                engine.load_from_dict(second)
            assert name_of(engine.ltm_backend) == "one"
            assert log == ["made one"]

    def test_one_that_is_given_is_used_and_never_closed(self, log: list[str]) -> None:
        memory = Recorder(name="given")
        with YAMLEngine(ltm_backend=memory) as engine:
            assert engine.ltm_backend is memory
            assert engine.actions_registry["ltm.retrieve"]({}, key="k")["by"] == "given"
            with pytest.raises(
                WorkflowFileError, match=r"`settings\.ltm` can't replace the memory that the host gives"
            ):
                engine.load_from_dict(agent_with(name="one"))
            assert engine.ltm_backend is memory
        with YAMLEngine(ltm_backend=memory):
            pass
        assert log == ["made given"]

    def test_one_that_is_configured_in_python_is_closed(self, log: list[str]) -> None:
        with YAMLEngine(ltm_backend_type="recorder", ltm_config={"name": "one"}) as engine:
            assert name_of(engine.ltm_backend) == "one"
        assert log == ["made one", "closed one"]

    def test_one_that_is_configured_wrongly_in_python_raises(self) -> None:
        with pytest.raises(LTMError):
            YAMLEngine(ltm_backend_type="recorder", ltm_config={"nmae": "one"})

    def test_a_path_is_an_sqlite_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a folder" / "ümlaut.db"
        path.parent.mkdir()
        with YAMLEngine(ltm_path=path) as engine:
            assert engine.actions_registry["ltm.store"]({}, key="k", value=1)["created"] is True
        assert path.read_bytes().startswith(b"SQLite format 3")
        with YAMLEngine(ltm_path=str(path)) as engine:
            assert engine.actions_registry["ltm.retrieve"]({}, key="k")["value"] == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"ltm_path": "x.db", "ltm_config": {}},
            {"ltm_path": "x.db", "ltm_backend": Recorder()},
            {"ltm_config": {}, "ltm_backend": Recorder()},
            {"ltm_backend_type": "recorder", "ltm_backend": Recorder()},
        ],
        ids=lambda options: "+".join(options),
    )
    def test_two_memories_at_once_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="ltm_"):
            YAMLEngine(**options)

    @pytest.mark.parametrize(
        "words",
        [
            {"enable_tracing": False, "trace_exporter": "console", "trace_verbose": True},
            {"enable_graph": False, "graph_path": "graph.db", "graph_backend_type": "kuzu"},
            {"enable_metadata_store": False, "enable_blob_storage": False, "enable_query_engine": False},
            {"enable_vector_index": False, "embedding_fn": len, "enable_code_execution": False},
            {"lua_enabled": False, "lua_timeout": 30.0, "prolog_timeout": 5, "prolog_sandbox": True},
            {"opik_enabled": False, "opik_api_key": "key", "opik_llm_tracing": True},
            {"graph_backend": None, "memory_backend": None, "trace_exporter": None, "opik_trace_export": False},
        ],
        ids=lambda words: "+".join(words),
    )
    def test_words_that_switch_off_a_part_that_there_is_not_are_taken(self, words: dict[str, Any]) -> None:
        with YAMLEngine(**words) as engine:
            assert engine.ltm_backend is not None

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            ({"enable_graph": True}, "`enable_graph`: there are no graph databases here"),
            ({"graph_path": "secret.db"}, "`graph_path`: there are no graph databases here"),
            ({"enable_tracing": True, "trace_exporter": "console"}, "`enable_tracing`: there is no tracing here"),
            ({"opik_enabled": None, "vector_index": object()}, "`vector_index`: there is no vector index here"),
            ({"lua_enabled": True, "lua_timeout": 1.0}, "`lua_enabled`: there is no Lua here"),
            ({"opik_api_key": "secret"}, "`opik_api_key`: there is no Opik here"),
            ({"memory_backend": object()}, "`memory_backend`: there is no memory for one session here"),
        ],
        ids=lambda case: "+".join(case) if isinstance(case, dict) else "",
    )
    def test_words_that_switch_such_a_part_on_are_refused_by_name(self, words: dict[str, Any], named: str) -> None:
        with pytest.raises(ValueError, match=named) as caught:
            YAMLEngine(**words)
        assert "secret" not in str(caught.value)

    def test_an_unknown_word_is_a_type_error_that_names_the_nearest(self) -> None:
        with pytest.raises(TypeError, match="'enable_ltn'; did you mean `enable_ltm`"):
            YAMLEngine(enable_ltn=False)

    def test_actions_of_a_program_are_there_from_the_beginning(self) -> None:
        def double(state: dict[str, Any], number: int) -> dict[str, Any]:
            return {"success": True, "doubled": 2 * number}

        node = {"name": "n", "uses": "my.double", "with": {"number": 4}, "output": "found"}
        with YAMLEngine(actions_registry={"my.double": double}) as engine:
            *_, last = engine.load_from_dict({"nodes": [node]}).invoke()
        assert last["state"]["found"]["doubled"] == 8

    def test_switched_off_it_is_not_made_and_its_actions_fail(self, log: list[str]) -> None:
        with YAMLEngine(enable_ltm=False, ltm_backend_type="recorder") as engine:
            engine.load_from_dict(agent_with())
            assert engine.ltm_backend is None
            result = engine.actions_registry["ltm.retrieve"]({}, key="k")
        assert (result["success"], result["error_type"], log) == (False, "configuration_error", [])

    def test_after_close_its_actions_fail_and_closing_again_is_fine(self, log: list[str]) -> None:
        engine = YAMLEngine(ltm_backend_type="recorder")
        engine.close()
        engine.close()
        assert log == ["made memory", "closed memory"]
        assert engine.actions_registry["ltm.retrieve"]({}, key="k")["error_type"] == "connection_error"
        with pytest.raises(WorkflowFileError, match="the engine is closed"):
            engine.load_from_dict(agent_with())


class TestBadSettings:
    @pytest.mark.parametrize(
        ("ltm", "words"),
        [
            ({"backend": "sqlalchemy", "url": "sqlite://", "pool_sise": 3}, ["pool_sise", "pool_size"]),
            ({"backend": "sqlalchemy", "url": "sqlite://", "pool_size": "many"}, ["pool_size"]),
            ({"backend": "sqlalchemi", "url": "sqlite://"}, ["sqlalchemi", "sqlalchemy"]),
            ({"backend": "sqlalchemy"}, ["url"]),
            ({"backend": "sqlalchemy", "url": "sqlite:////nowhere/at/all.db"}, []),
            ({"backend": "recorder", "broken": True}, ["can't reach the database"]),
        ],
        ids=lambda case: "-".join(map(str, case)),
    )
    def test_loading_stops_with_one_message_that_names_the_key(
        self, tmp_path: Path, ltm: Any, words: list[str]
    ) -> None:
        lines = "".join(f"    {key}: {value}\n" for key, value in ltm.items())
        path = tmp_path / "agent.yaml"
        path.write_text(f"settings:\n  ltm:\n{lines}nodes:\n  - {{name: a, run: x = 1}}\n")
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_file(path)
        message = str(caught.value)
        assert message.startswith(f"{path}:2:3: settings.ltm")
        assert "\n" not in message
        for word in words:
            assert word in message

    @pytest.mark.parametrize("ltm", ["text", [1], 5])
    def test_it_is_a_mapping(self, ltm: Any) -> None:
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError, match="ltm"):
            engine.load_from_dict({**AGENT, "settings": {"ltm": ltm}})

    def test_a_lazy_one_need_not_be_reachable_until_it_is_used(self) -> None:
        ltm = {"backend": "sqlalchemy", "url": "sqlite:////nowhere/at/all.db", "lazy": True}
        with YAMLEngine() as engine:
            graph = engine.load_from_dict({"settings": {"ltm": ltm}, "nodes": [{"name": "s", "uses": "ltm.search"}]})
            with pytest.raises(NodeError, match=r"node `s`: `ltm\.search` failed"):
                list(graph.invoke())

    @pytest.mark.parametrize("extra", [{}, {"pool_sise": 1}, {"pool_size": "x"}], ids=repr)
    def test_no_message_shows_the_password(self, extra: dict[str, Any]) -> None:
        ltm = {"backend": "sqlalchemy", "url": "postgresql://me:s3cr%40t@127.0.0.1:1/db", **extra}
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_dict({**AGENT, "settings": {"ltm": ltm}})
        assert "s3cr" not in str(caught.value)


class TestEnvironment:
    def test_variables_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEA_TEST_NAME", "Ana")
        monkeypatch.delenv("TEA_TEST_MISSING", raising=False)
        variables = {"name": "${TEA_TEST_NAME}", "deep": ["${TEA_TEST_MISSING:-nobody}"], "n": "${TEA_TEST_MISSING:-5}"}
        with YAMLEngine() as engine:
            graph = engine.load_from_dict({"variables": variables, "nodes": [{"name": "a", "run": "v = variables"}]})
            assert next(graph.invoke())["state"]["v"] == {"name": "Ana", "deep": ["nobody"], "n": 5}

    def test_a_variable_that_is_not_set_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TEA_TEST_MISSING", raising=False)
        path = tmp_path / "agent.yaml"
        path.write_text('nodes: [{name: a, run: x = 1}]\nvariables: {deep: ["${TEA_TEST_MISSING}"]}\n')
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_file(path)
        assert str(caught.value).startswith(f"{path}:2:20: the environment variable TEA_TEST_MISSING is not set")

    def test_settings_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
        monkeypatch.setenv("TEA_TEST_NAME", "from-env")
        with YAMLEngine() as engine:
            engine.load_from_dict(agent_with(name="${TEA_TEST_NAME}"))
        assert log == ["made from-env", "closed from-env"]

    def test_state_does_not(self) -> None:
        config = {"initial_state": {"x": "${HOME}"}, "nodes": [{"name": "a", "run": "y = state['x']"}]}
        with YAMLEngine() as engine:
            assert next(engine.load_from_dict(config).invoke())["state"]["y"] == "${HOME}"


class TestActions:
    @pytest.mark.parametrize("name", [name.removeprefix("ltm.") for name in LTM_ACTIONS])
    def test_each_has_two_names(self, name: str) -> None:
        with YAMLEngine() as engine:
            assert engine.actions_registry[f"ltm.{name}"] is engine.actions_registry[f"actions.ltm_{name}"]

    def test_all_arguments_arrive_and_the_result_is_the_backends(self) -> None:
        with YAMLEngine(ltm_backend=Recorder()) as engine:
            actions = engine.actions_registry
            stored = actions["ltm.store"]({}, key="k", value=[1], metadata={"m": 1}, ttl=0.5, if_version=2)
            assert stored == {"success": True, "by": "memory", "arguments": ["k", [1], {"m": 1}, 0.5, 2]}
            assert actions["ltm.store"]({}, "k", None)["arguments"] == ["k", None, None, None, None]
            assert actions["ltm.retrieve"](state={}, key="k", default=2)["arguments"] == ["k", 2]
            result = actions["ltm.search"]({}, query="q", metadata_filter={"m": 1}, limit=3, prefix="p", offset=4)
            assert result["arguments"] == ["q", {"m": 1}, 3, "p", 4]
            assert actions["ltm.search"]({})["arguments"] == [None, None, 10, None, 0]

    def test_in_the_registry_a_failure_is_a_dict(self) -> None:
        with YAMLEngine(ltm_backend=Recorder()) as engine:
            assert engine.actions_registry["ltm.delete"]({}, key="k") == {
                "success": False,
                "error": "memory is read-only",
                "error_type": "query_error",
            }

    def test_wrong_arguments_are_a_type_error(self) -> None:
        with YAMLEngine(ltm_backend=Recorder()) as engine:
            for wrong in ({}, {"key": "k", "vaule": 1}):
                with pytest.raises(TypeError):
                    engine.actions_registry["ltm.store"]({}, **wrong)

    def test_run_code_calls_them(self) -> None:
        text = (
            "stored = actions.ltm_store(key='k', value={'n': 1}, metadata={'m': 2})\n"
            "found = actions.ltm_retrieve('k')\n"
            "results = actions.ltm_search(metadata_filter={'m': 2})['results']\n"
        )
        with YAMLEngine() as engine:
            state = next(engine.load_from_dict({"nodes": [{"name": "a", "run": text}]}).invoke())["state"]
        assert (state["stored"]["created"], state["found"]["value"], len(state["results"])) == (True, {"n": 1}, 1)

    def test_a_failure_in_run_code_fails_its_node(self) -> None:
        with YAMLEngine(ltm_backend=Recorder()) as engine, pytest.raises(NodeError) as caught:
            list(engine.load_from_dict({"nodes": [{"name": "a", "run": "actions.ltm_delete(key='k')"}]}).invoke())
        assert str(caught.value) == (
            "node `a`: `ltm.delete` failed: memory is read-only (query_error) (line 1 of its `run`)"
        )
        assert caught.value.error_type == "query_error"

    def test_run_code_may_catch_a_failure(self) -> None:
        text = "try:\n    actions.ltm_delete(key='k')\nexcept Exception as error:\n    why = error.result['error']"
        with YAMLEngine(ltm_backend=Recorder()) as engine:
            state = next(engine.load_from_dict({"nodes": [{"name": "a", "run": text}]}).invoke())["state"]
        assert state == {"why": "memory is read-only"}

    def test_an_unknown_action_in_run_code_is_told_the_nearest(self) -> None:
        with (
            YAMLEngine() as engine,
            pytest.raises(NodeError, match=r"there is no action `ltm_stor`; did you mean `ltm_store`\?"),
        ):
            list(engine.load_from_dict({"nodes": [{"name": "a", "run": "actions.ltm_stor(key='k')"}]}).invoke())

    @pytest.mark.parametrize("name", ["other_call", "ltm_delet", "ltm_deletes", "ltm_clean", "catalog_search"])
    def test_no_action_of_another_namespace_and_none_that_removes_something_is_suggested(self, name: str) -> None:
        with YAMLEngine() as engine, pytest.raises(NodeError) as caught:
            list(engine.load_from_dict({"nodes": [{"name": "a", "run": f"actions.{name}()"}]}).invoke())
        assert str(caught.value) == f"node `a`: AttributeError: there is no action `{name}` (line 1 of its `run`)"

    def test_a_conflict_names_the_key(self) -> None:
        node = {"name": "a", "uses": "ltm.store", "with": {"key": "plan", "value": 1, "if_version": 4}}
        with YAMLEngine() as engine, pytest.raises(NodeError, match=r"\(conflict of the key 'plan'\)"):
            list(engine.load_from_dict({"nodes": [node]}).invoke())

    def test_one_that_does_not_tell_its_arguments_gets_what_is_written(self) -> None:
        with YAMLEngine() as engine:
            engine.actions_registry["my.dict"] = dict
            node = {"name": "a", "uses": "my.dict", "with": {"any": 1}}
            assert next(engine.load_from_dict({"nodes": [node]}).invoke({"x": 2}))["state"] == {"x": 2, "any": 1}

    def test_arguments_may_have_any_name(self) -> None:
        def echo(state: dict[str, Any], name: str, registry: str) -> dict[str, Any]:
            return {"echo": name + registry}

        nodes = [
            {"name": "a", "uses": "my.echo", "with": {"name": "n", "registry": "r"}},
            {"name": "b", "run": "again = actions.my_echo(name='m', registry='s')['echo']"},
        ]
        with YAMLEngine() as engine:
            engine.actions_registry["my.echo"] = echo
            state = next(engine.load_from_dict({"nodes": nodes}).invoke())["state"]
        assert state == {"echo": "nr", "again": "ms"}

    def test_others_can_be_added(self) -> None:
        def greet(state: dict[str, Any], who: str = "you") -> dict[str, Any]:
            return {"greeting": f"{state['word']} {who}"}

        nodes = [
            {"name": "a", "uses": "my.greet", "with": {"who": "Ana"}},
            {"name": "b", "run": "again = actions.my_greet(who='Bea')['greeting']"},
        ]
        with YAMLEngine() as engine:
            engine.actions_registry["my.greet"] = greet
            state = next(engine.load_from_dict({"nodes": nodes}).invoke({"word": "Hello"}))["state"]
            assert (state["greeting"], state["again"]) == ("Hello Ana", "Hello Bea")
            with pytest.raises(
                WorkflowFileError, match=r"action `my\.greet` has no argument `whom`; did you mean `who`\?"
            ):
                engine.load_from_dict({"nodes": [{"name": "a", "uses": "my.greet", "with": {"whom": "x"}}]})


def test_the_memory_is_imported_without_the_engine() -> None:
    program = (
        "import sys, the_edge_agent.memory\n"
        "print([name for name in ('yaml', 'jinja2', 'typer', 'the_edge_agent.workflow') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_the_package_gives_the_engine_its_errors_and_its_version() -> None:
    import the_edge_agent

    assert the_edge_agent.__version__.count(".") == 2
    assert {"YAMLEngine", "NodeError", "WorkflowError", "WorkflowFileError"} <= set(dir(the_edge_agent))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = the_edge_agent.Nothing
