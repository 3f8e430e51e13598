"""Queries as SQL over the search tokens: the portable way, by looking at each text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Table, Text, bindparam, not_, or_, select

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import Step
from the_edge_agent.memory.sql.dialects.match_query import ROWS, MatchQuery, SQLStep

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

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps for the newest matches, see ``plan.ladder``."""
        return [Step(newest.rows(where=self.matches(newest.terms)))]

    def tried_first(self, steps: Sequence[SQLStep], terms: Sequence[Term]) -> Sequence[int]:
        """Return the places of the steps that are tried as single statements.

        If none of them answers, a transaction tries all steps.
        """
        return [*takewhile(lambda place: steps[place].look_up is None, range(len(steps)))]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps for rows that match, in whatever order they are found quickest."""
        where = [*newest.conditions, *newest.prefix(), *self.matches(newest.terms)]
        return [Step(select(*newest.columns).where(*where).limit(ROWS))]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the parameters of the terms. ``also`` are terms of every match, which may help an index."""
        return {
            _name(place, number): f"%{needle}%"
            for place, term in enumerate(terms)
            for number, needle in enumerate(term.needles)
        }

    def wanted(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the query for a full-text index that stands for ``filters.index_lookups``."""
        return {}

    def contains(self, term: Term, place: int) -> ColumnElement[bool]:
        """Return the condition of the term at a place of the query, by looking at the whole search text."""
        column = self.table.c.search_text
        found = or_(
            *(column.like(bindparam(_name(place, number), type_=column.type)) for number in range(len(term.variants)))
        )
        return not_(found) if term.negated else found


class IndexedTextConditions(TextConditions):
    """Positive terms looked up in a text index; what it cannot tell is rechecked."""

    def matches(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that mean the same, by the index."""
        return [self.indexed(WORDS), *self.unsure(terms)] if has_words(terms) else self.exact(terms)

    def unsure(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return the conditions of the terms of which the index cannot tell."""
        return [self.contains(term, place) for place, term in enumerate(terms) if not term.is_told_by_index]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the parameters of the terms."""
        looked_for = [term for term in (*terms, *also) if not term.negated]
        return {**super().parameters(terms), "b_words": self.words(looked_for)}

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the condition that the index has all that it is asked for."""
        raise NotImplementedError

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the full-text index: every token of these terms."""
        raise NotImplementedError


def _name(place: int, number: int) -> str:
    return f"b_needle{place}_{number}"
