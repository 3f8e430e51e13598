"""Compares packages with `packages.lock`, which has the SHA-256 of each checked file in the format of sha256sum."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from .process import UnavailableError

FILE = Path(__file__).with_name("packages.lock")
STRICT = "TEA_LOCKED"  # an environment variable; if it is set, packages that are not pinned are refused


def pinned() -> dict[str, str]:
    """Return the SHA-256 of each pinned file by its name; the name contains the version and the architecture."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines if line and line[0] != "#")}


def check(packages: Iterable[Path]) -> None:
    """Refuse packages that differ from the pinned ones of the same name, and print which packages are not pinned.

    Raises:
        UnavailableError: a file differs, or a file is not pinned and `TEA_LOCKED` is set.
    """
    pins = pinned()
    digests = {path: sha256(path) for path in packages}
    for path, digest in digests.items():
        if pins.get(path.name, digest) != digest:
            raise UnavailableError(f"{path.name} has the SHA-256 {digest}, and {FILE.name} says {pins[path.name]}")
    others = {path.name: digest for path, digest in digests.items() if path.name not in pins}
    if others and os.environ.get(STRICT):
        raise UnavailableError(f"not in {FILE.name}: {', '.join(others)}; `servers.py lock` adds what apt has verified")
    for name, digest in others.items():
        print(f"NOT PINNED, verified by apt's signatures alone: {name} {digest}", file=sys.stderr, flush=True)


def add(digests: Mapping[str, str]) -> None:
    """Add the SHA-256 of files, by name, to the lock file.

    Raises:
        UnavailableError: the lock file has another SHA-256 for one of these names.
    """
    pins = pinned()
    for name, digest in digests.items():
        if pins.setdefault(name, digest) != digest:
            raise UnavailableError(f"{name} has another SHA-256 than {FILE.name} says; nothing was written")
    FILE.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(pins.items())))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
