"""All that can be asked of one database, built on first use."""

from __future__ import annotations

from functools import cached_property

from the_edge_agent.memory.sql.catalog import Catalog
from the_edge_agent.memory.sql.creation import Schema
from the_edge_agent.memory.sql.entries import Entries


class Statements:
    """What a transaction works with: the entries' table and the catalog's."""

    def __init__(self, schema: Schema) -> None:
        """Make the statements for the tables of one database."""
        self.schema = schema

    @cached_property
    def entries(self) -> Entries:
        """The entries of long-term memory."""
        return Entries(self.schema)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog and its snapshots."""
        return Catalog(self.schema)
