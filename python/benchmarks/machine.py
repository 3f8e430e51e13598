"""Facts about the machine and the versions, which a reader needs to interpret the numbers."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.forms import Form
from benchmarks.places import server_facts


def facts(form: Form, databases: Iterable[str]) -> dict[str, str]:
    """Return the facts about a run by name."""
    facts_by_name = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} usable",
        "SQLite": sqlite3.sqlite_version,
        "entries": f"{form.size:,}",
        "entries of put_many whose memory is measured": f"{form.peak_entries:,}",
        "measured": f"{form.repetitions} times {form.seconds:g} s each, interleaved; medians",
    }
    for database in databases:
        if database != "sqlite":
            facts_by_name[database] = ", ".join(f"{name} {value}" for name, value in server_facts(database).items())
    packages = dict.fromkeys(each.package for each in CONTENDERS if each.package)
    versions = {package: _version(package) for package in packages}
    facts_by_name["packages"] = ", ".join(f"{package} {number}" for package, number in versions.items() if number)
    return facts_by_name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
