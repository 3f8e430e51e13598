"""How both memories on PostgreSQL write a query for the text index; ``sqlite/index.py`` does the same for SQLite."""

from __future__ import annotations

from typing import Final

from the_edge_agent.memory.core.tokens import Term

#: What is indexed: every token of a search text.
VECTOR: Final = "to_tsvector('simple'::regconfig, search_text)"

# A condition that is always true. PostgreSQL evaluates it before the scan, and then a GIN index finds all that match:
# another client of a pooler may have left a limit in the session.
WHOLE_INDEX: Final = "(SELECT set_config('gin_fuzzy_search_limit', '0', true)) = '0'"


def looked_up(term: Term) -> str:
    """Return the query for the text index that finds a term; its tokens are ASCII letters and digits."""
    end = ":*" if term.prefix else ""
    variants = [" & ".join(tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' | '.join(f'({variant})' for variant in variants)})"
