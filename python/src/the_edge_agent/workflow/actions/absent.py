"""Actions of other engines that this one does not have: each is refused with a sentence of help."""

from __future__ import annotations

from typing import Final

_MEMORY: Final = "keep it with `ltm.store` and find it with `ltm.search`"
_OWN: Final = "call the library from `run`, or from an action of your own (`--actions-module`)"
_LLM: Final = "write nodes with `llm.call` and edges between them"

# By the beginning of the name: what it is, and what to do instead. The longest beginning counts.
_ABSENT: Final[dict[str, tuple[str, str]]] = {
    "a2a.": ("messages between agents (a2a)", "let the agents share a memory: one stores, the other searches"),
    "agent.": ("agents that call agents", _LLM),
    "academic.": ("searches of papers", "call the service with `http.get`"),
    "auth.": ("authentication", "let the program that runs the agent do it"),
    "cache.": ("caches of actions", "use `ltm.retrieve` before and `ltm.store` with `ttl` after"),
    "cloud.": ("cloud memory", "set `url` of `settings.ltm`, and its `storage` for large values"),
    "code.": ("actions that run code", "write a `run` node"),
    "csv.": ("CSV", "read it in a `run` node with Python's module csv"),
    "data.": ("checks and tables of data", "write a `run` node"),
    "dspy.": ("DSPy", _OWN),
    "embedding.": ("embeddings", "`ltm.search` takes questions in plain words"),
    "firestore.": ("Firestore", "set `url` of `settings.ltm` to a database"),
    "graph.": ("graph databases", "store each relation as an entry, and find it by its metadata with `ltm.search`"),
    "neo4j.": ("graph databases", "store each relation as an entry, and find it by its metadata with `ltm.search`"),
    "json.transform": ("JMESPath", "write a template, such as `{{ state.data.items | map(attribute='id') | list }}`"),
    "llamaextract.": ("LlamaExtract", _OWN),
    "llamaindex.": ("LlamaIndex", "store the texts with `ltm.store` and ask `ltm.search`"),
    "llm.embed": ("embeddings", "`ltm.search` takes questions in plain words"),
    "llm.retry": ("action for retries", "`llm.call` tries again by itself; `max_retries` says how often"),
    "llm.stream": ("action for streaming", "write `llm.call` with `stream: true`"),
    "llm.tools": ("action for tools", "write `llm.call` with `tools`, and a node that calls what `tool_calls` names"),
    "lua.": ("Lua", "write Python in `run`"),
    "mem0.": ("Mem0", _MEMORY),
    "memory.cloud": ("cloud memory", "set `url` of `settings.ltm`, and its `storage` for large values"),
    "memory.summarize": ("summaries of messages", "ask `llm.call` for one"),
    "opik.": ("Opik", "`tea -v run FILE` logs each node and action"),
    "plan.": ("plans of tasks", _LLM),
    "planning.": ("plans of tasks", _LLM),
    "prolog.": ("Prolog", "write Python in `run`"),
    "rag.": ("index of vectors", "`ltm.search` takes questions in plain words"),
    "reason.": ("ready-made ways to reason", _LLM),
    "reflection.": ("reflection loops", "write nodes with `llm.call` and an edge back to the first"),
    "retry.": ("loops of retries", "write `retry` on the node"),
    "search.": ("other searches", "use `ltm.search`"),
    "session.": ("sessions", "use a `namespace` for each session, and `ttl`"),
    "storage.": ("files in buckets", "call the library from `run`"),
    "stream.": ("streams between nodes", "put the data into the state or the memory"),
    "supabase.": ("Supabase", "set `url` of `settings.ltm` to its PostgreSQL database"),
    "textgrad.": ("TextGrad", _OWN),
    "tools.": ("tools of other frameworks", _OWN),
    "trace.": ("tracing actions", "`tea -v run FILE` logs each node and action"),
    "vector.": ("index of vectors", "`ltm.search` takes questions in plain words"),
    "web.": ("searches of the web", "call the service with `http.get` or `http.post`"),
}
_LONGEST_FIRST: Final = sorted(_ABSENT, key=len, reverse=True)


def why_absent(name: str) -> str:
    """Return ``: this engine has no ...`` with a sentence of help, for an action that other engines have, or ``""``.

    Args:
        name: the name of an action, such as ``mem0.add``.
    """
    for beginning in _LONGEST_FIRST:
        if name.startswith(beginning):
            part, help_ = _ABSENT[beginning]
            return f": this engine has no {part}; {help_}"
    return ""
