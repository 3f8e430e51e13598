"""Blob storage: large values as files named by their content, in a folder, a bucket, or whatever fsspec reaches."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.validation import check_text

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_POINTER: Final = re.compile(r"sha256:([0-9a-f]{64})")
_OPTIONS: Final = frozenset({"uri", "inline_threshold", "grace_period", "options"})
_UNFINISHED: Final = ".part-"
_LONGEST_WRITE: Final = 3_600.0  # seconds after which an unfinished file is what a crash has left


class BlobStorage:
    """Values by the SHA-256 of their JSON text, so that equal values are stored once.

    A pointer names a value by its digest alone: no pointer leads out of the root. Safe for many threads.

    Attributes:
        inline_threshold: the bytes up to which a value stays in the database.
        grace_period: the seconds for which a blob is kept that no entry points to.
    """

    def __init__(
        self,
        uri: str,
        *,
        inline_threshold: int = 65_536,
        grace_period: float = 3_600.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a storage; its root is made with the first blob.

        Args:
            uri: a folder, or what fsspec calls a URL: ``s3://bucket/path``, ``gs://...``, ``memory://...``.
            inline_threshold: the bytes of JSON text up to which a value stays in the database.
            grace_period: seconds.
            options: more arguments of fsspec's file system, such as ``{"anon": True}``.

        Raises:
            LTMError: ``configuration_error``, or ``dependency_missing`` that names the extra to install.
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
            LTMError: ``configuration_error`` that names the key.
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
        # A character has at most 4 bytes, so that most texts need no closer look.
        return len(text) * 4 <= self.inline_threshold or len(text.encode()) <= self.inline_threshold

    def pointer(self, text: str) -> str:
        """Return the pointer of a JSON text."""
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def put(self, text: str, *, look_inside: bool = True) -> str:
        """Store a JSON text unless it is there, and return its pointer.

        Args:
            text: of a value.
            look_inside: write anew what has been altered; otherwise its size is enough to know it.

        Raises:
            LTMError: ``query_error``: the storage cannot be written.
        """
        pointer, data = self.pointer(text), text.encode()
        path = self._path(pointer)
        with _Translated("write"):
            if self._size(path) == len(data) and (not look_inside or self._content(path) == data):
                return pointer
            if self._is_local:  # a crash leaves no half blob under its name
                unfinished = f"{path}{_UNFINISHED}{secrets.token_hex(8)}"
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(unfinished, data)
                self._replace(unfinished, path)
            else:
                self._files.pipe_file(path, data)
        return pointer

    def _replace(self, unfinished: str, path: str) -> None:
        if self._files.isdir(path):  # a move would put the blob into it
            self._files.rm_file(unfinished)
            raise IsADirectoryError
        self._files.mv(unfinished, path)

    def get(self, pointer: str) -> str:
        """Return the JSON text of a pointer.

        Raises:
            LTMError: ``query_error``: the blob is missing, or is not what was stored.
        """
        path = self._path(pointer)
        with _Translated("read"):
            data = self._content(path)
        if "sha256:" + hashlib.sha256(data).hexdigest() != pointer:
            problem = "has been altered" if data else "is missing"
            raise LTMError("query_error", f"the value of this entry {problem} in the blob storage")
        return data.decode()

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the pointers of the blobs that were last written so long ago; what a crash left half is removed."""
        now = time.time()
        with _Translated("list"):
            found = self._files.find(self._root, detail=True) if self._files.exists(self._root) else {}
        for path, info in sorted(found.items()):
            name = path.rpartition("/")[2]
            age = now - _written(self._files, path, info)
            if _UNFINISHED in name:
                if age > max(seconds, _LONGEST_WRITE):
                    self._remove(path)
            elif age >= seconds and re.fullmatch("[0-9a-f]{64}", name):
                yield f"sha256:{name}"

    def delete(self, pointer: str) -> None:
        """Remove a blob, if it is there."""
        self._remove(self._path(pointer))

    def _remove(self, path: str) -> None:
        with _Translated("delete"):
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                return

    def _path(self, pointer: str) -> str:
        found = _POINTER.fullmatch(pointer) if isinstance(pointer, str) else None
        if found is None:
            raise LTMError("query_error", "the entry points to a value that is no blob of this storage")
        return f"{self._root}/{found[1][:2]}/{found[1]}"

    def _content(self, path: str) -> bytes:
        """Return what is in a blob; nothing if it is not there, or not any more."""
        try:
            return bytes(self._files.cat_file(path))
        except FileNotFoundError:
            return b""

    def _size(self, path: str) -> int | None:
        try:
            self._files.invalidate_cache()
            return int(self._files.info(path)["size"])
        except FileNotFoundError:
            return None


class _Translated:
    """Turns what a file system raises into an LTMError."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and isinstance(error, Exception) and not isinstance(error, LTMError):
            problem = LTMError("query_error", f"cannot {self._doing} the blob storage ({type(error).__name__})")
            raise problem from None


def _open(uri: str, options: dict[str, Any]) -> tuple[Any, str]:
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
            scheme = uri.partition("://")[0]
            problem = _missing(_EXTRAS.get(scheme, "storage"))
        except Exception as error:  # each file system has errors of its own
            problem = _invalid(f"storage.uri cannot be opened ({type(error).__name__})")
    raise problem


def _written(files: Any, path: str, info: Mapping[str, Any]) -> float:
    moment = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    if moment is None:
        moment = files.modified(path)
    if isinstance(moment, datetime):
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    return float(moment)


def _is_text(uri: Any) -> bool:
    try:
        return bool(check_text(uri, "storage.uri"))
    except LTMError:
        return False


def _missing(extra: str) -> LTMError:
    return LTMError("dependency_missing", f'this storage needs: pip install "the-edge-agent[{extra}]"')


def _invalid(message: str) -> LTMError:
    return LTMError("configuration_error", message)
