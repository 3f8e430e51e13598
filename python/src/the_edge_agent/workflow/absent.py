"""Arguments of ``YAMLEngine`` for parts that this engine does not have. A program may only switch these parts off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from the_edge_agent.workflow.errors import nearest


@dataclass(frozen=True)
class _Part:
    """A part that this engine does not have.

    Attributes:
        reason: the text for the error.
        switch: the argument that switches the part on or off; None if there is none.
        starts_on: whether an option alone switches the part on.
        options: the other arguments of the part.
    """

    reason: str
    switch: str | None = None
    starts_on: bool = True
    options: frozenset[str] = field(default_factory=frozenset)

    def check(self, words: Mapping[str, Any]) -> None:
        """Raise ValueError if one of the arguments switches the part on."""
        switch = None if self.switch is None else words.get(self.switch)
        is_on = self.starts_on if switch is None else bool(switch)
        for name in (self.switch, *sorted(self.options)) if is_on else ():
            if name is not None and words.get(name) is not None and words[name] is not False:
                remedy = f"leave it out, or give {self.switch}=False" if self.switch else "leave it out"
                raise ValueError(f"`{name}`: {self.reason}; {remedy}")


def _part(reason: str, switch: str | None, options: str, *, starts_on: bool = True) -> _Part:
    return _Part(reason, switch, starts_on, frozenset(options.split()))


_PARTS: Final = (
    _part("there is no tracing here", "enable_tracing", "trace_exporter trace_file trace_callback trace_verbose"),
    _part("there are no graph databases here", "enable_graph", "graph_backend graph_path graph_backend_type"),
    _part("there is no store of metadata here", "enable_metadata_store", "metadata_store"),
    _part("there is no blob storage of workflows here", "enable_blob_storage", "blob_storage"),
    _part("there is no query engine here", "enable_query_engine", "query_engine"),
    _part("there is no vector index here", "enable_vector_index", "vector_index embedding_fn"),
    _part("there are no actions that run code here", "enable_code_execution", "", starts_on=False),
    _part("there is no memory for one session here", None, "memory_backend"),
    _part(
        "there is no Opik here",
        "opik_enabled",
        "opik_llm_tracing opik_api_key opik_workspace opik_project_name opik_url opik_trace_export",
    ),
    _part("there is no Lua here", "lua_enabled", "lua_timeout", starts_on=False),
    _part("there is no Prolog here", "prolog_enabled", "prolog_timeout prolog_sandbox", starts_on=False),
)
_WORDS: Final = frozenset().union(*(part.options | ({part.switch} if part.switch else set()) for part in _PARTS))


def check_absent_parts(words: Mapping[str, Any], parameters: Iterable[str]) -> None:
    """Check arguments of a constructor that it does not have.

    Args:
        words: the arguments with their values. Errors do not show the values.
        parameters: the arguments that the constructor has.

    Raises:
        ValueError: an argument switches on a part that this engine does not have.
        TypeError: an argument is unknown.
    """
    for name in words:
        if name not in _WORDS:
            raise TypeError(f"YAMLEngine() has no argument {name!r}{nearest(name, parameters)}")
    for part in _PARTS:
        part.check(words)
