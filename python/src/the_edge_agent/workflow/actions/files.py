"""The ``file.*`` actions: text files inside the working folder of the process, and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from the_edge_agent.workflow.actions.failures import FailureError, checked_text, returning_failures

MAX_BYTES: Final = 10_000_000  # of one file

# On POSIX each folder of a path is opened by itself, so that no link can be put there between the check and the use.
_HAS_FOLDER_FDS: Final = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read(state: dict[str, Any], path: str, encoding: str = "utf-8") -> dict[str, Any]:
    """Read a text file of up to 10 MB."""
    parts = _parts(path)
    with _errors(path), _folder(parts[:-1]) as (folder, prefix):
        descriptor = _open(prefix + parts[-1], os.O_RDONLY, folder, path)
        with open(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FailureError("too_large", f"{path!r} has more than {MAX_BYTES:,} bytes")
    try:
        content = data.decode(encoding)
    except (UnicodeDecodeError, LookupError, TypeError) as error:
        raise FailureError("file_error", f"{path!r} can't be read as {encoding}: {type(error).__name__}") from None
    return {"success": True, "content": content, "path": path, "byte_size": len(data)}


def write(
    state: dict[str, Any], path: str, content: Any, encoding: str = "utf-8", append: bool = False
) -> dict[str, Any]:
    """Write a text file of up to 10 MB, or append to it. Folders are created. No reader sees half of a new file."""
    parts = _parts(path)
    if not isinstance(content, str):
        message = f"content must be text, not {type(content).__name__}; the filter `json` makes text of data"
        raise FailureError("validation_error", message)
    try:
        data = content.encode(encoding)
    except (UnicodeEncodeError, LookupError, TypeError) as error:
        raise FailureError(
            "file_error", f"the content can't be written as {encoding}: {type(error).__name__}"
        ) from None
    if len(data) > MAX_BYTES:
        raise FailureError("too_large", f"the content has more than {MAX_BYTES:,} bytes")
    with _errors(path), _folder(parts[:-1], create=True) as (folder, prefix):
        name = prefix + parts[-1]
        if append:
            _append(name, data, folder, path)
        else:
            _replace(name, data, folder, path)
    return {"success": True, "path": path, "byte_size": len(data)}


FILE_ACTIONS: Final[dict[str, Callable[..., Any]]] = {
    "file.read": returning_failures(read),
    "file.write": returning_failures(write),
}


def _open(name: str, flags: int, folder: int | None, path: str) -> int:
    """Open a file itself: no link, folder, pipe or device."""
    descriptor = os.open(name, flags | _NO_LINK, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FailureError("file_error", f"{path!r} is no file")
    return descriptor


def _append(name: str, data: bytes, folder: int | None, path: str) -> None:
    descriptor = _open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, folder, path)
    with open(descriptor, "ab") as file:
        if os.fstat(descriptor).st_size + len(data) > MAX_BYTES:
            raise FailureError("too_large", f"{path!r} would have more than {MAX_BYTES:,} bytes")
        file.write(data)


def _replace(name: str, data: bytes, folder: int | None, path: str) -> None:
    mode = 0o666
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(status.st_mode):
            raise FailureError("file_error", f"{path!r} is no file")
        mode = stat.S_IMODE(status.st_mode)
    temporary = f"{name}.{token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, mode, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def _parts(path: Any) -> list[str]:
    """Return the names of a path below the working folder, with all links in it resolved. Raises ``FailureError``."""
    text = checked_text(path, "path")
    if "://" in text or "\0" in text:
        raise FailureError("permission_denied", f"{text!r} is no path of a file in the working folder")
    root = Path.cwd().resolve()
    try:
        target = (root / text).resolve()
        names = list(target.relative_to(root).parts)
    except ValueError:
        message = f"{text!r} is outside of the working folder; run the agent in a folder that has the file"
        raise FailureError("permission_denied", message) from None
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        raise FailureError("file_error", f"{text!r} can't be opened") from None
    if not names:
        raise FailureError("file_error", f"{text!r} is a folder")
    return names


@contextmanager
def _folder(names: list[str], *, create: bool = False) -> Iterator[tuple[int | None, str]]:
    """Open a folder below the working folder. Return its descriptor, and what comes before the name of a file in it."""
    if not _HAS_FOLDER_FDS:
        folder = Path.cwd().resolve().joinpath(*names)
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        yield None, str(folder) + os.sep
        return
    descriptor = os.open(Path.cwd(), os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        for name in names:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            inner = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, ""
    finally:
        os.close(descriptor)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turn errors of the operating system into failures that name the path as the file wrote it."""
    try:
        yield
    except FileNotFoundError:
        raise FailureError("file_not_found", f"there is no file {path!r}") from None
    except PermissionError:
        raise FailureError("permission_denied", f"{path!r}: permission denied") from None
    except OSError as error:
        raise FailureError("file_error", f"{path!r}: {error.strerror or type(error).__name__}") from None
