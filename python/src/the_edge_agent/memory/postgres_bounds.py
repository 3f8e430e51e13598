"""How a filter is looked for on PostgreSQL, by both memories: as on SQLite, see ``sqlite_index``."""

from __future__ import annotations

from typing import Final

# How many matches are fetched at most, and how many of the newest entries are looked at, in turn until one suffices.
# Asked for the newest the planner would look at all entries from the newest on, because it takes each value of the
# metadata to be common, without statistics and in a plan that is kept.
BOUNDS: Final = ((200, 2_000), (20_000, 40_000))
