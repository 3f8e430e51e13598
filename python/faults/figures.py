"""The figures of one fault test, and the writers that count them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from threading import Lock
from typing import Any, Final

_TRIES: Final = 200  # how often a call is tried until the server is back
_PAUSE: Final = 0.1  # seconds between two tries


@dataclass
class Figures:
    """The counts of one fault test.

    All but the first two should be zero; some tests allow ``unknown`` and ``reached``.

    Attributes:
        faults: how many kills, cuts, starts or races there were.
        acknowledged: writes that were answered with success.
        lost: acknowledged writes that the database did not have at the end.
        half: transactions of which the database had only a part.
        wrong: answers that were not true.
        unknown: answers that did not say whether the write was committed.
        reached: other failures that reached the caller, although the call had time left.
        late: by how many seconds the slowest call exceeded its deadline.
        leaks: connections, locks or processes that were left behind.
    """

    faults: int = 0
    acknowledged: int = 0
    lost: int = 0
    half: int = 0
    wrong: int = 0
    unknown: int = 0
    reached: int = 0
    late: float = 0.0
    leaks: int = 0

    def __post_init__(self) -> None:
        """Create the lock, because several threads count."""
        self._lock = Lock()

    def add(self, **counts: float) -> None:
        """Add to some figures. For ``late``, keep the largest value."""
        with self._lock:
            for name, count in counts.items():
                before = getattr(self, name)
                setattr(self, name, max(before, count) if name == "late" else before + count)

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problems(self, *, may_be_unknown: bool, may_fail: bool) -> list[str]:
        """Return the figures that are too high, as texts."""
        zero = ["lost", "half", "wrong", "leaks"]
        zero += [] if may_be_unknown else ["unknown"]
        zero += [] if may_fail else ["reached"]
        problems = [f"{name}: {getattr(self, name)}" for name in zero if getattr(self, name)]
        return problems + ([f"late: {self.late:.1f} s"] if self.late > 1 else [])


class Writer:
    """Writes keys that nobody else writes, and knows what the database must have.

    Attributes:
        keys: the keys that it writes.
        version: the last version of the keys that was acknowledged or read.
    """

    def __init__(self, memory: Any, name: str, figures: Figures, *, kind: str = "store", timeout: float = 30) -> None:
        """Set up the writer, without a write.

        Args:
            memory: the memory that it writes to.
            name: the beginning of its keys.
            figures: the figures to which it adds.
            kind: ``store``; ``if_version``; or ``batch``, which writes five keys at once.
            timeout: the timeout of the memory, in seconds.
        """
        self._memory, self._figures, self._kind, self._timeout = memory, figures, kind, timeout
        self.keys = [f"{name}/{number}" for number in range(5 if kind == "batch" else 1)]
        self.version = self._number = 0

    def write(self) -> bool:
        """Write once, check the answer, and return whether it was a success."""
        number = self._number + 1
        begun = time.monotonic()
        result = self._write(number)
        self._figures.add(late=time.monotonic() - begun - self._timeout)
        if result["success"]:
            self._figures.add(acknowledged=1)
            self.version, self._number = self.version + 1, number
            for answer in result.get("results", [result]):
                if (answer["version"], answer["created"]) != (self.version, self.version == 1):
                    self._figures.add(wrong=1)
            return True
        is_unknown = bool(result.get("unknown"))
        # The memory can always learn whether a single store was committed, if nobody else writes its key.
        is_allowed = is_unknown and self._kind != "store"
        self._figures.add(unknown=int(is_unknown), reached=int(not is_allowed))
        if self.look(number) and not is_unknown:
            self._figures.add(wrong=1)  # the answer was a failure, but the database has the write
        return False

    def look(self, number: int | None = None) -> bool:
        """Read the keys, count lost and half writes, and return whether the database has write ``number``."""
        numbers_and_versions = [self._read(key) for key in self.keys]
        if len({*numbers_and_versions}) > 1:
            self._figures.add(half=1)
        stored_number, version = numbers_and_versions[0]
        if number is not None and stored_number == number:
            self.version, self._number = version, number
            return True
        if (stored_number, version) != (self._number, self.version):
            self._figures.add(lost=1)
            self.version, self._number = version, stored_number
        return False

    def _write(self, number: int) -> Any:
        value = {"number": number, "text": "a fox"}
        if self._kind == "batch":
            return self._memory.store_many([{"key": key, "value": value} for key in self.keys])
        condition = {"if_version": self.version} if self._kind == "if_version" else {}
        return self._memory.store(self.keys[0], value, **condition)

    def _read(self, key: str) -> tuple[int, int]:
        """Return the number and the version of a key, zeros if it does not exist. Waits until the server is back."""
        result = patient(lambda: self._memory.retrieve(key))
        return (result["value"]["number"], result["version"]) if result["found"] else (0, 0)


def patient(call: Callable[[], Any]) -> Any:
    """Repeat a call until it succeeds, and return its result.

    Raises:
        RuntimeError: the call did not succeed for a long time.
    """
    for _ in range(_TRIES):
        result = call()
        if result["success"]:
            return result
        time.sleep(_PAUSE)
    raise RuntimeError(f"the database does not come back: {result}")
