"""The clusters that tests run on: finds them, gives each test an empty database, and balances the load of the nodes."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from faults.connections import Proxy

Mode = Literal["multi", "single"]

VARIABLES: Final[Mapping[str, str]] = {
    "galera": "TEST_GALERA_URLS",
    "group_replication": "TEST_GROUP_REPLICATION_URLS",
}
_PATIENCE: Final = 60  # seconds to wait for a condition of a cluster
# Each query returns 1 if the node takes writes.
_TAKES_WRITES: Final[Mapping[str, str]] = {
    "galera": "SELECT VARIABLE_VALUE = 'ON' FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'WSREP_READY'",
    "group_replication": (
        "SELECT MEMBER_STATE = 'ONLINE' AND MEMBER_ROLE = 'PRIMARY' AND NOT @@super_read_only "
        "FROM performance_schema.replication_group_members WHERE MEMBER_ID = @@server_uuid"
    ),
}
_HAS_JOINED: Final[Mapping[str, str]] = {
    "galera": (
        "SELECT COUNT(*) = 2 FROM information_schema.GLOBAL_STATUS WHERE (VARIABLE_NAME, VARIABLE_VALUE) IN "
        "(('WSREP_LOCAL_STATE_COMMENT', 'Synced'), ('WSREP_CLUSTER_SIZE', '3'))"
    ),
    "group_replication": (
        "SELECT COUNT(*) = 3 FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'"
    ),
}
# With this setting a session reads everything that any node has committed.
_UP_TO_DATE: Final[Mapping[str, str]] = {
    "galera": "SET SESSION wsrep_sync_wait = 1",
    "group_replication": "SET SESSION group_replication_consistency = 'BEFORE'",
}
_SWITCH: Final[Mapping[Mode, str]] = {
    "multi": "SELECT group_replication_switch_to_multi_primary_mode()",
    "single": "SELECT group_replication_switch_to_single_primary_mode()",
}


def present(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the clusters whose nodes the environment names."""
    return [name for name, variable in VARIABLES.items() if environment.get(variable)]


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster, with the URLs of one test's database on them."""

    name: str
    urls: tuple[str, ...]

    def ask(self, node: int, statement: str) -> Any:
        """Run a statement on a node, and return the first value of the first row, if there is one."""
        url = make_url(self.urls[node])
        import pymysql  # not every environment of the tests has it

        with pymysql.connect(  # not SQLAlchemy: a node without its cluster refuses the queries with which it starts
            host=url.host,
            port=url.port or 0,
            user=url.username,
            password=str(url.password),
            database=url.database,
            autocommit=True,
            connect_timeout=2,
            read_timeout=30,
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            row = cursor.fetchone()
            return row and row[0]

    def takes_writes(self, node: int) -> bool:
        """Return whether a node answers and takes writes."""
        return self._is(_TAKES_WRITES, node)

    def is_whole(self) -> bool:
        """Return whether every node sees all of them."""
        return all(self._is(_HAS_JOINED, node) for node in range(len(self.urls)))

    def kill(self, node: int) -> None:
        """Kill the server of a node as ``kill -9`` does; the keeper that has started it starts it again."""
        file = Path(str(self.ask(node, "SELECT @@pid_file")))
        os.kill(int(file.read_text()), signal.SIGKILL)

    def isolate(self, node: int, *, isolated: bool) -> None:
        """Disconnect a node of Galera from the others, or let it join them again."""
        self.ask(node, f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(isolated)}'")
        eventually((lambda: not self.takes_writes(node)) if isolated else self.is_whole)

    def make_primary(self, node: int) -> None:
        """Make a node of Group Replication the primary, which takes the writes."""
        member = self.ask(node, "SELECT @@server_uuid")
        self.ask(node, f"SELECT group_replication_set_as_primary('{member}')")

    def rows(self, node: int) -> dict[str, tuple[int, str]]:
        """Wait until a node has all commits of the cluster; return version and value of each of its entries by key."""
        engine = create_engine(self.urls[node], poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(_UP_TO_DATE[self.name]))
            rows = connection.execute(text("SELECT `key`, version, value FROM ltm_entries")).all()
        return {key: (version, value) for key, version, value in rows}

    def catch_up(self) -> None:
        """Wait until each node has all commits of the cluster."""
        for node in range(len(self.urls)):
            self.rows(node)

    def writable(self) -> int:
        """Return the first node that takes writes."""
        eventually(lambda: any(self.takes_writes(node) for node in range(len(self.urls))))
        return next(node for node in range(len(self.urls)) if self.takes_writes(node))

    def is_in(self, mode: Mode, node: int) -> bool:
        """Return whether a node of Group Replication is in a mode; in the mode "multi" it must also take writes."""
        is_single = bool(self.ask(node, "SELECT @@group_replication_single_primary_mode"))
        return is_single if mode == "single" else not is_single and self.takes_writes(node)

    def is_there(self, node: int) -> bool:
        """Return whether a node answers and has the database of the test."""
        return self._is(dict.fromkeys(VARIABLES, "SELECT 1"), node)

    def _is(self, queries: Mapping[str, str], node: int) -> bool:
        import pymysql

        try:
            return bool(self.ask(node, queries[self.name]))
        except pymysql.Error:
            return False


@contextlib.contextmanager
def cluster_of(name: str, mode: Mode) -> Iterator[Cluster]:
    """Yield a cluster with an empty database. The mode is for Group Replication: all nodes take writes, or one does."""
    nodes = Cluster(name, tuple(os.environ[VARIABLES[name]].split()))
    eventually(nodes.is_whole)
    if name == "group_replication":
        nodes.ask(0, _SWITCH[mode])
        eventually(lambda: all(nodes.is_in(mode, node) for node in range(len(nodes.urls))))
    database = f"tea_test_{secrets.token_hex(6)}"
    nodes.ask(nodes.writable(), f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    urls = [make_url(url).set(database=database).render_as_string(hide_password=False) for url in nodes.urls]
    cluster = Cluster(name, tuple(urls))
    eventually(lambda: all(cluster.is_there(node) for node in range(len(urls))))
    try:
        yield cluster
    finally:
        eventually(nodes.is_whole)
        nodes.ask(nodes.writable(), f"DROP DATABASE {database}")


class Balancer(Proxy):
    """Passes connections on to the nodes that take writes, to each in turn, as a load balancer or a router does.

    Attributes:
        serving: the numbers of the nodes that take writes.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.urls[0])
        self._cluster = cluster
        self.serving: list[int] = []
        self._turns = count()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Balancer:
        super().__enter__()
        self._watch.start()
        eventually(lambda: bool(self.serving))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._watch.join()

    def _look(self) -> None:
        nodes = range(len(self._cluster.urls))
        while not self._ended.wait(0.1):
            self.serving = [node for node in nodes if self._cluster.takes_writes(node)]

    def _accept(self, selector: selectors.BaseSelector) -> None:
        serving = self.serving
        if not serving:
            self._listener.accept()[0].close()
            return
        url = make_url(self._cluster.urls[serving[next(self._turns) % len(serving)]])
        self._target = (str(url.host), int(url.port or 0))
        with contextlib.suppress(ConnectionRefusedError):  # the node has just been killed
            super()._accept(selector)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not become what it should be"
        time.sleep(0.05)
