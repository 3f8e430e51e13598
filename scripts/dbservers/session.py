"""Starts, in parallel, the servers for which the environment has no URL, and stops them at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .clusters import CLUSTERS
from .engines import BEHIND, ENGINES

ENTRY = Path(__file__).parent.with_name("servers.py")


def variable(name: str) -> str:
    """Return the name of the environment variable with the URL of a server, or with the URLs of a cluster's nodes."""
    return f"TEST_{name.upper()}_URL{'S' if name in CLUSTERS else ''}"


class Session:
    """A set of servers; they stop at the end of the block, and when this process dies in any way.

    Attributes:
        urls: The URL of each server by its name, after `wait`.
        missing: Why a server is not available, by its name, after `wait`.
        preset: Names of the servers whose URL was in the environment before.
    """

    def __init__(
        self, names: Sequence[str] = tuple(ENGINES), *, settings: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Begin to start the servers; `wait` waits until they are ready.

        Args:
            names: The names of the servers.
            settings: Settings that are added to the configuration of a server, by its name, such as
                ``{"mariadb": {"sql_mode": "ORACLE"}}``. A server with settings is started even if the environment has
                a URL for it.
        """
        self._settings = settings = settings or {}
        from_environment = {name: os.environ.get(variable(name)) for name in names if name not in settings}
        self.urls = {name: url for name, url in from_environment.items() if url}
        self.preset = tuple(self.urls)
        self.missing: dict[str, str] = {}
        self._keepers: dict[str, subprocess.Popen[str]] = {}
        poolers = [name for name in names if name not in self.urls and name not in CLUSTERS and ENGINES[name].behind]
        self._behind = {name: ENGINES[name].behind for name in poolers}
        needed = {name for name in self._behind.values() if name}
        self.urls |= {name: url for name in needed - set(settings) if (url := os.environ.get(variable(name)))}
        try:
            for name in dict.fromkeys([*names, *needed]):
                if name not in self.urls and name not in self._behind:
                    self._keepers[name] = _keeper(name, settings.get(name, {}))
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Wait until each server is ready or has failed; start each pooler after the server to which it connects."""
        self._wait(self._keepers)
        poolers = {}
        for name, server in self._behind.items():
            if server in self.urls:
                poolers[name] = self._keepers[name] = _keeper(name, self._settings.get(name, {}), self.urls[server])
            else:
                self.missing[name] = f"it needs {server}, which is not available"
        self._behind = {}
        self._wait(poolers)

    def _wait(self, keepers: Mapping[str, subprocess.Popen[str]]) -> None:
        for name, keeper in keepers.items():
            assert keeper.stdout
            line = keeper.stdout.readline()
            message = json.loads(line) if line else {"missing": "the process that starts it failed, see above"}
            if "url" in message:
                self.urls[name] = message["url"]
            else:
                self.missing[name] = message["missing"]

    def complete(self) -> bool:
        """Return whether every server that was started still runs."""
        return all(keeper.poll() is None for name, keeper in self._keepers.items() if name in self.urls)

    def environment(self) -> dict[str, str]:
        """Return the environment variables with the URLs of the servers."""
        return {variable(name): url for name, url in self.urls.items()}

    def stop(self) -> None:
        """Stop the servers and remove their data; servers that have failed meanwhile are added to `missing`."""
        for keeper in self._keepers.values():
            assert keeper.stdin
            keeper.stdin.close()
        for name, keeper in self._keepers.items():
            assert keeper.stdout
            for line in keeper.stdout:
                self.missing.setdefault(name, json.loads(line).get("missing", ""))
            keeper.wait()
            keeper.stdout.close()
        self._keepers.clear()

    def __enter__(self) -> Session:
        """Enter the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers."""
        self.stop()


def _keeper(name: str, settings: Mapping[str, str], behind: str = "") -> subprocess.Popen[str]:
    # A new session, so that Ctrl-C reaches only this process, which then decides when the keeper stops.
    return subprocess.Popen(
        [sys.executable, str(ENTRY), "keep", name, *(f"{key}={value}" for key, value in settings.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, BEHIND: behind},
        text=True,
        start_new_session=True,
    )
