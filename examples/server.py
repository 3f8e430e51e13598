"""A server that keeps notes, for each user apart. It is an ASGI application of Starlette.

    pip install "the-edge-agent[async,sqlalchemy]" starlette uvicorn
    uvicorn --app-dir examples server:app

    curl -X PUT localhost:8000/notes/tea -H 'X-User: ada' -d '"Ada likes green tea."'
    curl 'localhost:8000/search?question=who+likes+tea?' -H 'X-User: ada'

The notes are in the file notes.db of the current folder. To use a server of a database, set TEA_LTM_URL. The proxy in
front of this server must set the header X-User, after it has checked who the user is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter, create_task_group, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from the_edge_agent.memory import LTMError
from the_edge_agent.memory.aio import AsyncMemory

LONGEST = 2_000_000  # bytes of a note
LARGE = 20_000  # bytes; a thread decodes and encodes notes from this size on, so that the event loop is not blocked
ONE = CapacityLimiter(1)
STATUS = {
    "validation_error": 400,
    "serialization_error": 400,
    "conflict": 409,
    "connection_timeout": 503,
    "connection_error": 503,
}
log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    """Open the memory when the server starts, or fail. At the shutdown, close it after the calls that have begun."""
    url = os.environ.get("TEA_LTM_URL", "sqlite:///./notes.db")
    async with AsyncMemory(url=url, errors="raise") as memory:
        yield {"memory": memory}


def memory_of(request: Request) -> AsyncMemory:
    """Return the part of the memory that belongs to the user of this request."""
    user = request.headers.get("x-user")
    if not user:
        raise HTTPException(401, "the header X-User is missing")
    memory: AsyncMemory = request.state.memory
    return memory.namespace("users", user)


async def put(request: Request) -> Response:
    """Store a note. The header If-Match allows only the replacement of this version; 0 allows only a new note."""
    memory = memory_of(request)
    expected = request.headers.get("if-match")
    if expected is not None and not (expected.isdecimal() and len(expected) < 20):
        raise HTTPException(400, "If-Match must be the number of a version")
    body = await body_of(request)
    try:
        note = await convert(json.loads, body, size=len(body))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON, or is nested too deeply") from None
    version = None if expected is None else int(expected)
    stored = await memory.store(request.path_params["key"], note, {"size": len(body)}, if_version=version)
    return JSONResponse({"version": stored["version"]}, 201 if stored["created"] else 200)


async def get(request: Request) -> Response:
    """Return a note and its version."""
    found = await memory_of(request).retrieve(request.path_params["key"])
    if not found["found"]:
        raise HTTPException(404, "there is no such note")
    answer = {"note": found["value"], "version": found["version"]}
    return Response(await convert(json.dumps, answer, size=size_of(found)), media_type="application/json")


async def delete(request: Request) -> Response:
    """Delete a note."""
    deleted = await memory_of(request).delete(request.path_params["key"])
    return Response(status_code=204 if deleted["deleted"] else 404)


async def search(request: Request) -> Response:
    """Return the notes that answer a question, the best first."""
    memory = memory_of(request)
    question = request.query_params.get("question", "")
    found = await while_the_client_waits(request, memory.search(question, limit=10))
    notes = [{"key": each["key"], "note": each["value"]} for each in found["results"]]
    text = await convert(json.dumps, notes, size=sum(map(size_of, found["results"])))
    return Response(text, media_type="application/json")


async def export(request: Request) -> Response:
    """Send all notes of the user, one JSON object a line. They are read while the client takes them."""
    memory = memory_of(request)

    async def lines() -> AsyncIterator[str]:
        async for entry in memory.iterate_entries():
            note = {"key": entry["key"], "note": entry["value"]}
            yield await convert(json.dumps, note, size=size_of(entry)) + "\n"

    return StreamingResponse(lines(), media_type="application/jsonl")


async def while_the_client_waits(request: Request, work: Awaitable[Any]) -> Any:
    """Return the answer of a call. If the client closes the connection, the call is cancelled, so a search stops."""
    answers: list[Any] = []
    async with create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        answers.append(await work)
        tasks.cancel_scope.cancel()
    if not answers:
        raise HTTPException(499, "the client has left")
    return answers[0]


def size_of(entry: Mapping[str, Any]) -> int:
    """Return the bytes of the note of an entry, which ``put`` has stored beside it. Another program may not have."""
    size: int = (entry["metadata"] or {}).get("size", LARGE)
    return size


async def convert(function: Callable[[Any], Any], value: Any, *, size: int) -> Any:
    """Call a function of the module ``json``, in a thread if the value is large; one at a time."""
    return function(value) if size < LARGE else await to_thread.run_sync(function, value, limiter=ONE)


async def body_of(request: Request) -> bytes:
    """Return the body of a request, if it is not too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST:
            raise HTTPException(413, f"a note may have {LONGEST:,} bytes")
    return bytes(body)


async def on_failure(request: Request, error: Exception) -> Response:
    """Answer a call of the memory that failed."""
    assert isinstance(error, LTMError)
    status = STATUS.get(error.error_type, 500)
    if status >= 500:
        log.warning("%s: %s", error.error_type, error)
    text = str(error) if status < 500 else error.error_type  # details of the database are for the log alone
    return Response(text, status, media_type="text/plain")


app = Starlette(
    routes=[
        Route("/notes/{key:path}", put, methods=["PUT"]),
        Route("/notes/{key:path}", get, methods=["GET"]),
        Route("/notes/{key:path}", delete, methods=["DELETE"]),
        Route("/search", search),
        Route("/export", export),
    ],
    exception_handlers={LTMError: on_failure},
    lifespan=lifespan,
)
