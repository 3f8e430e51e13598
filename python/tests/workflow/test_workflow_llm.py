"""The action ``llm.call``: its arguments and settings, the offline provider, the command of the shell provider."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from the_edge_agent import NodeError, WorkflowFileError, YAMLEngine

OFFLINE = {"provider": "offline"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_BASE"):
        monkeypatch.delenv(name, raising=False)


def ask(settings: Any = OFFLINE, *, allow_code: bool = True, llm: Any = None, **arguments: Any) -> dict[str, Any]:
    """Return the result of one call in a run."""
    question = {} if "messages" in arguments else {"prompt": "Hello there"}
    node = {"name": "ask", "uses": "llm.call", "with": {**question, **arguments}, "output": "answer"}
    config = {"nodes": [node], **({"settings": {"llm": settings}} if settings is not None else {})}
    with YAMLEngine(allow_code=allow_code, llm=llm) as engine:
        [final] = engine.load_from_dict(config).invoke()
    answer: dict[str, Any] = final["state"]["answer"]
    return answer


def failure(settings: Any = OFFLINE, **arguments: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        ask(settings, **arguments)
    assert "\n" not in str(caught.value)
    return caught.value


class TestOffline:
    def test_it_echoes_without_a_script(self) -> None:
        assert ask() == {
            "success": True,
            "content": "Hello there",
            "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
            "tool_calls": [],
            "model": None,
            "message": {"role": "assistant", "content": "Hello there"},
            "finish_reason": "stop",
            "provider": "offline",
        }

    def test_it_answers_by_what_the_last_message_says(self) -> None:
        answers = {"hello": "Good day!", "France": "Paris"}
        messages = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "The capital of FRANCE?"}]
        assert ask({**OFFLINE, "answers": answers})["content"] == "Good day!"
        assert ask({**OFFLINE, "answers": answers}, messages=messages)["content"] == "Paris"
        assert ask({**OFFLINE, "answers": answers}, prompt="Spain?")["content"] == "Spain?"

    def test_it_gives_answers_in_order_anew_in_each_run(self) -> None:
        settings = {"llm": {**OFFLINE, "answers": ["one", {"when": "tea", "content": "green"}, {"content": "two"}]}}
        prompts = ["a", "tea?", "b"]
        nodes = [
            {"name": text, "uses": "llm.chat", "with": {"prompt": text}, "output": {text: "{{ result.content }}"}}
            for text in prompts
        ]
        with YAMLEngine() as engine:
            graph = engine.load_from_dict({"settings": settings, "nodes": nodes})
            for _ in range(2):
                assert next(graph.invoke())["state"] == {"a": "one", "tea?": "green", "b": "two"}
            more = {"name": "c", "uses": "llm.call", "with": {"prompt": "c"}}
            graph = engine.load_from_dict({"settings": settings, "nodes": [*nodes, more]})
            with pytest.raises(NodeError, match="has 2 answers, and this is call 3"):
                list(graph.invoke())

    def test_it_calls_tools(self) -> None:
        answers = [{"tool_calls": [{"name": "search", "arguments": {"query": "tea"}}]}, "Tea is green."]
        code = """
question = {"role": "user", "content": "What is tea?"}
first = actions.llm_call(messages=[question], tools=[{"name": "search"}])
call = first["tool_calls"][0]
found = {"role": "tool", "tool_call_id": call["id"], "content": call["arguments"]["query"] + " is green"}
second = actions.llm_call(messages=[question, first["message"], found])
"""
        with YAMLEngine() as engine:
            config = {"settings": {"llm": {**OFFLINE, "answers": answers}}, "nodes": [{"name": "a", "run": code}]}
            state = next(engine.load_from_dict(config).invoke())["state"]
        assert state["call"] == {"id": "call_1", "name": "search", "arguments": {"query": "tea"}}
        assert (state["first"]["finish_reason"], state["second"]["content"]) == ("tool_calls", "Tea is green.")
        assert state["first"]["message"]["tool_calls"][0]["function"]["arguments"] == '{"query": "tea"}'

    def test_its_answer_may_be_streamed(self) -> None:
        events: list[dict[str, Any]] = []
        node = {"name": "ask", "uses": "llm.call", "with": {"prompt": "{{ state.p }}", "stream": True}}
        with YAMLEngine(on_chunk=events.append) as engine:
            graph = engine.load_from_dict({"settings": {"llm": OFFLINE}, "nodes": [node]})
            [final] = graph.invoke({"p": "One two  three"})
        assert {event["type"] for event in events} == {"llm_chunk"}
        assert {event["node"] for event in events} == {"ask"}
        assert "".join(event["content"] for event in events) == final["state"]["content"] == "One two  three"
        assert len(events) == 4

    def test_a_function_for_chunks_that_fails_fails_the_node(self) -> None:
        def broken(event: dict[str, Any]) -> None:
            raise KeyError("x")

        with YAMLEngine(on_chunk=broken, llm=OFFLINE) as engine:
            result = engine.actions_registry["llm.call"]({}, prompt="a", stream=True)
        assert (result["error_type"], result["error"]) == ("callback_error", "on_chunk failed: KeyError: 'x'")

    @pytest.mark.parametrize("answers", [[1], [{"contents": "x"}], [{"tool_calls": [{}]}], [{"when": 1}]], ids=str)
    def test_a_wrong_script_is_named(self, answers: Any) -> None:
        error = failure({**OFFLINE, "answers": answers})
        assert (error.error_type, "`settings.llm.answers[0]`" in str(error)) == ("configuration_error", True)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"prompt": None}, "give messages or prompt"),
            ({"prompt": 1}, "prompt must be text, not int"),
            ({"system": ["a"]}, "system must be text, not list"),
            ({"messages": []}, "messages must be a list of at least one"),
            ({"messages": "Hello"}, "messages must be a list"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0] must have a role, one of system,"),
            ({"messages": [{"role": "user"}]}, "messages[0] must have content"),
            ({"tools": {"name": "a"}}, "tools must be a list, not dict"),
            ({"tools": [{"type": "function"}]}, "tools[0] must have a name"),
            ({"timeout": 0}, "timeout must be a number of seconds"),
        ],
    )
    def test_wrong_ones_fail(self, arguments: dict[str, Any], message: str) -> None:
        error = failure(**arguments)
        assert (error.error_type, message in str(error)) == ("validation_error", True)

    def test_messages_and_prompt_together_fail(self) -> None:
        with YAMLEngine(llm=OFFLINE) as engine:
            result = engine.actions_registry["llm.call"]({}, prompt="a", messages=[{"role": "user", "content": "b"}])
        assert result["error"] == "give messages or prompt, one of the two"

    def test_an_unknown_one_is_refused_when_the_file_is_loaded(self) -> None:
        with pytest.raises(WorkflowFileError, match="has no argument `temprature`; did you mean `temperature`"):
            ask(temprature=0)

    def test_parts_of_a_message_are_read(self) -> None:
        content = [{"type": "text", "text": "One"}, {"type": "image_url"}, {"type": "text", "text": "two"}]
        assert ask(messages=[{"role": "user", "content": content}])["content"] == "One\ntwo"

    def test_an_unknown_provider_is_named(self) -> None:
        error = failure(None, provider="ofline")
        assert error.error_type == "configuration_error"
        assert "there is no provider 'ofline'; did you mean `offline`?; there are `openai`, `ollama`" in str(error)
        assert "write `provider: openai`, and the `base_url`" in str(failure(None, provider="litellm"))

    def test_without_a_key_it_says_what_to_set(self) -> None:
        error = failure(None, model="m")
        assert error.error_type == "configuration_error"
        assert "set the environment variable OPENAI_API_KEY" in str(error)
        assert "no model: write `model`" in str(failure({"base_url": "http://127.0.0.1:1"}))


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("{modle: m}", "2:9: `settings.llm.modle`: unknown word; did you mean `model`?"),
            ("{zzz: m}", "2:9: `settings.llm.zzz`: unknown word; known are `provider`, `model`, "),
            ("{backend: local}", "2:9: `settings.llm.backend`: write `provider`"),
            ("{model: [a]}", "2:9: `settings.llm.model` must be text, not list"),
            ("{temperature: hot}", "2:9: `settings.llm.temperature` must be a number from 0 to 2"),
            ("{max_retries: 1.5}", "2:9: `settings.llm.max_retries` must be a number from 0 to 100"),
            ("{timeout: true}", "2:9: `settings.llm.timeout` must be a number"),
            ("{answers: yes please}", "2:9: `settings.llm.answers` must be a list or dict"),
            ("{api_key: '${TEA_TEST_NO_KEY}'}", "2:9: the environment variable TEA_TEST_NO_KEY is not set"),
            ("[a]", "2:8: `settings.llm` must be a mapping"),
            ("{shell_providers: {a: {args: []}}}", "2:27: `settings.llm.shell_providers.a` must be a mapping with"),
            ("{shell_providers: {a: {command: x, arg: 1}}}", "2:43: `settings.llm.shell_providers.a`: unknown word"),
        ],
    )
    def test_a_wrong_word_is_refused_with_its_place(self, tmp_path: Path, settings: str, message: str) -> None:
        path = tmp_path / "agent.yaml"
        path.write_text(f"settings:\n  llm: {settings}\nnodes: [{{name: a, run: x = 1}}]\n")
        with YAMLEngine() as engine, pytest.raises(WorkflowFileError) as caught:
            engine.load_from_file(path)
        assert str(caught.value).removeprefix(f"{path}:").startswith(message)

    def test_variables_are_texts_and_empty_ones_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEA_TEST_PROVIDER", "offline")
        monkeypatch.setenv("TEA_TEST_MODEL", "0123")
        settings = {"provider": "${TEA_TEST_PROVIDER}", "model": "${TEA_TEST_MODEL}", "api_key": "${TEA_TEST_NONE:-}"}
        assert ask(settings)["model"] == "0123"

    def test_a_file_replaces_the_settings_of_the_program(self) -> None:
        host = {**OFFLINE, "answers": {"hello": "host"}}
        assert ask(None, llm=host)["content"] == "host"
        assert ask({**OFFLINE, "answers": {"hello": "file"}}, llm=host)["content"] == "file"

    def test_two_files_of_one_engine_have_their_own(self) -> None:
        node = {"name": "a", "uses": "llm.call", "with": {"prompt": "x"}, "output": "a"}
        with YAMLEngine() as engine:
            graphs = [
                engine.load_from_dict({"settings": {"llm": {**OFFLINE, "answers": [name]}}, "nodes": [node]})
                for name in ("one", "two")
            ]
            assert [next(graph.invoke())["state"]["a"]["content"] for graph in graphs] == ["one", "two"]

    def test_wrong_settings_of_the_program_raise(self) -> None:
        with pytest.raises(ValueError, match=r"`settings\.llm\.modle`: unknown word; did you mean `model`"):
            YAMLEngine(llm={"modle": "m"})


class TestUntrustedFiles:
    def test_they_have_no_settings_and_no_model_unless_the_host_gives_one(self) -> None:
        with pytest.raises(WorkflowFileError, match=r"`settings\.llm`: a file that may not run code can't choose"):
            ask(OFFLINE, allow_code=False)
        with pytest.raises(WorkflowFileError, match=r"unknown action `llm\.call`: a file that may not run code"):
            ask(None, allow_code=False)
        assert ask(None, allow_code=False, llm=OFFLINE)["content"] == "Hello there"

    @pytest.mark.parametrize(
        "chosen",
        [
            {"provider": "openai"},
            {"base_url": "http://169.254.169.254"},
            {"api_base": "http://169.254.169.254"},
            {"shell_provider": "claude"},
            {"model": "largest"},
            {"timeout": 80_000},
            {"max_retries": 100},
            {"base_delay": 80_000},
        ],
        ids=str,
    )
    def test_they_choose_nothing(self, chosen: dict[str, Any]) -> None:
        error = failure(None, allow_code=False, llm={**OFFLINE, "model": "m"}, **chosen)
        assert (error.error_type, "can't choose" in str(error)) == ("configuration_error", True)

    def test_they_cannot_run_a_command(self) -> None:
        node = {"name": "a", "uses": "llm.provider.shell", "with": {"messages": [], "settings": {}}}
        with YAMLEngine(allow_code=False, llm=OFFLINE) as engine, pytest.raises(WorkflowFileError, match="unknown"):
            engine.load_from_dict({"nodes": [node]})


class TestShell:
    @staticmethod
    def settings(code: str, **more: Any) -> dict[str, Any]:
        return {"provider": "shell", "command": [sys.executable, "-c", code], **more}

    def test_a_command_gets_the_prompt_and_prints_the_answer(self) -> None:
        settings = self.settings("import sys; print(sys.stdin.read().upper())")
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Grüß dich"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "$(touch x); `ls`"},
        ]
        answer = ask(settings, messages=messages)
        assert answer["content"] == "SYSTEM: BE BRIEF.\n\nGRÜSS DICH\n\nASSISTANT: HI\n\n$(TOUCH X); `LS`"
        assert (answer["usage"], answer["provider"]) == ({}, "shell")

    def test_a_named_one_may_have_arguments_variables_and_the_prompt_in_a_file_or_an_argument(self) -> None:
        show = (
            "import os, sys; print(os.environ['KEY'], open(sys.argv[2]).read() if sys.argv[1] == 'f' else sys.argv[2])"
        )
        common = {"command": f"{sys.executable} -c", "env": {"KEY": "k"}}
        providers = {
            "file": {**common, "args": [show, "f", "{input_file}"], "stdin_mode": "file"},
            "argument": {**common, "args": [show, "a", "{prompt}"]},
        }
        for name in providers:
            settings = {"provider": "shell", "shell_providers": providers}
            assert ask(settings, shell_provider=name)["content"] == "k Hello there"

    def test_a_known_one_is_looked_up_on_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        command = tmp_path / "claude"
        command.write_text(f"#!{sys.executable}\nimport sys; print(sys.argv[1:], sys.stdin.read())")
        command.chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert ask(None, provider="shell", shell_provider="claude")["content"] == "['-p'] Hello there"
        error = failure(None, provider="shell", shell_provider="gemini")
        assert (error.error_type, "there is no command `gemini`" in str(error)) == ("dependency_missing", True)

    def test_without_a_command_it_says_what_to_write(self) -> None:
        assert "there is no command to run; write `command`" in str(failure({"provider": "shell"}))
        error = failure({"provider": "shell"}, shell_provider="x")
        assert "there is no shell_provider 'x'; there are claude, codex, gemini, qwen" in str(error)

    def test_a_command_that_fails_is_quoted_without_its_secrets(self) -> None:
        code = "import os, sys; sys.exit('wrong key ' + os.environ['KEY'])"
        providers = {"p": {"command": [sys.executable, "-c", code], "env": {"KEY": "s3cret"}}}
        error = failure({"provider": "shell", "shell_providers": providers}, shell_provider="p")
        assert error.error_type == "llm_error"
        assert "ended with status 1: wrong key ***" in str(error)

    def test_one_that_does_not_end_is_killed_with_its_children(self, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        code = (
            "import subprocess, sys, time\n"
            f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            f"open({str(note)!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
        )
        error = failure(self.settings(code), timeout=1.5)
        assert (error.error_type, "did not end within 1.5 seconds" in str(error)) == ("timeout", True)
        deadline = time.monotonic() + 10
        while _runs(int(note.read_text())):
            assert time.monotonic() < deadline

    def test_its_answer_is_one_chunk(self) -> None:
        events: list[dict[str, Any]] = []
        with YAMLEngine(on_chunk=events.append, llm=self.settings("print('a b')")) as engine:
            engine.actions_registry["llm.call"]({}, prompt="x", stream=True)
        assert [event["content"] for event in events] == ["a b"]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_program_may_add_a_provider() -> None:
    def complete(state: dict[str, Any], messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        return {"content": f"{options['model']}: {messages[-1]['content']}", "usage": {"total_tokens": 5}}

    node = {"name": "a", "uses": "llm.call", "with": {"prompt": "x", "provider": "mine", "model": "m"}}
    with YAMLEngine(actions_registry={"llm.provider.mine": complete}) as engine:
        state = next(engine.load_from_dict({"nodes": [node]}).invoke())["state"]
    assert (state["content"], state["usage"], state["provider"]) == ("m: x", {"total_tokens": 5}, "mine")
