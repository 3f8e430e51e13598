"""Pages of ``entries``: their orders, and the text (``next``, ``after``) that says where the next page begins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from the_edge_agent.memory.core.damage import Damage, is_key
from the_edge_agent.memory.core.namespaces import Namespace
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import check_after, check_text

Order: TypeAlias = Literal["key", "-key", "newest"]

ORDERS: Final[tuple[Order, ...]] = ("key", "-key", "newest")
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"
_SEPARATOR: Final = " "  # between the time and the key; the time has none


class Place(NamedTuple):
    """Where a page begins: after this entry.

    Attributes:
        key: the full key; ``""`` for the first page.
        timestamp: the ``updated_at`` of the entry in UTC, in the order ``newest``; else None.
    """

    key: str = ""
    timestamp: datetime | None = None


class EntryRow(NamedTuple):
    """One row of a page.

    Attributes:
        key: the key as the driver returns it. It may be damaged.
        timestamp: ``updated_at`` in UTC; None if it is damaged.
        entry: the entry, or its damage; None for an entry that was deleted since the row was read.
    """

    key: Any
    timestamp: datetime | None
    entry: dict[str, Any] | Damage | None

    def is_place(self, order: Order) -> bool:
        """Return whether a page can begin after this row."""
        return is_key(self.key) and (order != "newest" or self.timestamp is not None)

    def text(self, order: Order, namespace: Namespace) -> str:
        """Return the text for the place after this row, as ``place_of`` reads it."""
        key = namespace.key_of(self.key)
        if order != "newest" or self.timestamp is None:
            return key
        return (
            self.timestamp.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
            + _SEPARATOR
            + key
        )


def readable_time(raw: Any) -> datetime | None:
    """Return a time that the driver or SQLAlchemy has converted, or None if it is damaged."""
    return raw if isinstance(raw, datetime) else None


def end_of_page(rows: Sequence[EntryRow], limit: int, order: Order, *, is_last: bool) -> int:
    """Return how many of these rows belong to a page.

    A page ends after a row from which the next page can go on. So it has fewer rows than ``limit`` if the rows at its
    end are damaged, and more if all of the first rows are.

    Args:
        rows: more rows than the page needs, unless they are the last ones.
        limit: how many rows the page should have.
        order: the order of the rows.
        is_last: whether there are no more rows.
    """
    if is_last and len(rows) <= limit:
        return len(rows)
    places = [number for number, row in enumerate(rows, start=1) if row.is_place(order)]
    if not places:
        return len(rows)
    return max([number for number in places if number <= limit], default=places[0])


def check_order(order: Any) -> Order:
    """Return the argument ``order``.

    Raises:
        LTMError: ``validation_error``.
    """
    for name in ORDERS:
        if isinstance(order, str) and order == name:
            return name
    raise LTMError("validation_error", f'order must be "key", "-key" or "newest", not {order!r:.40}')


def check_after_place(after: Any) -> str:
    """Return the argument ``after`` of ``entries``, or ``""`` for None.

    Raises:
        LTMError: ``validation_error``.
    """
    return "" if after is None else check_text(after, "after")


def place_of(after: str, order: Order, namespace: Namespace) -> Place:
    """Return the place that a text means.

    Raises:
        LTMError: ``validation_error``: it is not the ``next`` of a page in this order.
    """
    if not after:
        return Place()
    if order != "newest":
        return Place(namespace.after(check_after(after)))
    moment, _, key = after.partition(_SEPARATOR)
    try:
        timestamp = datetime.strptime(moment, _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        timestamp = None
    if timestamp is None or not key:
        raise LTMError("validation_error", 'with order="newest", after must be the next of the page before')
    return Place(namespace.after(check_after(key)), timestamp)
