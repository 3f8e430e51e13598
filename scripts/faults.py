"""Runs the fault tests on servers of their own: `python scripts/faults.py [--only F2] [--targets mysql] [--short]`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import venvs
from dbservers.clusters import CLUSTERS
from dbservers.engines import RESTARTS
from dbservers.session import Session, variable
from servers import report

_TARGETS = {"postgres": ("postgresql", "postgresql-native"), "mariadb": ("mariadb",), "mysql": ("mysql",)}
_SERVERS = tuple(_TARGETS)
_SMALL = "size=600m"  # the size of the small file system: it has room for a server with its logs, and for some data


def main(argv: Sequence[str]) -> int:
    """Start the servers, which the tests kill, and run the tests; return their exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    for name in (*_SERVERS, *CLUSTERS):
        os.environ.pop(variable(name), None)  # these servers are used by others, so the tests must not kill them
    os.environ[RESTARTS] = "1"
    try:
        python = venvs.dev()
    except venvs.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    targets_option, others = _targets(argv)
    code = _run(python, argv, _SERVERS, {"TEA_FAULTS_OWN_SERVERS": "1"})
    if code == 0 and not _excludes_all(targets_option, [*CLUSTERS]):
        code = _run(python, argv, [*CLUSTERS], {})
    for name, targets in _TARGETS.items():
        if code == 0 and not _excludes_all(targets_option, targets):
            chosen = [each for each in targets if not targets_option or each in targets_option[1].split(",")]
            code = _on_a_small_disk(python, [*others, "--targets", ",".join(chosen)], name)
    return code


def _excludes_all(targets_option: Sequence[str], targets: Sequence[str]) -> bool:
    return bool(targets_option) and not {*targets_option[1].split(",")} & {*targets}


def _targets(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return `--targets` with its value, or nothing if it is absent, and the other arguments."""
    if "--targets" not in argv:
        return [], [*argv]
    index = argv.index("--targets")
    return [*argv[index : index + 2]], [*argv[:index], *argv[index + 2 :]]


def _on_a_small_disk(python: Path, argv: Sequence[str], name: str) -> int:
    with _small_disk() as folder:
        if folder is None:
            print(f"F6 on {name} needs a small file system, and none can be mounted here", file=sys.stderr)
            return 1
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return _run(python, argv, [name], {"TEA_FAULTS_DISK": str(folder)})


def _run(python: Path, argv: Sequence[str], servers: Sequence[str], extra: dict[str, str]) -> int:
    with Session(servers) as session:
        session.wait()
        environment = {**os.environ, **session.environment(), **extra}
        environment.setdefault("PYTHONPATH", str(venvs.PROJECT / "src"))
        command = [str(python), "-m", "faults", *argv]
        code = subprocess.run(command, cwd=venvs.PROJECT, env=environment, check=False).returncode
    return report(session) or code


@contextmanager
def _small_disk() -> Iterator[Path | None]:
    """Yield a folder that is a small file system; None if no file system can be mounted."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="tea-") as folder:
        os.chmod(folder, 0o711)  # noqa: S103 - the account of the server must enter it
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", _SMALL, "tmpfs", folder], stderr=subprocess.DEVNULL)
        try:
            yield Path(folder) if mounted.returncode == 0 else None
        finally:
            os.environ.pop("TMPDIR", None)
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]
            tempfile.tempdir = before[1]
            if mounted.returncode == 0:
                subprocess.run(["umount", folder], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
