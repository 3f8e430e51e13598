"""Sends requests to the example of a server, cancels some of them, and compares each answer with what may be stored.

    python -m benchmarks.serving --seconds 60 postgresql://... mysql://... sqlite:///notes.db

Each user has one request at a time: it stores, reads, deletes, searches or exports the user's notes. About one request
in four is cancelled after a random time, at any point of it. Beside them a task measures how long the event loop was
blocked, which the requests of all users also share in: without ``--pause`` they never leave it idle. The end is an
error if an answer is wrong, or a connection is left.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from the_edge_agent.memory import create_ltm_backend
from the_edge_agent.memory.aio import AsyncMemory

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "server.py"
USERS: Final = 200
_VARIABLE: Final = "TEA_LTM_URL"  # from which the example takes the database
_KEYS: Final = ("tea", "fox", "large")
_LARGE: Final = 1_000_000  # characters of the text in a large note
_TICK: Final = 0.001  # seconds between two looks at the clock
_NEVER: Final = None  # the state of a note that does not exist


@dataclass
class Outcome:
    """What a run has shown.

    Attributes:
        requests: the finished requests by their status.
        cancelled: how many requests were cancelled.
        wrong: descriptions of wrong answers.
        delays: seconds by which the clock task was late, ascending.
        connections_in_use: the connections that were taken from the pool at the end.
    """

    requests: Counter[int] = field(default_factory=Counter)
    cancelled: int = 0
    wrong: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    connections_in_use: int = 0

    def late(self, part: float) -> float:
        """Return the delay in seconds that this part of the looks at the clock did not exceed."""
        return self.delays[min(len(self.delays) - 1, int(part * len(self.delays)))] if self.delays else 0.0


def serve(
    url: str, *, seconds: float, users: int = USERS, seed: int = 0, large: int = _LARGE, pause: float = 0.0
) -> Outcome:
    """Run the example on a database, with requests of many users at a time.

    Args:
        url: the database, whose memory is emptied before.
        seconds: how long requests are sent.
        users: how many users send one request after another.
        seed: of the random numbers.
        large: the length of the largest note, in characters.
        pause: seconds between two requests of a user, on average.
    """
    with create_ltm_backend(url=url, errors="raise") as memory:
        memory.namespace("users").delete_all("", nested=True)
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = url
    try:
        return anyio.run(_serve, seconds, users, seed, large, pause)
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before


async def _serve(seconds: float, users: int, seed: int, large: int, pause: float) -> Outcome:
    app, outcome = _example(), Outcome()
    rest = json.dumps(["red fox " * 8] * (large // 64))
    async with app.router.lifespan_context(app) as state:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_look_at_the_clock, outcome.delays)
            async with anyio.create_task_group() as clients:
                for number in range(users):
                    client = _Client(app, state, number, random.Random(f"{seed} {number}"), outcome, rest)
                    clients.start_soon(client.send_requests, time.monotonic() + seconds, pause)
            tasks.cancel_scope.cancel()
        outcome.connections_in_use = await _connections_in_use(state["memory"])
    outcome.delays.sort()
    return outcome


async def _connections_in_use(memory: AsyncMemory) -> int:
    """Return how many connections are still in use. One that was being opened may be closed a little later."""
    in_use = 0
    for _ in range(50):
        pool = memory.stats()["pool"]
        in_use = pool["in_use"] if pool else 0
        if not in_use:
            break
        await anyio.sleep(0.1)
    return in_use


async def _look_at_the_clock(delays: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await anyio.sleep(_TICK)
        delays.append(time.perf_counter() - began - _TICK)


class _Client:
    """One user, who knows which notes may be stored."""

    def __init__(
        self, app: Any, state: Mapping[str, Any], number: int, chance: random.Random, outcome: Outcome, rest: str
    ) -> None:
        self._app, self._state, self._number = app, state, number
        self._chance, self._outcome, self._rest = chance, outcome, rest
        self._possible: dict[str, list[Any]] = {key: [_NEVER] for key in _KEYS}  # what each note may be
        self._written = 0

    async def send_requests(self, end: float, pause: float) -> None:
        """Send one request after another until the end, then read each note once more."""
        while time.monotonic() < end:
            if pause:
                await anyio.sleep(self._chance.expovariate(1 / pause))
            await self._send_one()
        for key in _KEYS:
            await self._read(key, may_cancel=False)

    async def _send_one(self) -> None:
        kind = self._chance.choices(("put", "get", "delete", "search", "export"), (30, 40, 10, 15, 5))[0]
        key = self._chance.choices(_KEYS, (45, 45, 10))[0]
        if kind == "put":
            await self._write(key, self._note(key))
        elif kind == "delete":
            await self._write(key, _NEVER)
        elif kind == "get":
            await self._read(key)
        elif kind == "search":
            await self._search()
        else:
            await self._export()

    def _note(self, key: str) -> str:
        """Return a new note as JSON, exactly as the server writes it."""
        self._written += 1
        text = self._rest if key == "large" else f'"a note about {key}"'
        return f'{{"mark": "user{self._number}x{self._written}", "text": {text}}}'

    async def _write(self, key: str, note: Any) -> None:
        if note is _NEVER:
            status, _ = await self._request("DELETE", f"/notes/{key}")
            is_done = status in (204, 404)
        else:
            status, _ = await self._request("PUT", f"/notes/{key}", note.encode())
            is_done = status in (200, 201)
        if is_done:
            self._possible[key] = [note]
        else:
            self._possible[key].append(note)
            self._check(status is None or status == 503, f"writing {key} gave {status}")

    async def _read(self, key: str, *, may_cancel: bool = True) -> None:
        status, body = await self._request("GET", f"/notes/{key}", may_cancel=may_cancel)
        if status is None or status == 503:
            self._check(may_cancel, f"reading {key} gave {status}")
            return
        note = _NEVER if status == 404 else _between(body, '{"note": ', ', "version": ')
        self._check(note in self._possible[key], f"{key} is {str(note)[:80]}")
        self._possible[key] = [note]

    async def _search(self) -> None:
        status, body = await self._request("GET", "/search?question=Is+there+a+note%3F")
        if status == 200:
            for each in json.loads(body):
                self._check(json.dumps(each["note"]) in self._possible[each["key"]], f"found {each['key']}")
        else:
            self._check(status is None or status == 503, f"searching gave {status}")

    async def _export(self) -> None:
        status, body = await self._request("GET", "/export")
        if status == 200:
            lines = body.decode().splitlines()
            notes = {_between(line, '{"key": "', '", "note": '): _between(line, ', "note": ', "}") for line in lines}
            for key, possible in self._possible.items():
                self._check(notes.get(key, _NEVER) in possible, f"exported {key}")

    def _check(self, is_right: bool, what: str) -> None:
        if not is_right:
            self._outcome.wrong.append(f"user {self._number}: {what}")

    async def _request(
        self, method: str, path: str, body: bytes = b"", *, may_cancel: bool = True
    ) -> tuple[int | None, bytes]:
        """Return the status and the body of the response; the status None if the request was cancelled."""
        name, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": name,
            "raw_path": name.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"x-user", f"user {self._number}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": dict(self._state),
        }
        has_sent_body = False
        status: list[int] = []
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            nonlocal has_sent_body
            if has_sent_body:
                await anyio.sleep_forever()
            has_sent_body = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
            else:
                parts.append(message.get("body", b""))

        will_cancel = may_cancel and self._chance.random() < 0.25
        with anyio.move_on_after(self._chance.expovariate(1 / 0.05) if will_cancel else None) as cancelling:
            await self._app(scope, receive, send)
        if cancelling.cancelled_caught:
            self._outcome.cancelled += 1
            return None, b""
        self._outcome.requests[status[0]] += 1
        return status[0], b"".join(parts)


def _between(text: str | bytes, before: str, after: str) -> str:
    """Return the part of a text after its first ``before`` and before its last ``after``. Nothing is parsed."""
    text = text if isinstance(text, str) else text.decode()
    return text[text.index(before) + len(before) : text.rindex(after)]


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("example_of_a_server", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL", help="a database; its namespace `users` is emptied")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", type=int, default=_LARGE, help="characters of the largest note")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a user, on average")
    options = parser.parse_args(arguments)
    is_right = True
    for url in options.urls:
        outcome = serve(
            url,
            seconds=options.seconds,
            users=options.users,
            seed=options.seed,
            large=options.large,
            pause=options.pause,
        )
        print(
            f"{url.split(':')[0]}: {sum(outcome.requests.values())} requests {dict(outcome.requests)}, "
            f"{outcome.cancelled} cancelled, {len(outcome.wrong)} wrong {outcome.wrong[:5]}, "
            f"{outcome.connections_in_use} connections in use, event loop late by "
            f"{outcome.late(0.5) * 1000:.1f} ms (half), {outcome.late(0.99) * 1000:.1f} ms (99%), "
            f"{outcome.late(0.999) * 1000:.1f} ms (99.9%), {outcome.late(1) * 1000:.1f} ms (all)"
        )
        is_right = is_right and not outcome.wrong and not outcome.connections_in_use
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
