"""Queries as SQL over the search tokens: the portable way, by looking at each text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Integer, Table, Text, bindparam, func, not_

from the_edge_agent.memory.sql.dialects.newest import Newest, Step
from the_edge_agent.memory.text import TOKEN_START, Term, has_words

WORDS: BindParameter[str] = bindparam("b_words", type_=Text())


class TextConditions:
    """What a query means for the entries' table."""

    def __init__(self, entries: Table) -> None:
        """Make the conditions of one table."""
        self.table = entries

    def exact(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return the conditions that an entry has (or, negated, lacks) each term, to be bound to ``parameters``."""
        return [self.contains(term, place) for place, term in enumerate(terms)]

    def matches(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that mean the same, by an index where there is one."""
        return self.exact(terms)

    def steps(self, newest: Newest) -> list[Step]:
        """Return the statements for the newest matches, of which the first answers whose rows suffice."""
        return [Step(newest.rows(where=self.matches(newest.terms)), {})]

    def alone(self, steps: Sequence[Step], terms: Sequence[Term]) -> Sequence[int]:
        """Return the places of the steps that are to be tried, each by itself, before a transaction tries all."""
        return [*takewhile(lambda place: steps[place].look_up is None, range(len(steps)))]

    def parameters(self, terms: Sequence[Term]) -> dict[str, Any]:
        """Return the values of the parameters for these terms."""
        return {f"b_needle{place}": f"%{term.needle}%" for place, term in enumerate(terms)}

    def wanted(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the query for a full-text index that stands for ``filters.alternatives``."""
        return {}

    def contains(self, term: Term, place: int) -> ColumnElement[bool]:
        """Return the condition of the term at a place of the query, by looking at the whole search text."""
        column = self.table.c.search_text
        found = column.like(bindparam(f"b_needle{place}", type_=column.type))
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

    def matches(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that mean the same, by the index."""
        return [self.indexed(WORDS), *self.unsure(terms)] if has_words(terms) else self.exact(terms)

    def unsure(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return the conditions of the terms of which the index cannot tell."""
        return [self.contains(term, place) for place, term in enumerate(terms) if not is_told_by_index(term)]

    def parameters(self, terms: Sequence[Term]) -> dict[str, Any]:
        """Return the values of the parameters for these terms."""
        return {**super().parameters(terms), "b_words": self.words([term for term in terms if not term.negated])}

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the index has all that it is asked for."""
        raise NotImplementedError

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the full-text index: every token of these terms."""
        raise NotImplementedError


def is_told_by_index(term: Term) -> bool:
    """Return whether the index alone tells of a term: it does not know the order of several tokens."""
    return not term.negated and len(term.tokens) == 1
