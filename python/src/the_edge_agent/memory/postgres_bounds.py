"""How an index is asked on PostgreSQL, by both memories: as on SQLite, see ``sqlite_index``."""

from __future__ import annotations

from typing import Final

from the_edge_agent.memory.text import Term

# How many matches are fetched at most, and how many of the newest entries are looked at, in turn until one suffices.
# Asked for the newest the planner would look at all entries from the newest on, because it takes each value of the
# metadata to be common, without statistics and in a plan that is kept.
BOUNDS: Final = ((200, 2_000), (20_000, 40_000))


def looked_up(term: Term) -> str:
    """Return the query for the text index that finds a term; its tokens are ASCII letters and digits."""
    end = ":*" if term.prefix else ""
    variants = [" & ".join(tokens) + end for tokens in term.variants]
    return variants[0] if len(variants) == 1 else f"({' | '.join(f'({variant})' for variant in variants)})"
