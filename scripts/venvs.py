"""Creates the virtual environments of this project, and finds the Python interpreters for them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mysqlclient

REPO = Path(__file__).resolve().parent.parent
PROJECT = REPO / "python"
USABLE = "import ensurepip, sqlite3, ssl, sys, venv; print(sys.implementation.name, sys.version_info.minor)"


class SetupError(Exception):
    """A virtual environment cannot be made; the message says why."""


def project_text() -> str:
    """Return the text of pyproject.toml, read with patterns because Python 3.10 has no TOML parser."""
    return (PROJECT / "pyproject.toml").read_text(encoding="utf-8")


def lowest_version(package: str, extra: str) -> str:
    """Return the lowest version of a package that an extra allows."""
    match = re.search(rf'^{extra}\s*=\s*\[\s*"{package}[^"]*>=\s*([\d.]+)', project_text(), re.MULTILINE)
    if not match:
        raise SetupError(f"pyproject.toml names no lowest {package} in the extra `{extra}`")
    return match[1]


@functools.cache
def supported_pythons() -> list[Path]:
    """Return one working interpreter for each supported Python that this machine has, lowest first."""
    supported = {int(minor) for minor in re.findall(r"Python :: 3\.(\d+)\"", project_text())}
    interpreters: dict[int, Path] = {}
    for program in _candidates(supported):
        try:
            process = subprocess.run([program, "-c", USABLE], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        words = process.stdout.split()
        # A shim may exist and fail, or run another version than its name says.
        if not process.returncode and words[0] == "cpython" and int(words[1]) in supported:
            interpreters.setdefault(int(words[1]), program)
    if not interpreters:
        raise SetupError("no supported Python with venv, ssl and sqlite3 was found on this machine")
    return [interpreters[minor] for minor in sorted(interpreters)]


def ensure(
    folder: Path,
    python: Path,
    *,
    extras: str,
    pins: Sequence[str] = (),
    alone: Sequence[str] = (),
    editable: bool = True,
) -> Path:
    """Create a virtual environment with this project, unless it exists and is current; return its interpreter.

    Args:
        folder: The folder of the virtual environment.
        python: The interpreter that creates it.
        extras: Extras of the project to install, separated by commas.
        pins: Further requirements.
        alone: Packages to install without the packages that they require.
        editable: Whether to use the sources in place. Otherwise they are copied, and the environment is created again
            when they change.
    """
    interpreter = folder / "bin" / "python"
    current_stamp = _stamp([str(python), extras, *pins, *alone], editable=editable)
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == current_stamp and interpreter.exists():
        return interpreter
    print(f"{folder.name}: installing the-edge-agent[{extras}] {' '.join(pins)}".rstrip(), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _call([str(python), "-m", "venv", str(folder)], folder.name)
    project = f"{PROJECT}[{extras}]"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*install, *(["--editable"] if editable else []), project, *pins], folder.name)
    if alone:
        _call([*install, "--no-deps", *alone], folder.name)
    stamp.write_text(current_stamp)
    return interpreter


def dev() -> Path:
    """Create the environment of the tests and the linters, with the highest versions that exist."""
    # It requires SQLAlchemy below 2.1. The tests only compile statements with it, and that works with 2.1 too.
    alone = ["sqlalchemy-cockroachdb"]
    python = ensure(REPO / ".venv", supported_pythons()[-1], extras="all,dev,dialects", alone=alone)
    mysqlclient.add_to(REPO / ".venv")
    return python


def lowest() -> Path:
    """Create the environment with the lowest Python on this machine, and the lowest supported SQLAlchemy and fsspec."""
    pins = [
        f"sqlalchemy=={lowest_version('sqlalchemy', 'sqlalchemy')}",
        f"fsspec=={lowest_version('fsspec', 'storage')}",
    ]
    return ensure(REPO / ".venv-lowest", supported_pythons()[0], extras="sqlalchemy,postgres,test", pins=pins)


def bench() -> Path:
    """Create the environment of the benchmarks, with the other libraries that are measured."""
    return ensure(REPO / ".venv-bench", supported_pythons()[-1], extras="all,bench")


def docs() -> Path:
    """Create the environment that builds the site of the documentation."""
    return ensure(REPO / ".venv-docs", supported_pythons()[-1], extras="docs")


def demo() -> Path:
    """Create the environment of a user who has memories in SQLite."""
    return ensure(REPO / ".venv-demo", Path(sys.executable), extras="sqlalchemy", editable=False)


def _candidates(supported: set[int]) -> list[Path]:
    """Return programs that may be a supported Python: this one, those on PATH, those of pyenv and uv."""
    home = os.environ.get("HOME")
    folders = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    root = os.environ.get("PYENV_ROOT") or (f"{home}/.pyenv" if home else None)
    pyenvs = [Path(root)] if root else []
    pyenvs += [folder.parent for folder in folders if folder.name == "shims"]
    for pyenv in dict.fromkeys(pyenvs):
        folders += sorted(pyenv.glob("versions/*/bin"))
    if home:
        folders += sorted(Path(home, ".local/share/uv/python").glob("*/bin"))
    named = [folder / f"python3.{minor}" for folder in folders for minor in sorted(supported)]
    return [Path(sys.executable), *dict.fromkeys(path for path in named if os.access(path, os.X_OK))]


def _stamp(parts: Sequence[str], *, editable: bool) -> str:
    """Return a text that changes when the environment must be created again."""
    # Without the settings of the linters and of pytest: they change often, and do not change what is installed.
    project = re.split(r"^\[tool\.(?:ruff|mypy|pytest)", project_text(), maxsplit=1, flags=re.MULTILINE)[0]
    digest = hashlib.sha256("\n".join([*parts, str(REPO), project]).encode())
    if not editable:
        for path in sorted((PROJECT / "src").rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _call(argv: list[str], name: str) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{name}: {' '.join(argv)} failed ({done.returncode}):\n{done.stdout}")


def main(argv: Sequence[str]) -> int:
    """Create the environment that the argument names, `dev`, `docs` or `demo`."""
    if sys.version_info < (3, 10):  # noqa: UP036 - the user may have an older one
        print("Python 3.10 or newer is needed; choose one: make PYTHON=python3.12 ...", file=sys.stderr)
        return 1
    try:
        {"dev": dev, "docs": docs, "demo": demo}[argv[0]]()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
