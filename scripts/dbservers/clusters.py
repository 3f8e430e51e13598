"""Describes each cluster: its nodes, and how a node is started the first time and after it was killed."""

from __future__ import annotations

import re
import shutil
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from . import apt, cache
from .engines import MariaDB, MySQL, Place
from .process import UnavailableError, last_line

NODES = 3
CHANNEL = """\
CHANGE REPLICATION SOURCE TO SOURCE_USER='root', SOURCE_PASSWORD='{password}' FOR CHANNEL 'group_replication_recovery';
"""


class Cluster(ABC):
    """Nodes on this machine that replicate to each other. If a node is killed, it is started and joins again.

    Each node has several ports; the first one is for SQL.
    """

    name: str
    ports: int  # how many ports each node has
    ready: Sequence[bytes]  # texts of a node's log; when the log has all of them, the node serves clients
    stop = signal.SIGKILL

    @abstractmethod
    def packages(self) -> tuple[list[str], str | None]:
        """Return the names of the packages for apt, and the suite if it is not one of the machine's own."""

    @abstractmethod
    def find(self) -> Path:
        """Return the folder of the program.

        Raises:
            UnavailableError: the program is not available.
        """

    @abstractmethod
    def prepare(self, root: Path, places: Sequence[Place]) -> None:
        """Create the data folders."""

    @abstractmethod
    def command(
        self, root: Path, places: Sequence[Place], ports: Sequence[Sequence[int]], number: int, *, is_new: bool
    ) -> list[str | Path]:
        """Return the command line that starts a node.

        Args:
            root: the folder of the program.
            places: the places of all nodes.
            ports: the ports of all nodes.
            number: the number of this node, beginning with 0.
            is_new: whether this node starts for the first time. If so, the first node creates the cluster.
        """

    def url(self, places: Sequence[Place], ports: Sequence[Sequence[int]]) -> str:
        """Return the URLs of all nodes, with spaces between them."""
        urls = [MariaDB.scheme.format(password=places[0].password, port=sql) for sql, *_ in ports]
        return " ".join(urls)


class Galera(Cluster):
    """MariaDB with Galera. The script ``wsrep_sst_local`` copies the data of a node to each new node."""

    name = "galera"
    ports = 3  # for SQL, for the group, and for the changes that a node has missed
    ready = (b"ready for connections.\n", b"Synchronized with group")
    transfer = Path(__file__).with_name("wsrep_sst_local")

    def packages(self) -> tuple[list[str], str | None]:
        """See the base class."""
        return [MariaDB.package, "galera-4"], None

    def find(self) -> Path:
        """See the base class."""
        first, *others = self.packages()[0]

        def fetch(root: Path) -> str:
            return apt.fetch(first, root, also=others)

        return cache.installed(self.name, f"the packages {first} and {', '.join(others)}", fetch)

    def prepare(self, root: Path, places: Sequence[Place]) -> None:
        """Create the data of the first node; the other nodes copy it."""
        MariaDB().prepare(root, places[0])
        for place in places:
            programs = place.folder / "bin"
            programs.mkdir(mode=0o755)
            shutil.copy(self.transfer, programs)
            place.env["PATH"] = f"{programs}:{place.env['PATH']}"

    def command(
        self, root: Path, places: Sequence[Place], ports: Sequence[Sequence[int]], number: int, *, is_new: bool
    ) -> list[str | Path]:
        """See the base class."""
        sql, group, missed = ports[number]
        is_first = is_new and number == 0
        provider = {
            "base_host": "127.0.0.1",
            "base_port": group,
            "gmcast.listen_addr": f"tcp://127.0.0.1:{group}",
            "ist.recv_addr": f"127.0.0.1:{missed}",
            "gcache.size": "128M",  # room for the changes that a node misses while it is down
            # Shorter than the defaults: the other nodes then continue sooner after a node was killed.
            "evs.keepalive_period": "PT0.5S",
            "evs.inactive_check_period": "PT0.2S",
            "evs.suspect_timeout": "PT2S",
            "evs.inactive_timeout": "PT5S",
        }
        settings = {
            "binlog_format": "ROW",
            "innodb_autoinc_lock_mode": "2",
            "innodb_log_file_size": "16M",
            "wsrep_on": "ON",
            "wsrep_provider": f"{root / 'usr/lib/galera/libgalera_smm.so'}",
            "wsrep_provider_options": ";".join(f"{name}={value}" for name, value in provider.items()),
            "wsrep_cluster_name": "tests",
            "wsrep_cluster_address": "gcomm://" + ",".join(f"127.0.0.1:{port}" for _, port, _ in ports),
            "wsrep_node_name": f"node{number}",
            "wsrep_node_address": f"127.0.0.1:{group}",
            "wsrep_sst_method": self.transfer.name.removeprefix("wsrep_sst_"),
        }
        place = _with(places[number], settings)
        if is_first:
            return [*MariaDB().command(root, place, sql), "--wsrep-new-cluster"]
        command = MariaDB().command(root, place, sql, at_start="")  # the copied data has the accounts
        return command if is_new else [*command, f"--wsrep-start-position={self._position(place, command)}"]

    def _position(self, place: Place, command: list[str | Path]) -> str:
        """Return the position of a killed node in the changes of the cluster; it needs the changes after that."""
        output = place.run("mariadbd --wsrep-recover", [*command, "--wsrep-recover"])
        match = re.search(r"Recovered position:\s*(\S+)", output)
        if match is None:
            raise UnavailableError(f"mariadbd --wsrep-recover: {last_line(output)}")
        return match[1]


class GroupReplication(Cluster):
    """MySQL with Group Replication. Only one node, the primary, accepts writes."""

    name = "group_replication"
    ports = 2  # for SQL, and for the group
    ready = (b"ready for connections.", b"This server was declared online")

    def __init__(self) -> None:
        """Choose a name for the group."""
        self._group = str(uuid.uuid4())

    def packages(self) -> tuple[list[str], str | None]:
        """See the base class."""
        return MySQL().packages()

    def find(self) -> Path:
        """See the base class."""
        return MySQL().find()

    def prepare(self, root: Path, places: Sequence[Place]) -> None:
        """Create the data once, with the accounts, and copy it: no node may begin with a write that others lack."""
        first, *others = places
        accounts = first.secret("accounts", MySQL.accounts(first.password))
        MySQL().prepare(root, first, f"--init-file={accounts}")
        (first.data / "auto.cnf").unlink()  # it has the id of the server; each server creates its own
        for place in others:
            shutil.copytree(first.data, place.data, dirs_exist_ok=True)
            if place.account:
                for path in place.data.rglob("*"):
                    shutil.chown(path, place.account.uid, place.account.gid)

    def command(
        self, root: Path, places: Sequence[Place], ports: Sequence[Sequence[int]], number: int, *, is_new: bool
    ) -> list[str | Path]:
        """See the base class."""
        sql, group = ports[number]
        options = {
            "group_name": self._group,
            "start_on_boot": "ON",
            "bootstrap_group": "ON" if is_new and number == 0 else "OFF",
            "local_address": f"127.0.0.1:{group}",
            "group_seeds": ",".join(f"127.0.0.1:{port}" for _, port in ports),
            "communication_stack": "XCOM",
            "ip_allowlist": "127.0.0.1",
            "ssl_mode": "DISABLED",
            "recovery_get_public_key": "ON",
            "member_expel_timeout": "0",  # seconds; a member that returns earlier delays the election
        }
        settings = {
            "log_bin": "binlog",
            "gtid_mode": "ON",
            "enforce_gtid_consistency": "ON",
            "server_id": str(number + 1),
            "report_host": "127.0.0.1",
            "report_port": str(sql),
            "super_read_only": "ON",  # until the group makes this node the primary
            "plugin_load_add": "group_replication.so",
            **{f"loose_group_replication_{name}": value for name, value in options.items()},
        }
        channel = CHANNEL.format(password=places[0].password) if is_new else ""  # the node stores the channel
        return MySQL().command(root, _with(places[number], settings), sql, at_start=channel)


def _with(place: Place, settings: Mapping[str, str]) -> Place:
    """Return the place with these settings added; a setting that the place has already stays."""
    return replace(place, settings={**settings, **place.settings})


CLUSTERS: dict[str, Cluster] = {cluster.name: cluster for cluster in (Galera(), GroupReplication())}
