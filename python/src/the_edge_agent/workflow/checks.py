"""``Checker``: reads parts of an agent's document, and refuses what is wrong with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from the_edge_agent.workflow.errors import WorkflowFileError, nearest
from the_edge_agent.workflow.reading import Document, Path, show_path


class Checker:
    """Reads parts of one document. All its methods raise WorkflowFileError if a part is not as it must be."""

    def __init__(self, document: Document) -> None:
        """Read from ``document``."""
        self.document = document

    def words(
        self,
        path: Path,
        data: dict[str, Any],
        words: Iterable[str],
        *,
        later: Mapping[str, str] | None = None,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse words that a mapping must not have.

        Args:
            path: where the mapping is.
            data: the mapping.
            words: the words that it may have.
            later: words that are not supported yet, each with more to say.
            instead: words that other programs know, each with what to write here.
        """
        self.keys(path, data)
        words, later, instead = tuple(words), later or {}, instead or {}
        for word in data:
            if word in later:
                raise self.refused((*path, word), f"`{word}` is not supported yet{later[word]}", key=True)
            if word in instead:
                raise self.refused((*path, word), f"there is no `{word}` here: {instead[word]}", key=True)
            if word not in words:
                hint = nearest(word, [*words, *later]) or f"; known are {listed(words)}"
                raise self.refused((*path, word), f"unknown word `{word}`{hint}", key=True)

    def keys(self, path: Path, data: dict[Any, Any]) -> None:
        """Refuse keys that are not text."""
        for key in data:
            if not isinstance(key, str):
                raise self.refused(path, f"keys must be text, not {key!r}")

    def mapping(self, path: Path, value: Any) -> dict[str, Any]:
        """Return the mapping at ``path``. None (only the key was written) becomes an empty mapping."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refused(path, f"`{path[-1]}` must be a mapping, not {kind_of(value)}")
        self.keys(path, value)
        return value

    def text(self, path: Path, value: Any) -> str:
        """Return the text at ``path``."""
        if not isinstance(value, str):
            raise self.refused(path, f"`{path[-1]}` must be text, not {kind_of(value)}")
        return value

    def boolean(self, path: Path, value: Any) -> bool:
        """Return true or false at ``path``."""
        if not isinstance(value, bool):
            raise self.refused(path, f"`{path[-1]}` must be true or false, not {kind_of(value)}")
        return value

    def choice(self, path: Path, value: Any, words: Iterable[str]) -> str:
        """Return one of ``words`` at ``path``."""
        words = tuple(words)
        text = self.text(path, value)
        if text not in words:
            hint = nearest(text, words) or f"; known are {listed(words)}"
            raise self.refused(path, f"`{path[-1]}` can't be `{text}`{hint}")
        return text

    def refused(self, path: Path, message: str, *, key: bool = False) -> WorkflowFileError:
        """Return the error for the value (or key) at ``path``."""
        place = self.document.place(path, key=key)
        if place.line is None and place.source and path:
            message = f"{show_path(path)}: {message}"
        return WorkflowFileError(message, place)


def listed(words: Iterable[str]) -> str:
    """Return words for a message."""
    return ", ".join(f"`{word}`" for word in words)


def kind_of(value: Any) -> str:
    """Return what a value is, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    for kind, shown in ((str, "text"), (list, "a list"), (dict, "a mapping")):
        if isinstance(value, kind):
            return shown
    return type(value).__name__
