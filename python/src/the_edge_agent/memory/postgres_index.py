"""How an index is asked on PostgreSQL, by both memories: as on SQLite, see ``sqlite_index``."""

from __future__ import annotations

from the_edge_agent.memory.text import Term


def looked_up(term: Term) -> str:
    """Return the query for the text index that finds a term; its tokens are ASCII letters and digits."""
    end = ":*" if term.prefix else ""
    variants = [" & ".join(tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' | '.join(f'({variant})' for variant in variants)})"
