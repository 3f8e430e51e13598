"""The actions ``http.get`` and ``http.post``, against a server of this process."""

from __future__ import annotations

import logging
import sys
from base64 import b64encode
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from local_http import LocalServer, Reply, Request, local_server
from the_edge_agent import NodeError, YAMLEngine
from the_edge_agent.workflow.actions import web


def echo(request: Request) -> Reply:
    seen = {"method": request.method, "path": request.path, "body": request.body.decode()}
    return Reply(body={**seen, "type": request.headers.get("content-type"), "token": request.headers.get("x-token")})


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server(echo) as server:
        yield server


def call(name: str, **arguments: Any) -> Any:
    with YAMLEngine() as engine:
        return engine.actions_registry[name]({}, **arguments)


def test_get_returns_the_data_of_the_body(server: LocalServer) -> None:
    node = {"url": server.url + "/a", "params": {"q": "{{ state.q }}"}, "headers": {"X-Token": "t"}}
    with YAMLEngine() as engine:
        graph = engine.load_from_dict({"nodes": [{"name": "a", "uses": "http.get", "with": node, "output": "r"}]})
        state = next(graph.invoke({"q": "green tea"}))["state"]
    assert state["r"] == {"method": "GET", "path": "/a?q=green+tea", "body": "", "type": None, "token": "t"}


def test_post_sends_json_text_or_a_form(server: LocalServer) -> None:
    result = call("http.post", url=server.url, json={"a": [1]})
    assert (result["type"], result["body"].replace(" ", "")) == ("application/json", '{"a":[1]}')
    assert call("http.post", url=server.url, data="text")["body"] == "text"
    assert call("http.post", url=server.url, data={"a": "b c"})["body"] == "a=b+c"


def test_user_and_password_of_a_url_are_sent_but_not_logged(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    call("http.get", url=server.url.replace("//", "//ana:s3cret@"))
    assert server.requests[0].headers["authorization"] == "Basic " + b64encode(b"ana:s3cret").decode()
    assert "s3cret" not in caplog.text


def test_other_text_is_returned_as_it_is(server: LocalServer) -> None:
    server.answer = lambda request: Reply(
        body="gr\u00fcn".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
    )
    assert call("http.get", url=server.url) == "gr\u00fcn"


def test_all_of_the_response_is_returned_if_requested(server: LocalServer) -> None:
    server.answer = lambda request: Reply(201, [1], {"X-Limit": "5"})
    result = call("http.get", url=server.url, full=True)
    assert (result["success"], result["status"], result["body"], result["headers"]["x-limit"]) == (True, 201, [1], "5")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "http_error"),
        (401, "authentication_error"),
        (404, "not_found"),
        (429, "rate_limited"),
        (500, "http_error"),
    ],
)
def test_a_status_that_is_no_success_fails(server: LocalServer, status: int, kind: str) -> None:
    server.answer = lambda request: Reply(status, {"secret": 1})
    address = server.url.replace("http://", "http://ana:s3cret@") + "/s3cret?key=s3cret"
    nodes = [{"name": "a", "uses": "http.get", "with": {"url": address}}]
    with YAMLEngine() as engine, pytest.raises(NodeError) as caught:
        list(engine.load_from_dict({"nodes": nodes}).invoke())
    assert caught.value.error_type == kind
    assert f"answered with status {status}" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_get_follows_redirects_but_not_for_ever(server: LocalServer) -> None:
    server.answer = lambda request: (
        echo(request) if request.path == "/end" else Reply(302, headers={"Location": request.path[1:] or "/end"})
    )
    assert call("http.get", url=server.url)["path"] == "/end"
    server.answer = lambda request: Reply(302, headers={"Location": "/"})
    assert call("http.get", url=server.url)["error"].endswith("redirects more than 5 times")
    assert call("http.post", url=server.url) == ""


def test_a_server_that_does_not_answer_in_time_fails(server: LocalServer) -> None:
    release = Event()
    server.answer = lambda request: Reply(body=str(release.wait(10)))
    result = call("http.get", url=server.url, timeout=0.05)
    release.set()
    assert (result["error_type"], result["error"].endswith("did not answer within 0.05 seconds")) == ("timeout", True)


def test_a_server_that_never_ends_fails(server: LocalServer) -> None:
    def drip() -> Iterator[bytes]:
        while not release.wait(0.01):
            yield b"x"

    release = Event()
    server.answer = lambda request: Reply(parts=drip())
    result = call("http.get", url=server.url, timeout=0.2)
    release.set()
    assert (result["error_type"], result["error"].endswith("did not end within 0.2 seconds")) == ("timeout", True)


def test_a_response_that_is_too_large_fails(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda request: Reply(body="x" * 1001)
    monkeypatch.setattr(web.body_of, "__defaults__", (1000,))
    assert call("http.get", url=server.url)["error_type"] == "too_large"


def test_a_connection_that_is_lost_fails(server: LocalServer) -> None:
    server.answer = lambda request: Reply(parts=iter([b"half"]), cut=True)
    assert call("http.get", url=server.url)["error_type"] == "connection_error"


def test_a_server_that_is_not_there_fails() -> None:
    with local_server(echo) as server:
        pass
    assert call("http.get", url=server.url)["error_type"] == "connection_error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": ""},
        {"url": "ftp://127.0.0.1/x"},
        {"url": "file:///etc/passwd"},
        {"url": "http://[::1"},
        {"url": "nothing"},
        {"timeout": 0},
        {"timeout": "5"},
        {"headers": "a"},
        {"headers": {"a": "b\nc"}},
        {"params": [1]},
        {"json": 1, "data": "2"},
        {"json": {1, 2}},
        {"data": 5},
    ],
    ids=str,
)
def test_wrong_arguments_fail(server: LocalServer, wrong: dict[str, Any]) -> None:
    result = call("http.post", **{"url": server.url, **wrong})
    assert (result["success"], result["error_type"]) == (False, "validation_error")
    assert server.requests == []


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    result = call("http.get", url="http://127.0.0.1:1")
    assert (result["error_type"], "the-edge-agent[llm]" in result["error"]) == ("dependency_missing", True)


def test_the_engine_closes_its_connections(server: LocalServer) -> None:
    engine = YAMLEngine()
    engine.actions_registry["http.get"]({}, url=server.url)
    client = engine._web.client()
    engine.close()
    engine.close()
    assert client.is_closed
    assert engine.actions_registry["http.get"]({}, url=server.url)["error"] == "the engine is closed"
