"""Blob storage: large values in files that are named by their content, in a folder, a bucket or the process's RAM."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import check_text

# Only these file systems are allowed: others in fsspec run templates, follow references or open any address.
_S3: Final = frozenset(
    {
        "anon",
        "client_kwargs",
        "config_kwargs",
        "endpoint_url",
        "key",
        "profile",
        "requester_pays",
        "s3_additional_kwargs",
        "secret",
        "token",
        "use_ssl",
    }
)
_GCS: Final = frozenset(
    {"access", "anon", "default_location", "endpoint_url", "project", "requester_pays", "timeout", "token"}
)
_AZURE: Final = frozenset(
    {
        "account_host",
        "account_key",
        "account_name",
        "anon",
        "client_id",
        "client_secret",
        "connection_string",
        "credential",
        "sas_token",
        "tenant_id",
    }
)
_PROTOCOLS: Final[Mapping[str, tuple[str, frozenset[str]]]] = {  # the extra to install, and the allowed options
    "file": ("storage", frozenset()),
    "local": ("storage", frozenset()),
    "memory": ("storage", frozenset()),
    "s3": ("s3", _S3),
    "s3a": ("s3", _S3),
    "gs": ("gcs", _GCS),
    "gcs": ("gcs", _GCS),
    "abfs": ("azure", _AZURE),
    "abfss": ("azure", _AZURE),
    "az": ("azure", _AZURE),
}
_CLIENT_OPTIONS: Final = frozenset({"region_name", "endpoint_url", "use_ssl", "verify"})  # allowed in `client_kwargs`
_POINTER: Final = re.compile(r"sha256:([0-9a-f]{64})")
_OPTIONS: Final = frozenset({"uri", "inline_threshold", "grace_period", "options"})
_UNFINISHED: Final = ".part-"
_OURS: Final = re.compile(r"([0-9a-f]{2})/((?=\1)[0-9a-f]{64})(\.part-[0-9a-f]{16})?")  # paths below the root
_LONGEST_WRITE: Final = 3_600.0  # seconds; an older unfinished file was left by a crash
# Bytes. A row does not have the size of its blob, so this limits how much a file that replaced a blob can cost.
LARGEST_BLOB: Final = 268_435_456


class DamagedBlobError(LTMError):
    """The storage can be read, but the blob of an entry is missing or is not the value that was stored."""

    def __init__(self, problem: str) -> None:
        """Make the exception; ``problem`` completes the sentence "its value ...", such as "is missing"."""
        super().__init__("query_error", f"its value {problem}")


class BlobStorage:
    """Stores values under the SHA-256 of their JSON text, so that equal values are stored once.

    A pointer has only this digest, so no pointer leads to a place outside of the root. Many threads may use one object.

    Attributes:
        inline_threshold: a value of up to this many bytes stays in the database.
        grace_period: how many seconds a blob without an entry is kept.
    """

    def __init__(
        self,
        uri: str,
        *,
        inline_threshold: int = 65_536,
        grace_period: float = 3_600.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a storage. The first blob creates the folder of a local storage.

        Args:
            uri: a folder, or a URL: ``file://``, ``s3://bucket/path``, ``gs://``, ``abfs://``, ``memory://``.
            inline_threshold: a value whose JSON text has up to this many bytes stays in the database.
            grace_period: how many seconds a blob without an entry is kept.
            options: arguments of fsspec's file system, such as ``{"anon": True}``. Each protocol has a list of allowed
                options.

        Raises:
            LTMError: ``configuration_error``; ``dependency_missing``, with the name of the extra to install.
        """
        if not _is_text(uri):
            raise _invalid("storage.uri must be a folder or a URL such as s3://bucket/path")
        if isinstance(inline_threshold, bool) or not isinstance(inline_threshold, int) or inline_threshold < 0:
            raise _invalid("storage.inline_threshold must be a number of bytes, 0 or more")
        if isinstance(grace_period, bool) or not isinstance(grace_period, (int, float)) or not 0 <= grace_period < 1e9:
            raise _invalid("storage.grace_period must be a number of seconds, 0 or more")
        self.inline_threshold, self.grace_period = inline_threshold, float(grace_period)
        self._files, root = _open(uri, dict(options or {}))
        self._root = root.rstrip("/")
        self._is_local = bool(getattr(self._files, "local_file", False))
        self.uri: str = self._files.unstrip_protocol(self._root)

    @classmethod
    def of(cls, config: Any) -> BlobStorage:
        """Return the storage of a ``storage`` block: ``{uri, inline_threshold, grace_period, options}``.

        Raises:
            LTMError: ``configuration_error``; the message names the bad key.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping) or "uri" not in config:
            raise _invalid("storage must be a mapping such as {uri: ./blobs}")
        for key in config:
            if key not in _OPTIONS:
                raise _invalid(f"storage has no key {key!r}; known: {', '.join(sorted(_OPTIONS))}")
        options = config.get("options")
        if options is not None and not isinstance(options, Mapping):
            raise _invalid("storage.options must be a mapping")
        return cls(**config)

    def holds_inline(self, text: str) -> bool:
        """Return whether a JSON text is small enough to stay in the database."""
        # A character has at most 4 bytes, so most texts need not be encoded.
        return len(text) * 4 <= self.inline_threshold or len(text.encode()) <= self.inline_threshold

    def pointer(self, text: str) -> str:
        """Return the pointer of a JSON text."""
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def put(self, text: str, *, look_inside: bool = True) -> str:
        """Store a JSON text, unless the storage has it, and return its pointer.

        Args:
            text: the JSON text of a value.
            look_inside: compare the content of an existing blob, and write it again if it was altered. Otherwise only
                its size is compared.

        Raises:
            LTMError: ``validation_error``: the text is too large; ``query_error``: the storage cannot be written.
        """
        pointer, data = self.pointer(text), text.encode()
        if len(data) > LARGEST_BLOB:
            raise LTMError("validation_error", f"a value in the storage has up to {LARGEST_BLOB:,} bytes of JSON")
        path = self._path(pointer)
        with _Translated("write"):
            if self._size(path) == len(data) and (not look_inside or self._content(path) == data):
                return pointer
            if self._is_local:  # write under another name first, so that a crash leaves no half blob
                unfinished = f"{path}{_UNFINISHED}{secrets.token_hex(8)}"
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                with open(unfinished, "xb", opener=_for_its_owner) as file:
                    file.write(data)
                self._replace(unfinished, path)
            else:
                self._files.pipe_file(path, data)
        return pointer

    def _replace(self, unfinished: str, path: str) -> None:
        if self._files.isdir(path):  # ``mv`` would put the blob into this folder, under another name
            self._files.rm_file(unfinished)
            raise IsADirectoryError
        self._files.mv(unfinished, path)

    def get(self, pointer: str) -> str:
        """Return the JSON text of a pointer.

        Raises:
            DamagedBlobError: the blob is missing or was altered.
            LTMError: ``query_error``: the storage cannot be read.
        """
        path = self._path(pointer)
        with _Translated("read"):
            data = self._content(path)
        if "sha256:" + hashlib.sha256(data).hexdigest() != pointer:
            if self._is_local and not os.path.isdir(self._root):
                raise LTMError("query_error", "cannot read the blob storage: its folder is not there")
            raise DamagedBlobError(f"{'has been altered' if data else 'is missing'} in the blob storage")
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass  # not chained, because the message of this exception shows the text
        raise DamagedBlobError("is no text in the blob storage")

    def size(self, pointer: str) -> int:
        """Return how many bytes the JSON text of a pointer has.

        Raises:
            DamagedBlobError: the blob is missing.
            LTMError: ``query_error``: the storage cannot be read.
        """
        path = self._path(pointer)
        with _Translated("read"):
            size = self._size(path)
        if size is None:
            raise DamagedBlobError("is missing in the blob storage")
        return size

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the pointers of blobs that were last written at least ``seconds`` ago; remove files that a crash left.

        Files with other names, or in other folders, are ignored.
        """
        now = time.time()
        with _Translated("list"):
            files = sorted(self._listed())
        for path, written in files:
            _, digest, unfinished = _OURS.fullmatch(path).groups()  # type: ignore[union-attr]
            age = now - written
            if unfinished:
                if age > max(seconds, _LONGEST_WRITE):
                    self._remove(f"{self._root}/{path}")
            elif age >= seconds:
                yield f"sha256:{digest}"

    def _listed(self) -> Iterator[tuple[str, float]]:
        """Yield the path below the root, and the time of the last write, of each file that this class wrote."""
        self._files.invalidate_cache()
        if not self._files.exists(self._root):
            return
        folders = [info for info in self._files.ls(self._root, detail=True) if info["type"] == "directory"]
        for folder in folders:
            name = folder["name"].rstrip("/").rpartition("/")[2]
            if not re.fullmatch("[0-9a-f]{2}", name) or folder.get("islink"):
                continue
            for info in self._files.ls(folder["name"], detail=True):
                path = f"{name}/{info['name'].rpartition('/')[2]}"
                if info["type"] == "file" and not info.get("islink") and _OURS.fullmatch(path):
                    yield path, _written(self._files, info["name"], info)

    def delete(self, pointer: str) -> None:
        """Remove a blob, if it exists."""
        self._remove(self._path(pointer))

    def _remove(self, path: str) -> None:
        with _Translated("delete"):
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                return

    def _path(self, pointer: str) -> str:
        match = _POINTER.fullmatch(pointer) if isinstance(pointer, str) else None
        if match is None:
            raise DamagedBlobError("has a pointer that is none of the blob storage")
        return f"{self._root}/{match[1][:2]}/{match[1]}"

    def _content(self, path: str) -> bytes:
        """Return the bytes of a blob, or no bytes if it does not exist."""
        if self._is_local and self._size(path) is None:
            return b""
        try:  # a bucket has only objects, so a single request with a limited range is safe
            return bytes(self._files.cat_file(path, start=0, end=LARGEST_BLOB + 1))
        except FileNotFoundError:
            return b""

    def _size(self, path: str) -> int | None:
        """Return the size of a blob in bytes, or None if it does not exist.

        Anything other than a plain file is refused, because reading it could take forever.
        """
        try:
            self._files.invalidate_cache()
            info = self._files.info(path)
        except FileNotFoundError:
            if not self._is_local or not os.path.lexists(path):
                return None
            info = {"type": "link"}  # its target does not exist
        is_elsewhere = (
            self._is_local and os.path.realpath(path) != f"{os.path.realpath(self._root)}{path[len(self._root) :]}"
        )
        if info["type"] != "file" or info.get("islink") or is_elsewhere:
            raise DamagedBlobError("is replaced by something else in the blob storage")
        if info["size"] > LARGEST_BLOB:
            raise DamagedBlobError(f"has more than {LARGEST_BLOB:,} bytes in the blob storage")
        return int(info["size"])


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Translated:
    """A context manager that turns the exceptions of a file system into LTMError."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and isinstance(error, Exception) and not isinstance(error, LTMError):
            problem = LTMError("query_error", f"cannot {self._doing} the blob storage ({type(error).__name__})")
            raise problem from None


def _open(uri: str, options: dict[str, Any]) -> tuple[Any, str]:
    protocol = _protocol(uri)
    extra, allowed = _PROTOCOLS[protocol]
    _check_options(protocol, allowed, options)
    problem: LTMError
    try:
        import fsspec
    except ImportError:
        problem = _missing("storage")
    else:
        try:
            files, root = fsspec.core.url_to_fs(uri, **options)
            return files, root
        except ImportError:
            problem = _missing(extra)
        except Exception as error:  # each file system has errors of its own
            problem = _invalid(f"storage.uri cannot be opened ({type(error).__name__})")
    raise problem


def _protocol(uri: str) -> str:
    protocol, separator, _ = uri.partition("://")
    protocol = protocol if separator else "file"
    # fsspec reads `a::b` as a chain of file systems and `data:` as a file system of its own.
    if protocol not in _PROTOCOLS or "::" in uri or uri.startswith("data:"):
        shown = ", ".join(f"{name}://" for name in _PROTOCOLS)
        raise _invalid(f"storage.uri must be a folder, or a URL that begins with one of {shown}, without `::`")
    return protocol


def _check_options(protocol: str, allowed: frozenset[str], options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in allowed:
            listed = f"known: {', '.join(sorted(allowed))}" if allowed else "it takes none"
            raise _invalid(f"storage.options of {protocol}:// has no key {name!r}; {listed}")
    client = options.get("client_kwargs", {})
    if not isinstance(client, Mapping) or not _CLIENT_OPTIONS.issuperset(client):
        raise _invalid(f"storage.options.client_kwargs takes {', '.join(sorted(_CLIENT_OPTIONS))}")


def _written(files: Any, path: str, info: Mapping[str, Any]) -> float:
    timestamp = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    if timestamp is None:
        timestamp = files.modified(path)
    if isinstance(timestamp, datetime):
        timestamp = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=timezone.utc)
        return timestamp.timestamp()
    return float(timestamp)


def _is_text(uri: Any) -> bool:
    try:
        return bool(check_text(uri, "storage.uri"))
    except LTMError:
        return False


def _missing(extra: str) -> LTMError:
    return LTMError("dependency_missing", f'this storage needs: pip install "the-edge-agent[{extra}]"')


def _invalid(message: str) -> LTMError:
    return LTMError("configuration_error", message)
