"""Queries as SQL over the search tokens: the portable way, by looking at each text."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Integer, Table, Text, and_, func, not_

from the_edge_agent.memory.text import TOKEN_START, Term


class TextConditions:
    """What a query means for the entries' table."""

    def __init__(self, entries: Table) -> None:
        """Make the conditions of one table."""
        self.table = entries

    def matches(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Return the condition that an entry has (or, negated, lacks) every term."""
        return and_(*(self.contains(term) for term in terms))

    def contains(self, term: Term) -> ColumnElement[bool]:
        """Return the condition of one term, by looking at the whole search text."""
        found = self.table.c.search_text.contains(term.needle)
        return not_(found) if term.negated else found

    def occurrences(self, needle: str) -> ColumnElement[int]:
        """Return how often a string occurs in the search text."""
        column = self.table.c.search_text
        shorter = func.replace(column, needle, "", type_=Text())
        return (func.length(column, type_=Integer()) - func.length(shorter, type_=Integer())) // len(needle)

    def token_count(self) -> ColumnElement[int]:
        """Return how many tokens the search text has."""
        return self.occurrences(TOKEN_START)


class IndexedTextConditions(TextConditions):
    """Positive terms looked up in a text index; what it cannot tell is rechecked."""

    def matches(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Return the condition that an entry has (or, negated, lacks) every term."""
        positive = [term for term in terms if not term.negated]
        if not positive:
            return super().matches(terms)
        recheck = [self.contains(term) for term in terms if term.negated or len(term.tokens) > 1]
        return and_(self.indexed(positive), *recheck)

    def indexed(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Return the condition that the index has every token of these terms."""
        raise NotImplementedError
