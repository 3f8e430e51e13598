"""The clusters that tests run on: which are there, how one is made ready, and a balancer before its nodes."""

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
_PATIENCE: Final = 60  # seconds for a cluster to become what it should be
# One row with 1 where a node takes writes.
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
# What has a session read nothing older than what any node has committed.
_UP_TO_DATE: Final[Mapping[str, str]] = {
    "galera": "SET SESSION wsrep_sync_wait = 1",
    "group_replication": "SET SESSION group_replication_consistency = 'BEFORE'",
}
_SWITCH: Final[Mapping[Mode, str]] = {
    "multi": "SELECT group_replication_switch_to_multi_primary_mode()",
    "single": "SELECT group_replication_switch_to_single_primary_mode()",
}


def present(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the clusters that the environment names the nodes of."""
    return [name for name, variable in VARIABLES.items() if environment.get(variable)]


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster, with a database of one test on all of them."""

    name: str
    urls: tuple[str, ...]

    def ask(self, node: int, question: str) -> Any:
        """Run a statement at a node, and return the first value of its first row, if any."""
        url = make_url(self.urls[node])
        import pymysql  # not every environment of the tests has it

        with pymysql.connect(  # without SQLAlchemy, whose questions a node without its cluster refuses
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
            cursor.execute(question)
            row = cursor.fetchone()
            return row and row[0]

    def takes_writes(self, node: int) -> bool:
        """Return whether a node is there and takes writes."""
        return self._is(_TAKES_WRITES, node)

    def is_whole(self) -> bool:
        """Return whether every node sees all of them."""
        return all(self._is(_HAS_JOINED, node) for node in range(len(self.urls)))

    def kill(self, node: int) -> None:
        """Kill the server of a node as ``kill -9`` does; whoever has started it starts it again."""
        file = Path(str(self.ask(node, "SELECT @@pid_file")))
        os.kill(int(file.read_text()), signal.SIGKILL)

    def isolate(self, node: int, *, isolated: bool) -> None:
        """Cut a node of Galera off from the others, or let it join them again."""
        self.ask(node, f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(isolated)}'")
        eventually((lambda: not self.takes_writes(node)) if isolated else self.is_whole)

    def make_primary(self, node: int) -> None:
        """Have a node of Group Replication take over the writes."""
        member = self.ask(node, "SELECT @@server_uuid")
        self.ask(node, f"SELECT group_replication_set_as_primary('{member}')")

    def rows(self, node: int) -> dict[str, tuple[int, str]]:
        """Return version and value of each entry that a node has, when it has all that was committed anywhere."""
        engine = create_engine(self.urls[node], poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(_UP_TO_DATE[self.name]))
            found = connection.execute(text("SELECT `key`, version, value FROM ltm_entries")).all()
        return {key: (version, value) for key, version, value in found}

    def catch_up(self) -> None:
        """Wait until each node has what any of them has committed."""
        for node in range(len(self.urls)):
            self.rows(node)

    def writable(self) -> int:
        """Return the first node that takes writes."""
        eventually(lambda: any(self.takes_writes(node) for node in range(len(self.urls))))
        return next(node for node in range(len(self.urls)) if self.takes_writes(node))

    def is_in(self, mode: Mode, node: int) -> bool:
        """Return whether a node of Group Replication knows of a mode, and takes writes if all nodes do in it."""
        is_single = bool(self.ask(node, "SELECT @@group_replication_single_primary_mode"))
        return is_single if mode == "single" else not is_single and self.takes_writes(node)

    def is_there(self, node: int) -> bool:
        """Return whether a node has the database."""
        return self._is(dict.fromkeys(VARIABLES, "SELECT 1"), node)

    def _is(self, questions: Mapping[str, str], node: int) -> bool:
        import pymysql

        try:
            return bool(self.ask(node, questions[self.name]))
        except pymysql.Error:
            return False


@contextlib.contextmanager
def cluster_of(name: str, mode: Mode) -> Iterator[Cluster]:
    """Give a cluster with an empty database; of Group Replication all nodes take writes, or a single one."""
    nodes = Cluster(name, tuple(os.environ[VARIABLES[name]].split()))
    eventually(nodes.is_whole)
    if name == "group_replication":
        nodes.ask(0, _SWITCH[mode])
        eventually(lambda: all(nodes.is_in(mode, node) for node in range(len(nodes.urls))))
    database = f"tea_test_{secrets.token_hex(6)}"
    nodes.ask(nodes.writable(), f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    urls = [make_url(url).set(database=database).render_as_string(hide_password=False) for url in nodes.urls]
    made = Cluster(name, tuple(urls))
    eventually(lambda: all(made.is_there(node) for node in range(len(urls))))
    try:
        yield made
    finally:
        eventually(nodes.is_whole)
        nodes.ask(nodes.writable(), f"DROP DATABASE {database}")


class Balancer(Proxy):
    """Stands before the nodes that take writes, as a load balancer or a router does, and gives each its turn.

    Attributes:
        serving: the numbers of these nodes.
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
    """Wait for a condition."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not become what it should be"
        time.sleep(0.05)
