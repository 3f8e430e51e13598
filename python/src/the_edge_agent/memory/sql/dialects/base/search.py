"""Queries as SQL conditions: by LIKE over each search text, and the base class for databases with a text index.

A dialect returns one of these classes, or a subclass, from its hook ``texts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Table, Text, bindparam, not_, or_, select

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import Step
from the_edge_agent.memory.sql.dialects.base.match_query import ROWS, MatchQuery, SQLStep

WORDS: BindParameter[str] = bindparam("b_words", type_=Text())


class TextConditions:
    """Turns the terms of a query into SQL on the entries' table, by LIKE alone, so that any database runs it."""

    def __init__(self, entries: Table) -> None:
        """Make the conditions of one table."""
        self.table = entries

    def exact(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return a condition for each term, by the search text alone; ``parameters`` has their values.

        The condition is that the entry has the term or, if the term is negated, that it lacks it.
        """
        return [self.contains(term, place) for place, term in enumerate(terms)]

    def matches(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that mean the same as ``exact``, and use the text index where there is one."""
        return self.exact(terms)

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps that find the newest matches, in the order of their trial; see ``search_plan.ladder``."""
        return [Step(newest.rows(where=self.matches(newest.terms)))]

    def tried_first(self, steps: Sequence[SQLStep], terms: Sequence[Term]) -> Sequence[int]:
        """Return the places of the steps that are tried as single statements.

        If none of them answers, a transaction tries all steps.
        """
        return [*takewhile(lambda place: steps[place].look_up is None, range(len(steps)))]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps that find some rows that match. These need no order, so that a few are found quickly."""
        where = [*newest.conditions, *newest.prefix(), *self.matches(newest.terms)]
        return [Step(select(*newest.columns).where(*where).limit(ROWS))]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the values for the parameters of the conditions.

        Args:
            terms: of the query.
            also: terms that every match has anyway, such as the words of the key prefix. A text index finds less if it
                is asked for them too.
        """
        return {
            _name(place, number): f"%{needle}%"
            for place, term in enumerate(terms)
            for number, needle in enumerate(term.needles)
        }

    def lookup_parameters(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the parameters by which an index looks up a metadata filter.

        Args:
            groups: what ``core.filters.index_lookups`` returns. A match has one object of each group.

        Returns:
            Nothing where no index serves filters by parameters of this class.
        """
        return {}

    def contains(self, term: Term, place: int) -> ColumnElement[bool]:
        """Return the condition of one term, by LIKE over the search text. ``place`` is its number in the query."""
        column = self.table.c.search_text
        found = or_(
            *(column.like(bindparam(_name(place, number), type_=column.type)) for number in range(len(term.variants)))
        )
        return not_(found) if term.negated else found


class IndexedTextConditions(TextConditions):
    """The base for a text index: the index finds the terms that must occur, and LIKE checks what it cannot tell.

    A subclass provides ``indexed`` and ``words``. It may replace ``steps`` and ``having`` where the planner needs help.
    """

    def matches(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that mean the same as ``exact``, and use the index."""
        return [self.indexed(WORDS), *self.unsure(terms)] if has_words(terms) else self.exact(terms)

    def unsure(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return the LIKE conditions of phrases and negated terms, which the index alone cannot decide."""
        return [self.contains(term, place) for place, term in enumerate(terms) if not term.is_told_by_index]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the values for the parameters of the conditions, the query for the index among them."""
        looked_for = [term for term in (*terms, *also) if not term.negated]
        return {**super().parameters(terms), "b_words": self.words(looked_for)}

    def indexed(self, words: BindParameter[str]) -> ColumnElement[bool]:
        """Return the SQL condition that the index finds an entry by a query; ``words`` is the parameter with it."""
        raise NotImplementedError

    def words(self, terms: Sequence[Term]) -> str:
        """Return the query for the text index, in its syntax. It asks for all of these terms; none is negated."""
        raise NotImplementedError


def _name(place: int, number: int) -> str:
    return f"b_needle{place}_{number}"
