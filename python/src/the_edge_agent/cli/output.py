"""Write results to stdout, where nothing else is written, or to a file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from the_edge_agent.cli.jsonio import OutputError


@contextmanager
def stdout_reserved_for_the_result() -> Iterator[None]:
    """Send everything that an agent prints to stderr, also the output of programs that it starts."""
    with redirect_stdout(sys.stderr):
        try:
            saved = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # a process without stdout or stderr
            yield
            return
        try:
            yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


def writer(output: str) -> Callable[[bytes], None]:
    """Return a function that writes the result to a file or, for ``-``, to stdout.

    Raises:
        OutputError: the result cannot be written there. The returned function raises it too.
    """
    if output == "-":
        if sys.stdout is None:  # the program that started this one has closed it
            raise OutputError("can't write to stdout: it is closed")
        return _write_stdout
    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"can't write {output}: {'it is a folder' if path.is_dir() else 'there is no such folder'}")
    if path.is_symlink() and not _is_descriptor(path):
        raise OutputError(f"can't write {output}: it is a symbolic link; name the file that it leads to")
    if path.exists() and not _is_descriptor(path) and not (path.is_file() or path.is_char_device()):
        raise OutputError(f"can't write {output}: it is no file; a pipe would wait for its reader")
    return lambda text: _write_file(path, text)


def _write_stdout(text: bytes) -> None:
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader has stopped reading; ``failures_exit`` ends the command
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python tries again at exit, and prints an error
        raise OutputError(f"can't write to stdout: {error.strerror}") from None


def _write_file(path: Path, text: bytes) -> None:
    try:
        with open(path, "wb", opener=_own_file) as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror}") from None


def _own_file(path: str, flags: int) -> int:
    """Open a file for writing. A new file is for the user alone. A symbolic link is refused, also a new one."""
    follow = 0 if _is_descriptor(Path(path)) else getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags | follow, 0o600)


def _is_descriptor(path: Path) -> bool:
    """Return whether a path names an open file of this process, such as ``>(...)`` in a shell."""
    return re.fullmatch(r"/proc/\d+/fd|/dev/fd", os.path.realpath(path.parent)) is not None
