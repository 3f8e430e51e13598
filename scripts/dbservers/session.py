"""Starts the servers that the environment does not name yet, in parallel, and stops them all."""

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
    """Return the environment variable with the URL of a server, or with those of a cluster's nodes."""
    return f"TEST_{name.upper()}_URL{'S' if name in CLUSTERS else ''}"


class Session:
    """A set of servers; they stop when the block is left, and when this process dies in any way.

    Attributes:
        urls: URL by name of server, after `wait`.
        missing: Reason by name of server that could not be had, after `wait`.
        given: Names of the servers that the environment already named.
    """

    def __init__(
        self, names: Sequence[str] = tuple(ENGINES), *, settings: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Start to get the servers; `wait` says what came of it.

        Args:
            names: of the servers.
            settings: by name of server, what its configuration shall have besides ours, such as
                ``{"mariadb": {"sql_mode": "ORACLE"}}``. Such a server is started even if the environment names one.
        """
        self._settings = settings = settings or {}
        given = {name: os.environ.get(variable(name)) for name in names if name not in settings}
        self.urls = {name: url for name, url in given.items() if url}
        self.given = tuple(self.urls)
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
        """Wait until each server is ready or known to be missing; start the poolers as soon as theirs is."""
        self._wait(self._keepers)
        poolers = {}
        for name, server in self._behind.items():
            if server in self.urls:
                poolers[name] = self._keepers[name] = _keeper(name, self._settings.get(name, {}), self.urls[server])
            else:
                self.missing[name] = f"there is no {server}"
        self._behind = {}
        self._wait(poolers)

    def _wait(self, keepers: Mapping[str, subprocess.Popen[str]]) -> None:
        for name, keeper in keepers.items():
            assert keeper.stdout
            line = keeper.stdout.readline()
            message = json.loads(line) if line else {"missing": "what starts it failed, see above"}
            if "url" in message:
                self.urls[name] = message["url"]
            else:
                self.missing[name] = message["missing"]

    def complete(self) -> bool:
        """Tell whether every server that was started still runs."""
        return all(keeper.poll() is None for name, keeper in self._keepers.items() if name in self.urls)

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a command where the servers are."""
        return {variable(name): url for name, url in self.urls.items()}

    def stop(self) -> None:
        """Stop the servers and remove their data; what broke meanwhile is added to `missing`."""
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
    # A session of its own, so that Ctrl-C reaches only who shall decide what to do then.
    return subprocess.Popen(
        [sys.executable, str(ENTRY), "keep", name, *(f"{key}={value}" for key, value in settings.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, BEHIND: behind},
        text=True,
        start_new_session=True,
    )
