"""Keeps unpacked servers, and a client library, in the user's cache folder, by name and version."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .lock import sha256
from .process import Account

HOUR = 3600


def installed(name: str, origin: str, fetch: Callable[[Path], str]) -> Path:
    """Return the folder of a server. If the cache has none, fetch it first.

    Args:
        name: The name of the server in the cache.
        origin: Where the server comes from, for the user to read.
        fetch: A function that unpacks the server into a folder and returns the version.
    """
    cache = folder()
    tail = f"{platform.system()}-{platform.machine()}".lower()
    cached = [path for path in cache.glob(f"{name}-*-{tail}") if path.is_dir()]
    for path in sorted(cached, key=lambda path: path.stat().st_mtime, reverse=True):
        if _is_intact(path):
            return path
        message = f"{name}: {path.name} has changed since it was unpacked; it is fetched again"
        print(message, file=sys.stderr, flush=True)
        _put_away(path)
    for left in cache.glob(".new-*"):
        if time.time() - left.stat().st_mtime > HOUR:
            shutil.rmtree(left, ignore_errors=True)
    print(f"{name}: downloading {origin}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as new:
        root = Path(new, "root")
        root.mkdir()
        version = fetch(root)
        _open_to_all(root)
        # Packages bring their own dates; the newest server is the one that was fetched last.
        os.utime(root)
        target = cache / f"{name}-{version}-{tail}"
        manifest = Path(new, "manifest")
        manifest.write_text(_manifest_of(root))
        try:
            root.rename(target)
            manifest.rename(_manifest(target))
        except OSError:
            # Another process was first. Its copy is complete, because it was renamed into place too.
            if not target.is_dir():
                raise
    return target


def _manifest(root: Path) -> Path:
    """Return the file, beside a folder, that lists the folder's files as they were unpacked."""
    return root.with_name(f"{root.name}.sha256")


def _manifest_of(root: Path) -> str:
    """Return a line for each file, with its SHA-256, and for each symbolic link, with its target."""
    lines = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            lines.append(f"{os.readlink(path)}  {path.relative_to(root)}\n")
        elif path.is_file():
            lines.append(f"{sha256(path)}  {path.relative_to(root)}\n")
    return "".join(lines)


def _is_intact(root: Path) -> bool:
    for _ in range(20):  # another process may be between the two renames
        if _manifest(root).is_file():
            return _manifest(root).read_text() == _manifest_of(root)
        time.sleep(0.05)
    return False


def _put_away(root: Path) -> None:
    """Rename a folder, and remove it later: servers that run from it still need its files."""
    _manifest(root).unlink(missing_ok=True)
    with suppress(OSError):  # another process was first
        away = Path(tempfile.mkdtemp(dir=root.parent, prefix=".new-"))
        root.rename(away / "root")


def folder() -> Path:
    """Return the cache folder: `$XDG_CACHE_HOME`, else `~/.cache`, else a private temporary folder."""
    bases = []
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        bases.append(Path(os.environ["XDG_CACHE_HOME"]))
    if os.path.isabs(os.environ.get("HOME", "")):
        bases.append(Path(os.environ["HOME"], ".cache"))
    for base in bases:
        path = base / "the-edge-agent" / "servers"
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path):
                return path
        except OSError:
            continue
    path = Path(tempfile.gettempdir(), f"the-edge-agent-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        # Everybody can write to the temporary folder, so another user may have created this folder first.
        return Path(tempfile.mkdtemp(prefix="the-edge-agent-"))
    return path


def within_reach(root: Path, account: Account | None, run: Path) -> Path:
    """Return a path to `root` that `account` can read: `root` itself, or hard links or copies of its files in `run`."""
    if account is None or all(path.stat().st_mode & stat.S_IXOTH for path in [root, *root.parents]):
        return root
    copy = run / root.name
    shutil.copytree(root, copy, symlinks=True, copy_function=_link)
    return copy


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _open_to_all(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
