"""Runs Python in a new process in which a package cannot be imported, as if it were not installed."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{package}":
            raise ModuleNotFoundError("No module named '{package}'", name="{package}")
sys.meta_path.insert(0, Absent())
"""
WITHOUT_SQLALCHEMY = WITHOUT.format(package="sqlalchemy")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
