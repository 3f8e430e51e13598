"""Gets and starts real database servers for the tests: `python scripts/servers.py --help`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from dbservers import apt, lock
from dbservers.clusters import CLUSTERS, Cluster
from dbservers.engines import ENGINES, Engine
from dbservers.keeper import keep
from dbservers.session import Session
from mysqlclient import PACKAGES

GRACE_SECONDS = 15
SERVERS: dict[str, Engine | Cluster] = {**ENGINES, **CLUSTERS}
Settings = dict[str, dict[str, str]]


class StoppedError(Exception):
    """A signal has told this program to end."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number for the exit code."""
        super().__init__(number)
        self.code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _arguments(argv)
    if arguments.action == "lock":
        return _lock()
    if arguments.action == "keep":
        keep(arguments.name, dict(arguments.settings))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A shell makes programs in the background ignore SIGINT; this program obeys it there too. It ignores SIGHUP
        # only if `nohup` started it.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        if arguments.action == "serve":
            return _serve(arguments.only, _by_server(arguments.settings))
        return _run(arguments.only, _by_server(arguments.settings), arguments.command)
    except StoppedError as stopped:
        return stopped.code


def report(session: Session) -> int:
    """Print the name of each server that is not available; in CI (the variable `CI` is set) this is an error."""
    for name, reason in session.missing.items():
        print(f"{name}: not available: {reason}", file=sys.stderr, flush=True)
    strict = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return 1 if session.missing and strict else 0


def _lock() -> int:
    """Add the packages that apt would download now to the lock file, for both architectures."""
    needed = [*(each.packages() for each in SERVERS.values()), ([*PACKAGES], None)]
    for suite in (None, "sid"):
        groups = [packages for packages, their_suite in needed if packages and their_suite == suite]
        for architecture in ("amd64", "arm64"):
            lock.add(apt.resolve(groups, suite, architecture))
    print(f"{lock.FILE} has {len(lock.pinned())} files; check the difference before you commit it")
    return 0


def _run(names: list[str], settings: Settings, command: list[str]) -> int:
    with Session(names, settings=settings) as session:
        session.wait()
        code = _call(command, session.environment())
    missing = report(session)
    return code or missing


def _serve(names: list[str], settings: Settings) -> int:
    with Session(names, settings=settings) as session:
        session.wait()
        for name, value in session.environment().items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        code = report(session)
        if code or not session.urls.keys() & {*names}:
            return 1
        print("Ctrl-C stops the servers.", file=sys.stderr, flush=True)
        while session.complete():
            time.sleep(0.2)
    return report(session) or 1


def _call(command: list[str], extra: dict[str, str]) -> int:
    """Run a command to its end; a signal to this program ends the command too."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **extra})
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        code = process.wait()
    except StoppedError as stopped:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if stopped.code == 128 + signal.SIGINT:
            # A terminal sends Ctrl-C to the command as well, so it is not sent twice.
            if not (sys.stdin and sys.stdin.isatty()):
                process.send_signal(signal.SIGINT)
            _ends_within(process, GRACE_SECONDS)
        process.terminate()
        if not _ends_within(process, GRACE_SECONDS):
            process.kill()
            process.wait()
        raise
    return code if code >= 0 else 128 - code


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.poll() is not None


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|serve|lock")
    run = actions.add_parser("run", help="start the servers, run a command with TEST_..._URL set, stop the servers")
    serve = actions.add_parser("serve", help="start the servers, print their URLs, stop them on Ctrl-C")
    for action in (run, serve):
        action.add_argument("--only", type=_names, default=list(ENGINES), help="a list like postgres,mariadb")
        action.add_argument(
            "--set",
            dest="settings",
            type=_setting,
            action="append",
            default=[],
            metavar="SERVER.NAME=VALUE",
            help="a setting of one server's configuration, such as mariadb.sql_mode=ORACLE; may be repeated",
        )
    run.add_argument("command", nargs="+", help="the command and its arguments, after --")
    actions.add_parser("lock", help="pin the packages that apt would download now, by their SHA-256")
    keeping = actions.add_parser("keep")
    keeping.add_argument("name", choices=SERVERS)
    keeping.add_argument("settings", nargs="*", type=_pair)
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - set(SERVERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SERVERS)}")
    return names


def _setting(text: str) -> tuple[str, str, str]:
    server, _, setting = text.partition(".")
    return (_names(server)[0], *_pair(setting))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _by_server(settings: list[tuple[str, str, str]]) -> Settings:
    by_server: Settings = {}
    for server, name, value in settings:
        by_server.setdefault(server, {})[name] = value
    return by_server


def _stop(number: int, _: object) -> None:
    raise StoppedError(number)


if __name__ == "__main__":
    sys.exit(main())
