"""Knows the packages that have been looked at: the SHA-256 of each file, in `packages.lock`, as sha256sum writes it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from .process import UnavailableError

FILE = Path(__file__).with_name("packages.lock")
STRICT = "TEA_LOCKED"  # variable: set, nothing but pinned packages is used


def pinned() -> dict[str, str]:
    """Return the SHA-256 of each pinned file, by its name, which has the version and the architecture."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines if line and line[0] != "#")}


def check(packages: Iterable[Path]) -> None:
    """Refuse packages that are not what was pinned under their names, and say which ones nobody has pinned.

    Raises:
        UnavailableError: a file differs, or is not pinned where `TEA_LOCKED` is set.
    """
    known = pinned()
    digests = {path: sha256(path) for path in packages}
    for path, digest in digests.items():
        if known.get(path.name, digest) != digest:
            raise UnavailableError(f"{path.name} has the SHA-256 {digest}, and {FILE.name} says {known[path.name]}")
    others = {path.name: digest for path, digest in digests.items() if path.name not in known}
    if others and os.environ.get(STRICT):
        raise UnavailableError(f"not in {FILE.name}: {', '.join(others)}; `servers.py lock` adds what apt has verified")
    for name, digest in others.items():
        print(f"NOT PINNED, verified by apt's signatures alone: {name} {digest}", file=sys.stderr, flush=True)


def add(found: Mapping[str, str]) -> None:
    """Write the SHA-256 of files into the lock file, beside those that are there.

    Raises:
        UnavailableError: one of them is there with another SHA-256.
    """
    known = pinned()
    for name, digest in found.items():
        if known.setdefault(name, digest) != digest:
            raise UnavailableError(f"{name} has another SHA-256 than {FILE.name} says; nothing was written")
    FILE.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(known.items())))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        found = hashlib.sha256()
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()
