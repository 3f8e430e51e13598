"""The actions ``memory.*``, ``json.*`` and ``file.*``, and those of other engines that are refused by name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from the_edge_agent import NodeError, WorkflowFileError, YAMLEngine
from the_edge_agent.workflow.actions import files
from the_edge_agent.workflow.actions.registry import build_registry


def call(name: str, **arguments: Any) -> dict[str, Any]:
    with YAMLEngine() as engine:
        result: dict[str, Any] = engine.actions_registry[name]({}, **arguments)
    return result


def run(*nodes: dict[str, Any], **state: Any) -> dict[str, Any]:
    with YAMLEngine() as engine:
        [final] = engine.load_from_dict({"nodes": [*nodes]}).invoke(state)
    result: dict[str, Any] = final["state"]
    return result


def use(action: str, output: Any = "result", **arguments: Any) -> dict[str, Any]:
    return {"name": f"{action} {output} {len(arguments)}", "uses": action, "with": arguments, "output": output}


def test_each_has_two_names() -> None:
    with YAMLEngine() as engine:
        registry = engine.actions_registry
        for name in ("memory.store", "memory.retrieve", "memory.delete", "json.parse", "file.read", "http.get"):
            assert registry[name] is registry["actions." + name.replace(".", "_")]


class TestMemoryOfARun:
    STORE = use("memory.store", key="k", value="{{ state.n }}")
    READ = use("memory.retrieve", output="read", key="k", default="nothing")

    def test_later_nodes_read_what_earlier_ones_stored(self) -> None:
        state = run(self.STORE, self.READ, n=[1, {"a": 2}])
        assert state["result"] == {"success": True, "stored": True, "key": "k", "namespace": "default"}
        assert state["read"] == {"success": True, "value": [1, {"a": 2}], "found": True, "key": "k"}

    def test_the_next_run_does_not_see_it(self) -> None:
        with YAMLEngine() as engine:
            store, read = (engine.load_from_dict({"nodes": [node]}) for node in (self.STORE, self.READ))
            list(store.invoke({"n": 1}))
            [final] = read.invoke()
            both = engine.load_from_dict({"nodes": [self.READ, self.STORE]})
            runs = [next(both.invoke({"n": 1}))["state"]["read"]["found"] for _ in range(2)]
        assert final["state"]["read"]["value"] == "nothing"
        assert runs == [False, False]

    def test_runs_in_threads_have_their_own(self) -> None:
        with YAMLEngine() as engine, ThreadPoolExecutor(8) as pool:
            graph = engine.load_from_dict({"nodes": [self.STORE, self.READ]})
            runs = list(pool.map(lambda n: next(graph.invoke({"n": n}))["state"]["read"]["value"], range(100)))
        assert runs == list(range(100))

    def test_a_run_inside_of_an_action_has_its_own(self) -> None:
        with YAMLEngine() as engine:
            inner = engine.load_from_dict({"nodes": [self.READ]})
            engine.actions_registry["my.inner"] = lambda state: next(inner.invoke())["state"]["read"]
            outer = engine.load_from_dict({"nodes": [self.STORE, use("my.inner"), self.READ]})
            [final] = outer.invoke({"n": 7})
        assert (final["state"]["result"]["found"], final["state"]["read"]["value"]) == (False, 7)

    def test_namespaces_are_apart(self) -> None:
        nodes = [
            use("memory.store", key="k", value=1, namespace="a"),
            use("memory.retrieve", output="a", key="k", namespace="a"),
            use("memory.retrieve", output="b", key="k", namespace="b"),
        ]
        state = run(*nodes)
        assert (state["a"]["value"], state["b"]["value"], state["b"]["found"]) == (1, None, False)

    def test_values_are_copies(self) -> None:
        code = (
            "mine = [1]\nactions.memory_store('k', mine)\nmine.append(2)\n"
            "first = actions.memory_retrieve('k')['value']\nfirst.append(3)\n"
            "second = actions.memory_retrieve('k')['value']"
        )
        state = run({"name": "a", "run": code})
        assert (state["first"], state["second"]) == ([1, 3], [1])

    def test_it_deletes(self) -> None:
        state = run(
            self.STORE,
            use("memory.delete", output="first", key="k"),
            use("memory.delete", output="again", key="k", namespace="default"),
            self.READ,
            n=1,
        )
        assert (state["first"]["deleted"], state["again"]["deleted"], state["read"]["found"]) == (True, False, False)

    def test_a_value_may_end_before_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        monkeypatch.setattr("the_edge_agent.workflow.runs.monotonic", lambda: now)
        with YAMLEngine() as engine:
            registry = engine.actions_registry
            registry["memory.store"]({}, key="k", value=1, ttl=5)
            now += 4.9
            assert registry["memory.retrieve"]({}, key="k")["found"]
            now += 0.2
            assert not registry["memory.retrieve"]({}, key="k")["found"]
            assert not registry["memory.delete"]({}, key="k")["deleted"]

    def test_calls_of_a_program_have_values_of_the_engine(self) -> None:
        with YAMLEngine() as engine, YAMLEngine() as other:
            engine.actions_registry["memory.store"](state={}, key="k", value=1)
            assert engine.actions_registry["memory.retrieve"](state={}, key="k")["value"] == 1
            assert other.actions_registry["memory.retrieve"](state={}, key="k")["found"] is False
            [final] = engine.load_from_dict({"nodes": [self.READ]}).invoke()
        assert final["state"]["read"]["found"] is False

    @pytest.mark.parametrize(
        "wrong", [{"key": ""}, {"key": 1}, {"namespace": ""}, {"namespace": ["a"]}, {"ttl": 0}, {"ttl": "soon"}]
    )
    def test_wrong_arguments_fail(self, wrong: dict[str, Any]) -> None:
        result = call("memory.store", **{"key": "k", "value": 1, **wrong})
        assert (result["success"], result["error_type"]) == (False, "validation_error")
        assert next(iter(wrong)) in result["error"]

    def test_what_cannot_be_copied_fails(self) -> None:
        with pytest.raises(NodeError, match="the value can't be copied"):
            run({"name": "a", "run": "import threading\nactions.memory_store('k', threading.Lock())"})

    def test_an_untrusted_file_may_use_it(self) -> None:
        with YAMLEngine(allow_code=False) as engine:
            [final] = engine.load_from_dict({"nodes": [self.STORE, self.READ]}).invoke({"n": 3})
        assert final["state"]["read"]["value"] == 3


class TestJSON:
    def test_text_becomes_data(self) -> None:
        assert run(use("json.parse", text="{{ state.text }}"), text='{"a": [1, null]}')["result"] == {
            "success": True,
            "data": {"a": [1, None]},
        }

    @pytest.mark.parametrize(
        "text",
        [
            'Here it is:\n```json\n{"a": [1]}\n```\nAnything else?',
            'So {this} is it: {"a": [1]}',
            '{"a": [1]} and {"b": 2}',
        ],
    )
    def test_the_first_json_in_other_text_is_read_if_it_need_not_be_strict(self, text: str) -> None:
        assert call("json.parse", text=text, strict=False)["data"] == {"a": [1]}
        assert call("json.parse", text=text)["error_type"] == "parse_error"

    @pytest.mark.parametrize("text", ["", "{", "nothing", "[1, NaN]", "[" * 100_000, '{"a": 1,}', "1" * 5000])
    @pytest.mark.parametrize("strict", [True, False])
    def test_other_text_fails_or_is_the_default(self, text: str, *, strict: bool) -> None:
        result = call("json.parse", text=text, strict=strict)
        assert (result["success"], result["error_type"]) == (False, "parse_error")
        assert call("json.parse", text=text, strict=strict, default=None) == {"success": True, "data": None}

    def test_the_place_of_the_fault_is_named(self) -> None:
        assert "(line 2, column 3)" in call("json.parse", text='{\n  a: "secret"}')["error"]

    def test_only_text_is_read(self) -> None:
        assert call("json.parse", text={"a": 1})["error"] == "text must be text, not dict"

    def test_data_becomes_text(self) -> None:
        assert call("json.stringify", data={"b": "ü", "a": 1})["text"] == '{"b": "ü", "a": 1}'
        assert call("json.stringify", data={"b": 2, "a": 1}, indent=1, sort_keys=True)["text"] == (
            '{\n "a": 1,\n "b": 2\n}'
        )

    @pytest.mark.parametrize("data", [float("nan"), {1, 2}, {"a": object()}])
    def test_what_is_no_json_fails(self, data: Any) -> None:
        assert call("json.stringify", data=data)["error_type"] == "serialization_error"

    @pytest.mark.parametrize("indent", [-1, 9, "2", 1.5])
    def test_a_wrong_indent_fails(self, indent: Any) -> None:
        assert call("json.stringify", data=1, indent=indent)["error_type"] == "validation_error"


class TestFiles:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "work"
        folder.mkdir()
        (tmp_path / "secret.txt").write_text("secret")
        monkeypatch.chdir(folder)
        return folder

    def test_what_is_written_is_read(self, folder: Path) -> None:
        state = run(
            use("file.write", output="written", path="out/{{ state.who }}/note.txt", content="Grün\n"),
            use("file.read", path="out/Ana/../Ana/note.txt"),
            who="Ana",
        )
        assert state["written"] == {"success": True, "path": "out/Ana/note.txt", "byte_size": 6}
        assert (state["result"]["content"], state["result"]["byte_size"]) == ("Grün\n", 6)
        assert [path.name for path in (folder / "out" / "Ana").iterdir()] == ["note.txt"]

    def test_it_replaces_or_appends(self, folder: Path) -> None:
        (folder / "note.txt").write_text("old")
        (folder / "note.txt").chmod(0o600)
        call("file.write", path="note.txt", content="new")
        call("file.write", path="note.txt", content=" and more", append=True)
        assert (folder / "note.txt").read_text() == "new and more"
        assert (folder / "note.txt").stat().st_mode & 0o777 == 0o600

    def test_the_whole_path_of_a_file_in_the_folder_is_fine(self, folder: Path) -> None:
        assert call("file.write", path=str(folder / "a.txt"), content="x")["success"]
        assert call("file.read", path=str(folder / "a.txt"), encoding="latin-1")["content"] == "x"

    @pytest.mark.parametrize("action", ["file.read", "file.write"])
    @pytest.mark.parametrize(
        "path",
        ["../secret.txt", "a/../../secret.txt", "/etc/passwd", "out/secret.txt", "link", "file:///etc/passwd", "a\0b"],
    )
    def test_nothing_outside_is_reached(self, folder: Path, action: str, path: str) -> None:
        (folder / "out").symlink_to(folder.parent)
        (folder / "link").symlink_to(folder.parent / "secret.txt")
        more = {"content": "x"} if action == "file.write" else {}
        result = call(action, path=path, **more)
        assert (result["success"], result["error_type"]) == (False, "permission_denied")
        assert (folder.parent / "secret.txt").read_text() == "secret"

    @pytest.mark.parametrize("append", [False, True])
    def test_a_link_that_is_put_there_after_the_check_is_not_followed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, append: bool
    ) -> None:
        parts_of = files._parts

        def check_then_swap(path: str) -> list[str]:
            parts = parts_of(path)
            (folder / "a").rename(folder / "b")
            (folder / "a").symlink_to(folder.parent)
            return parts

        (folder / "a").mkdir()
        monkeypatch.setattr(files, "_parts", check_then_swap)
        assert not call("file.write", path="a/secret.txt", content="x", append=append)["success"]
        (folder / "a").unlink()
        (folder / "b").rename(folder / "a")
        assert not call("file.read", path="a/secret.txt")["success"]
        assert (folder.parent / "secret.txt").read_text() == "secret"

    def test_links_within_the_folder_are_followed(self, folder: Path) -> None:
        (folder / "real.txt").write_text("here")
        (folder / "link.txt").symlink_to("real.txt")
        assert call("file.read", path="link.txt")["content"] == "here"

    def test_what_is_no_file_is_refused_at_once(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to("loop")
        for path in ("pipe", ".", "loop"):
            assert call("file.read", path=path)["error_type"] == "file_error"
            assert call("file.write", path=path, content="x")["error_type"] == "file_error"
            assert not call("file.write", path=path, content="x", append=True)["success"]

    def test_a_missing_file_and_a_wrong_encoding_are_named(self, folder: Path) -> None:
        assert call("file.read", path="none.txt") == {
            "success": False,
            "error": "there is no file 'none.txt'",
            "error_type": "file_not_found",
        }
        (folder / "bytes").write_bytes(b"\xff")
        assert call("file.read", path="bytes")["error"] == "'bytes' can't be read as utf-8: UnicodeDecodeError"
        assert call("file.read", path="bytes", encoding="nonsense")["error_type"] == "file_error"
        assert call("file.write", path="x", content="\ud800")["error_type"] == "file_error"
        assert call("file.write", path="x", content={"a": 1})["error_type"] == "validation_error"
        assert call("file.read", path="")["error_type"] == "validation_error"

    def test_the_size_is_limited(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "MAX_BYTES", 5)
        (folder / "large").write_text("123456")
        (folder / "small").write_text("1234")
        assert call("file.read", path="large")["error_type"] == "too_large"
        assert call("file.write", path="new", content="123456")["error_type"] == "too_large"
        assert call("file.write", path="small", content="56", append=True)["error_type"] == "too_large"
        assert call("file.write", path="small", content="5", append=True)["success"]
        assert sorted(path.name for path in folder.iterdir()) == ["large", "small"]

    def test_no_descriptor_stays_open(self, folder: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            call("file.write", path="a/b/c.txt", content="x")
            call("file.read", path="a/b/c.txt")
            call("file.read", path="a/b")
            call("file.read", path="a/c/d")
        assert len(os.listdir("/proc/self/fd")) <= before


class TestRefused:
    @pytest.mark.parametrize(
        ("action", "message"),
        [
            ("mem0.add", "this engine has no Mem0; keep it with `ltm.store`"),
            ("actions.mem0_search", "this engine has no Mem0"),
            ("a2a.send", "this engine has no messages between agents (a2a)"),
            ("dspy.cot", "this engine has no DSPy"),
            ("llamaindex.query", "this engine has no LlamaIndex"),
            ("textgrad.optimize_prompt", "this engine has no TextGrad"),
            ("reason.cot", "this engine has no ready-made ways to reason"),
            ("reflection.loop", "this engine has no reflection loops"),
            ("graph.store_entity", "this engine has no graph databases"),
            ("firestore.get", "this engine has no Firestore"),
            ("supabase.select", "this engine has no Supabase"),
            ("stream.open", "this engine has no streams between nodes"),
            ("memory.cloud_store", "this engine has no cloud memory"),
            ("llm.stream", "write `llm.call` with `stream: true`"),
            ("json.transform", "this engine has no JMESPath; write a template"),
        ],
    )
    def test_an_action_of_a_vendor_is_refused_with_help(self, action: str, message: str) -> None:
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_dict({"nodes": [{"name": "a", "uses": action, "with": {"x": 1}}]})
        assert f"unknown action `{action}`: " in str(caught.value)
        assert message in str(caught.value)

    def test_code_that_calls_one_gets_the_help_too(self) -> None:
        with pytest.raises(NodeError, match="there is no action `mem0_add`: this engine has no Mem0"):
            run({"name": "a", "run": "actions.mem0_add(x=1)"})

    def test_an_action_of_the_program_with_such_a_name_is_used(self) -> None:
        with YAMLEngine(actions_registry={"mem0.add": lambda state: {"added": True}}) as engine:
            [final] = engine.load_from_dict({"nodes": [{"name": "a", "uses": "mem0.add"}]}).invoke()
        assert final["state"] == {"added": True}

    @pytest.mark.parametrize("action", ["file.read", "file.write", "actions.file_read", "http.get", "http.post"])
    def test_an_untrusted_file_reaches_no_file_and_no_network(self, action: str) -> None:
        with YAMLEngine(allow_code=False) as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_dict({"nodes": [{"name": "a", "uses": action, "with": {"path": "x"}}]})
        assert f"unknown action `{action}`: a file that may not run code can't use it" in str(caught.value)
        assert not any(name.startswith(("file.", "http.")) for name in engine.actions_registry)

    def test_the_list_of_those_that_untrusted_files_lack_is_complete(self) -> None:
        from the_edge_agent.workflow.actions import registry
        from the_edge_agent.workflow.actions.web import Web

        def names(*, allow_code: bool) -> set[str]:
            actions = build_registry(lambda: pytest.fail("not used"), Web(), allow_code=allow_code)
            return {name for name in actions if not name.startswith(("actions.", "llm.provider."))}

        assert names(allow_code=True) - names(allow_code=False) == registry._FOR_TRUSTED_FILES
