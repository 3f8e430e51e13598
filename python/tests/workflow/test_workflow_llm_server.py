"""The action ``llm.call`` with a server: what is sent, streams, failures, retries. The server is in this process."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from threading import Event
from typing import Any

import pytest

from local_http import Answer, LocalServer, Reply, Request, local_server
from the_edge_agent import NodeError, YAMLEngine
from the_edge_agent.workflow.actions import llm_server

KEY = "sk-s3cret"
TOOLS = [{"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}}]


def answering(message: Any, **more: Any) -> Reply:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Reply(body={"model": "m-2026", "choices": [choice], "usage": usage, **more})


def saying(text: str) -> Answer:
    return lambda request: answering({"role": "assistant", "content": text})


def sse(*events: Any, done: bool = True) -> Iterator[bytes]:
    for event in events:
        yield (
            b"data: "
            + (event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode())
            + b"\n\n"
        )
    if done:
        yield b"data: [DONE]\n\n"


def delta(**delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server(saying("Hi")) as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(llm_server, "sleep", waits.append)
    return waits


def ask(server: LocalServer, settings: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    llm = {"base_url": server.url + "/v1", "api_key": KEY, "model": "m", **(settings or {})}
    with YAMLEngine(llm=llm) as engine:
        result: dict[str, Any] = engine.actions_registry["llm.call"]({}, **{"prompt": "Hello", **arguments})
    return result


def in_turn(*replies: Reply) -> Answer:
    left = list(replies)
    return lambda request: left.pop(0)


class TestRequest:
    def test_what_is_sent_and_returned(self, server: LocalServer) -> None:
        result = ask(server, {"temperature": 0.2, "max_tokens": 9}, system="Be brief.", temperature=0, tools=TOOLS)
        [request] = server.requests
        assert (request.method, request.path, request.headers["authorization"]) == (
            "POST",
            "/v1/chat/completions",
            f"Bearer {KEY}",
        )
        assert request.data == {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
            "temperature": 0,
            "max_tokens": 9,
            "tools": [{"type": "function", "function": TOOLS[0]}],
        }
        assert result == {
            "success": True,
            "content": "Hi",
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            "tool_calls": [],
            "message": {"role": "assistant", "content": "Hi"},
            "model": "m-2026",
            "finish_reason": "stop",
            "attempts": 1,
            "provider": "openai",
        }

    def test_tool_calls_are_data(self, server: LocalServer) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"query": "tea"}'}}
        server.answer = lambda request: answering({"role": "assistant", "content": None, "tool_calls": [call]})
        result = ask(server)
        assert result["tool_calls"] == [{"id": "c1", "name": "search", "arguments": {"query": "tea"}}]
        assert result["message"] == {"role": "assistant", "content": "", "tool_calls": [call]}

    def test_the_environment_gives_the_server_and_the_key(
        self, server: LocalServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
        monkeypatch.setenv("OLLAMA_API_BASE", server.url + "/ollama")
        with YAMLEngine() as engine:
            call = engine.actions_registry["llm.call"]
            assert call({}, prompt="x", model="m")["content"] == "Hi"
            assert call({}, prompt="x", model="m", provider="ollama")["content"] == "Hi"
        first, second = server.requests
        assert (first.path, first.headers["authorization"]) == ("/chat/completions", "Bearer of-the-environment")
        assert (second.path, "authorization" in second.headers) == ("/ollama/chat/completions", False)

    def test_variables_that_the_host_does_not_share_are_not_used(
        self, server: LocalServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
        with YAMLEngine(env=[]) as engine:
            result = engine.actions_registry["llm.call"]({}, prompt="x", model="m")
        assert (result["error_type"], server.requests) == ("configuration_error", [])

    def test_threads_share_the_client(self, server: LocalServer) -> None:
        server.answer = lambda request: answering({"content": request.data["messages"][0]["content"]})
        with YAMLEngine(llm={"base_url": server.url, "model": "m"}) as engine, ThreadPoolExecutor(8) as pool:
            call = engine.actions_registry["llm.call"]
            texts = list(pool.map(lambda n: call({}, prompt=str(n))["content"], range(100)))
        assert texts == [str(n) for n in range(100)]

    def test_a_key_that_no_header_can_have_is_not_shown(self, server: LocalServer) -> None:
        result = ask(server, {"api_key": KEY + "\n"})
        assert (result["error_type"], KEY in result["error"]) == ("configuration_error", False)

    def test_messages_that_are_no_json_fail(self, server: LocalServer) -> None:
        result = ask(server, tool_choice={1, 2})
        assert (result["error_type"], server.requests) == ("validation_error", [])

    def test_without_httpx_it_says_what_to_install(self, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "httpx", None)
        result = ask(server)
        assert (result["error_type"], "the-edge-agent[llm]" in result["error"]) == ("dependency_missing", True)


class TestStream:
    def stream(self, server: LocalServer, *events: Any, **more: Any) -> tuple[dict[str, Any], list[str]]:
        server.answer = lambda request: Reply(parts=sse(*events, **more), headers={"Content-Type": "text/event-stream"})
        chunks: list[str] = []
        llm = {"base_url": server.url, "api_key": KEY, "model": "m", "max_retries": 0}
        with YAMLEngine(llm=llm, on_chunk=lambda event: chunks.append(event["content"])) as engine:
            result = engine.actions_registry["llm.call"]({}, prompt="Hello", stream=True)
        return result, chunks

    def test_parts_arrive_before_the_end(self, server: LocalServer) -> None:
        arrived = Event()

        def parts() -> Iterator[bytes]:
            yield from sse(delta(content="One"), done=False)
            assert arrived.wait(10)
            yield from sse(delta(content=" two"))

        server.answer = lambda request: Reply(parts=parts())
        llm = {"base_url": server.url, "model": "m"}
        with YAMLEngine(llm=llm, on_chunk=lambda event: arrived.set()) as engine:
            assert engine.actions_registry["llm.call"]({}, prompt="x", stream=True)["content"] == "One two"

    def test_all_of_it_is_the_result(self, server: LocalServer) -> None:
        separator = "a\u2028b\u0085c"  # ends of lines for Python, but not in server-sent events
        usage = {"model": "m", "choices": [], "usage": {"total_tokens": 5}}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        result, chunks = self.stream(
            server, delta(role="assistant", content=""), delta(content="Grüß "), delta(content=separator), last, usage
        )
        assert chunks == ["Grüß ", separator]
        assert (result["content"], result["usage"]) == (f"Grüß {separator}", {"total_tokens": 5})
        assert (result["finish_reason"], result["chunk_count"], result["model"]) == ("stop", 2, "m")
        assert server.requests[0].data["stream_options"] == {"include_usage": True}

    def test_it_may_arrive_byte_by_byte(self, server: LocalServer) -> None:
        text = b"".join(sse(delta(content="Gr\u00fc\u00dfe"), delta(content="\u2028\n"))).replace(b"\n", b"\r\n")
        server.answer = lambda request: Reply(parts=(bytes([byte]) for byte in text))
        assert ask(server, stream=True)["content"] == "Gr\u00fc\u00dfe\u2028\n"

    def test_tool_calls_are_put_together(self, server: LocalServer) -> None:
        def call(index: int, **more: Any) -> dict[str, Any]:
            return delta(tool_calls=[{"index": index, **more}])

        result, _ = self.stream(
            server,
            call(0, id="c1", function={"name": "search", "arguments": ""}),
            call(1, id="c2", function={"name": "add", "arguments": '{"n": 1}'}),
            call(0, function={"arguments": '{"query"'}),
            call(0, function={"arguments": ': "tea"}'}),
        )
        assert result["tool_calls"] == [
            {"id": "c1", "name": "search", "arguments": {"query": "tea"}},
            {"id": "c2", "name": "add", "arguments": {"n": 1}},
        ]

    @pytest.mark.parametrize(
        ("events", "kind", "message"),
        [
            ([b"{broken"], "llm_error", "not a stream of the form of OpenAI"),
            ([[1]], "llm_error", "not a stream of the form of OpenAI"),
            ([{"choices": [{"delta": {"content": 5}}]}], "llm_error", "not a stream"),
            ([delta(content="Hi"), {"error": {"message": "overloaded"}}], "llm_error", "broke off: overloaded"),
        ],
    )
    def test_a_broken_one_fails(self, server: LocalServer, events: list[Any], kind: str, message: str) -> None:
        result, _ = self.stream(server, *events)
        assert (result["success"], result["error_type"], message in result["error"]) == (False, kind, True)

    def test_one_that_ends_too_early_fails(self, server: LocalServer) -> None:
        result, chunks = self.stream(server, delta(content="Hi"), done=False)
        assert (result["error_type"], result["error"], chunks) == (
            "connection_error",
            "the answer ended too early",
            ["Hi"],
        )

    def test_it_is_not_sent_again_after_a_part_has_arrived(self, server: LocalServer, waits: list[float]) -> None:
        server.answer = in_turn(
            Reply(500),
            Reply(parts=sse(delta(content="Hi"), done=False), cut=True),
            Reply(parts=sse(delta(content="never"))),
        )
        result = ask(server, stream=True)
        assert (result["error_type"], result["attempts"], len(waits)) == ("connection_error", 2, 1)


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "kind", "attempts"),
        [
            (400, "invalid_request", 1),
            (401, "authentication_error", 1),
            (403, "authentication_error", 1),
            (404, "invalid_request", 1),
            (408, "timeout", 3),
            (422, "invalid_request", 1),
            (429, "rate_limited", 3),
            (500, "llm_error", 3),
            (502, "llm_error", 3),
            (504, "timeout", 3),
            (301, "llm_error", 3),
        ],
    )
    def test_each_status_has_a_type(
        self, server: LocalServer, waits: list[float], status: int, kind: str, attempts: int
    ) -> None:
        server.answer = lambda request: Reply(status, {"error": {"message": f"it is\nwrong: {KEY}"}})
        result = ask(server)
        assert (result["success"], result["error_type"], result["status"]) == (False, kind, status)
        assert (result["attempts"], len(server.requests), len(waits)) == (attempts, attempts, attempts - 1)
        assert f"answered with status {status}: it is wrong: ***" in result["error"]
        assert KEY not in json.dumps(result)

    def test_a_node_fails_with_the_type_and_without_the_key(
        self, server: LocalServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.answer = lambda request: Reply(401, {"error": f"bad key {KEY}"})
        llm = {"base_url": server.url.replace("//", "//ana:s3cret@"), "api_key": KEY, "model": "m"}
        node = {"name": "ask", "uses": "llm.call", "with": {"prompt": "x"}}
        caplog.set_level(logging.DEBUG)
        with YAMLEngine() as engine, pytest.raises(NodeError) as caught:
            list(engine.load_from_dict({"settings": {"llm": llm}, "nodes": [node]}).invoke())
        assert caught.value.error_type == "authentication_error"
        assert "bad key ***" in str(caught.value)
        assert "s3cret" not in str(caught.value) + caplog.text

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"choices": []}',
            b'{"choices": [{}]}',
            b'{"choices": [{"message": 1}]}',
            b'{"choices": [{"message": {"tool_calls": [1]}}]}',
            b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}}]}',
            b"[" * 100_000,
        ],
        ids=lambda body: body[:60].decode(),
    )
    def test_a_broken_answer_is_requested_again(self, server: LocalServer, waits: list[float], body: bytes) -> None:
        server.answer = in_turn(Reply(body=body), saying("Hi")(Request("", "", {}, b"")))
        result = ask(server)
        assert (result["content"], result["attempts"], len(waits)) == ("Hi", 2, 1)
        server.answer = lambda request: Reply(body=body)
        result = ask(server, max_retries=0)
        assert (result["success"], result["error_type"]) == (False, "llm_error")

    def test_a_server_that_does_not_answer_in_time_fails(self, server: LocalServer, waits: list[float]) -> None:
        release = Event()
        server.answer = lambda request: Reply(body=str(release.wait(10)))
        result = ask(server, timeout=0.05, max_retries=1)
        release.set()
        assert (result["error_type"], result["attempts"]) == ("timeout", 2)
        assert "did not answer within 0.05 seconds (after 2 attempts)" in result["error"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_server_that_never_ends_fails(self, server: LocalServer, *, stream: bool) -> None:
        def drip() -> Iterator[bytes]:
            while not release.wait(0.01):
                yield b": wait\n"

        release = Event()
        server.answer = lambda request: Reply(parts=drip())
        result = ask(server, timeout=0.2, max_retries=0, stream=stream)
        release.set()
        assert (result["error_type"], "did not end within 0.2 seconds" in result["error"]) == ("timeout", True)

    def test_a_server_that_is_not_there_fails(self, server: LocalServer, waits: list[float]) -> None:
        with local_server(saying("Hi")) as gone:
            pass
        result = ask(gone)
        assert (result["error_type"], result["attempts"]) == ("connection_error", 3)


class TestWaits:
    def test_each_is_twice_as_long_up_to_a_limit(self, server: LocalServer, waits: list[float]) -> None:
        server.answer = lambda request: Reply(500)
        ask(server, max_retries=4, base_delay=1, max_delay=5)
        assert [longest / 2 <= wait <= longest for wait, longest in zip(waits, [1, 2, 4, 5], strict=True)] == [True] * 4

    def test_the_server_says_how_long(self, server: LocalServer, waits: list[float]) -> None:
        later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
        server.answer = in_turn(
            Reply(429, headers={"Retry-After": "7"}),
            Reply(503, headers={"Retry-After": later}),
            Reply(429, headers={"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}),
            Reply(429, headers={"Retry-After": "soon"}),
            saying("Hi")(Request("", "", {}, b"")),
        )
        result = ask(server, max_retries=9)
        assert (result["content"], result["attempts"]) == ("Hi", 5)
        assert waits[0] == 7
        assert 25 < waits[1] <= 30
        assert waits[2] == 0
        assert 0 < waits[3] <= 4

    def test_one_that_asks_for_too_long_a_wait_is_not_asked_again(
        self, server: LocalServer, waits: list[float]
    ) -> None:
        server.answer = lambda request: Reply(429, headers={"Retry-After": "3600"})
        result = ask(server)
        assert (result["error_type"], result["retry_after"], waits) == ("rate_limited", 3600, [])
