"""Runs one server: gets it, starts it, and stops it when the parent process tells it to, or dies."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from . import cache
from .clusters import CLUSTERS, NODES, Cluster
from .engines import ENGINES, RESTARTS, Engine, Place
from .process import Account, ParentGoneError, UnavailableError, check_parent, heed_parent, last_line, started

PREFIX = "tea-db-"
MINUTE = 60
START_SECONDS = 90
PORT_TAKEN = (b"Address already in use", b"could not create any TCP/IP sockets", b"Can't start server: Bind")
PORTS_OF_NODES = (20_000, 32_000)
LONGEST_BASE = 60  # characters of the temporary folder; the path of a socket may have some 100 bytes


def keep(name: str, settings: Mapping[str, str]) -> None:
    """Run a server or cluster with these settings until standard input closes; print its URL, or why it cannot run."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_parent()
    try:
        account = _account()
        base = _base(account)
        _sweep(base)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX + name, dir=base))
        try:
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if name in CLUSTERS:
                    _Nodes(CLUSTERS[name], folder, account, settings).serve()
                else:
                    _serve(ENGINES[name], folder, account, settings)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            shutil.rmtree(folder, ignore_errors=True)
    except ParentGoneError:
        pass
    except (UnavailableError, OSError) as error:
        _tell({"missing": str(error)})


def _serve(engine: Engine, folder: Path, account: Account | None, settings: Mapping[str, str]) -> None:
    root = cache.within_reach(engine.find(), account, folder)
    place = _place(folder, account, engine.stop, settings)
    engine.prepare(root, place)
    for _ in range(5):
        port = _free_port()
        deadline = None  # for the next start; None for the first start, which must succeed at once
        while True:
            try:
                if not _run_once(engine, root, place, port, is_first=deadline is None):
                    break
                deadline = time.monotonic() + START_SECONDS
            except UnavailableError:
                if deadline is None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # the reason may go away, such as a full disk
    raise UnavailableError("no free port was found in five attempts")


def _run_once(engine: Engine, root: Path, place: Place, port: int, *, is_first: bool) -> bool:
    """Start the server and wait for its end; return false if another process has taken its port."""
    log = place.folder / "log"
    log.unlink(missing_ok=True)
    command = engine.command(root, place, port)
    with started(command, log=log, account=place.account, env=place.env, cwd=place.data, stop=engine.stop) as server:
        if not _wait_until_ready(engine, server, log, port):
            return False
        (place.folder / "accounts").unlink(missing_ok=True)
        if is_first:
            _tell({"url": engine.url(root, place, port)})
        _wait(engine, server, log)
    return True


class _Nodes:
    """The nodes of one cluster."""

    def __init__(self, cluster: Cluster, folder: Path, account: Account | None, settings: Mapping[str, str]) -> None:
        """Create the data of the nodes, and choose their ports."""
        self._cluster = cluster
        self._root = cache.within_reach(cluster.find(), account, folder)
        if account:
            os.chown(folder, account.uid, account.gid)
        self._places = [_place(folder / f"node{n}", account, cluster.stop, settings) for n in range(NODES)]
        cluster.prepare(self._root, self._places)
        free_ports = iter(_free_ports(NODES * cluster.ports))
        self._ports = [[next(free_ports) for _ in range(cluster.ports)] for _ in range(NODES)]

    def serve(self) -> None:
        """Start all nodes, and start each node again that was killed."""
        with ExitStack() as started_nodes:
            running = [self._started(number, started_nodes, is_new=True) for number in range(NODES)]
            for place in self._places:
                (place.folder / "accounts").unlink(missing_ok=True)
            _tell({"url": self._cluster.url(self._places, self._ports)})
            while True:
                for number, server in enumerate(running):
                    if server.poll() is not None:
                        running[number] = self._started(number, started_nodes, is_new=False)
                check_parent(0.1)

    def _started(self, number: int, started_nodes: ExitStack, *, is_new: bool) -> subprocess.Popen[bytes]:
        place, cluster = self._places[number], self._cluster
        command = cluster.command(self._root, self._places, self._ports, number, is_new=is_new)
        log = place.folder / "log"
        log.unlink(missing_ok=True)
        server = started_nodes.enter_context(
            started(command, log=log, account=place.account, env=place.env, cwd=place.data, stop=cluster.stop)
        )
        deadline = time.monotonic() + START_SECONDS
        while not all(words in log.read_bytes() for words in cluster.ready):
            if server.poll() is not None or time.monotonic() > deadline:
                reason = last_line(log.read_text(errors="replace"))
                raise UnavailableError(f"node {number} of {cluster.name} did not start: {reason}")
            check_parent()
            time.sleep(0.02)
        return server


def _wait_until_ready(engine: Engine, server: subprocess.Popen[bytes], log: Path, port: int) -> bool:
    """Return true when the server accepts connections, false if another process has taken its port."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        ended = server.poll() is not None
        output = log.read_bytes()
        is_ready = _accepts(port) if engine.ready is None else engine.ready in output
        if is_ready and not ended:
            return True
        if ended and any(reason in output for reason in PORT_TAKEN):
            return False
        if ended or time.monotonic() > deadline:
            raise UnavailableError(f"{engine.name} did not start: {last_line(output.decode(errors='replace'))}")
        check_parent()
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _wait(engine: Engine, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server has ended.

    Raises:
        UnavailableError: the server has ended, and the variable RESTARTS does not say that it shall start again.
    """
    while server.poll() is None:
        check_parent(0.1)
    if RESTARTS in os.environ:
        return
    raise UnavailableError(f"{engine.name} stopped by itself: {last_line(log.read_text(errors='replace'))}")


def _account() -> Account | None:
    """Return the account for the server, because no server runs as root; None for the present user."""
    if os.getuid():
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise UnavailableError("there is no account `nobody` to run it as") from None
    return Account(entry.pw_uid, entry.pw_gid)


def _base(account: Account | None) -> Path:
    """Return the temporary folder for the servers: the account can enter it, and its path is short."""
    base = Path(tempfile.gettempdir()).resolve()
    open_to_all = all(path.stat().st_mode & stat.S_IXOTH for path in [base, *base.parents])
    return Path("/tmp") if len(str(base)) > LONGEST_BASE or (account and not open_to_all) else base  # noqa: S108


def _sweep(base: Path) -> None:
    """Remove the folders of keepers that were killed; no process holds the locks of these folders."""
    for folder in base.glob(f"{PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime > MINUTE:
                with (folder / "lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _place(folder: Path, account: Account | None, stop: signal.Signals, settings: Mapping[str, str]) -> Place:
    """Create the folders of a server, and its environment variables, without the user's own settings."""
    work = folder / "work"
    programs = os.environ.get("PATH", os.defpath)
    env = {"PATH": programs, "LC_ALL": "C.UTF-8", "HOME": str(work), "TMPDIR": str(work)}
    place = Place(folder, account, secrets.token_hex(16), env, stop, settings)
    for path in (folder, place.data, work):
        path.mkdir(mode=0o700, exist_ok=True)
        if account:
            os.chown(path, account.uid, account.gid)
    return place


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free_ports(count: int) -> list[int]:
    """Return free ports below the range from which the system takes ports for outgoing connections.

    So no connection takes the port of a node while the node is down.
    """
    ports: list[int] = []
    for port in random.sample(range(*PORTS_OF_NODES), PORTS_OF_NODES[1] - PORTS_OF_NODES[0]):
        with socket.socket() as probe:
            if len(ports) < count and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports


def _tell(message: dict[str, str]) -> None:
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        # The parent has ended. Without this, the interpreter's own flush at exit would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(*_: object) -> None:
    # A second signal must not interrupt the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise ParentGoneError
