"""Terms of a query as SQL conditions: ``TextConditions`` uses LIKE, ``IndexedTextConditions`` a text index.

A dialect returns one of these classes, or a subclass, from its hook ``texts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Table, Text, bindparam, not_, or_, select

from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.database.search_plan import Step
from the_edge_agent.memory.sql.dialects.base.match_query import ROWS, MatchQuery, SQLStep, by_range

WORDS: BindParameter[str] = bindparam("b_words", type_=Text())


class TextConditions:
    """Turns the terms of a query into SQL on the entries' table. It uses only LIKE, which any database has."""

    def __init__(self, entries: Table) -> None:
        """Make conditions for one table."""
        self.table = entries

    def like_conditions(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return one LIKE condition for each term: the search text has the term or, if it is negated, lacks it.

        ``parameters`` returns the values for these conditions.
        """
        return [self.like_condition(term, place) for place, term in enumerate(terms)]

    def term_conditions(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that select the same entries as ``like_conditions``, if possible by a text index."""
        return self.like_conditions(terms)

    def steps(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps that find the newest matches, cheapest first; see ``search_plan.ladder``."""
        return [Step(newest.rows(where=self.term_conditions(newest.terms)))]

    def by_range(self, newest: MatchQuery) -> SQLStep:
        """Return the step that reads the matches among the keys of the range, if these are not too many."""
        return by_range(newest, self.like_conditions(newest.terms))

    def tried_first(self, steps: Sequence[SQLStep], terms: Sequence[Term]) -> Sequence[int]:
        """Return the numbers of the steps that can run as single statements, without a transaction.

        If none of them answers, a transaction runs all steps.
        """
        return [*takewhile(lambda place: steps[place].look_up is None, range(len(steps)))]

    def having(self, newest: MatchQuery) -> list[SQLStep]:
        """Return the steps that find some matches, in any order. Without a sort the first matches come quickly."""
        where = [*newest.conditions, *newest.in_range(), *self.term_conditions(newest.terms)]
        return [Step(select(*newest.columns).where(*where).limit(ROWS))]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the values for the parameters of the conditions.

        Args:
            terms: the terms of the query.
            also: more terms that every match has, such as the words of the key prefix. With them the text index returns
                fewer candidates.
        """
        return {
            _name(place, number): f"%{needle}%"
            for place, term in enumerate(terms)
            for number, needle in enumerate(term.needles)
        }

    def lookup_parameters(self, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Return the parameters with which an index looks up a metadata filter.

        Args:
            groups: what ``core.filters.index_lookups`` returns. A match has one object of each group.

        Returns:
            The parameters; empty if no index of this class can look up filters.
        """
        return {}

    def like_condition(self, term: Term, place: int) -> ColumnElement[bool]:
        """Return the LIKE condition of one term. ``place`` is the number of the term in the query."""
        column = self.table.c.search_text
        condition = or_(
            *(column.like(bindparam(_name(place, number), type_=column.type)) for number in range(len(term.variants)))
        )
        return not_(condition) if term.negated else condition


class IndexedTextConditions(TextConditions):
    """The base for a text index: the index finds the terms that must occur, and LIKE decides phrases and negated terms.

    A subclass writes ``index_condition`` and ``index_query``. It may replace ``steps`` and ``having`` to help the
    planner.
    """

    def term_conditions(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return conditions that select the same entries as ``like_conditions``, and use the index."""
        return (
            [self.index_condition(WORDS), *self.recheck_conditions(terms)]
            if has_words(terms)
            else self.like_conditions(terms)
        )

    def recheck_conditions(self, terms: Sequence[Term]) -> list[ColumnElement[bool]]:
        """Return the LIKE conditions for phrases and negated terms, which the index alone cannot decide."""
        return [self.like_condition(term, place) for place, term in enumerate(terms) if not term.is_told_by_index]

    def parameters(self, terms: Sequence[Term], also: Sequence[Term] = ()) -> dict[str, Any]:
        """Return the values for the parameters of the conditions, including the query for the index."""
        required = [term for term in (*terms, *also) if not term.negated]
        return {**super().parameters(terms), "b_words": self.index_query(required)}

    def index_condition(self, index_query: BindParameter[str]) -> ColumnElement[bool]:
        """Return the SQL condition that an entry matches an index query. ``index_query`` is its bound parameter."""
        raise NotImplementedError

    def index_query(self, terms: Sequence[Term]) -> str:
        """Return the query for the text index, in the syntax of the index: all terms must occur. No term is negated.

        If there are no terms, nothing uses the result, but the method must return a text.
        """
        raise NotImplementedError


def _name(place: int, number: int) -> str:
    return f"b_needle{place}_{number}"
