"""SQL text and parameters for the indexes on PostgreSQL, which the native memory and SQLAlchemy's share.

``sqlite/index.py`` has the same for SQLite.
"""

from __future__ import annotations

from typing import Any, Final

from the_edge_agent.memory.core.codec import comparable_json, decode
from the_edge_agent.memory.core.filters import Node, equalities
from the_edge_agent.memory.core.tokens import Term

#: The indexed expression: every token of a search text.
VECTOR: Final = "to_tsvector('simple'::regconfig, search_text)"

# A condition that is always true. PostgreSQL evaluates it before the scan, so that a GIN index then finds all matches.
# Without it, a limit could apply that another client of a pooler left in the session.
WHOLE_INDEX: Final = "(SELECT set_config('gin_fuzzy_search_limit', '0', true)) = '0'"


def term_query(term: Term) -> str:
    """Return the tsquery for a term. Its tokens are ASCII letters and digits, so nothing needs escaping."""
    end = ":*" if term.prefix else ""
    variants = [" & ".join(tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' | '.join(f'({variant})' for variant in variants)})"


def json_copy(metadata: str | None) -> str:
    """Return the copy of an entry's metadata for filters, in the form that JSONB compares exactly."""
    return comparable_json(decode(metadata or "{}"))


def indexed_filter(condition: Node | None) -> tuple[str, dict[str, Any]]:
    """Return the part of a metadata filter that the index on the JSONB copy can look up, as SQL and its parameters.

    Every entry that satisfies the filter satisfies this condition. ``core.filters.matches`` decides the rest.
    """
    objects = [comparable_json(equal) for equal in equalities(condition)]
    tests = [f"metadata_json @> %(metadata{place})s::jsonb" for place in range(len(objects))]
    return " AND ".join(["true", *tests]), {f"metadata{place}": text for place, text in enumerate(objects)}
