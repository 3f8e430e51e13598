"""The data that every contender stores and reads. It is computed from numbers, so it is the same in each run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

WORDS: Final = 60  # how many words the text of an entry has
BATCH: Final = 100  # how many entries put_many and retrieve_many have
PAGE: Final = 100  # how many keys list_keys returns
COMMON_WORD: Final = "harbour"  # every second entry has it
THIRDS: Final = ("lantern", "copper", "willow")  # a third of the entries has each, independently of the other two
KINDS: Final = 100  # how many values "kind" has; 1 % of the entries have each
GROUP: Final = 10  # how many entries have the same value of "group"
BLOCK: Final = 1_000  # each block of so many entries has all its kinds and groups; a size is a multiple of it

_SEED: Final = 1843
_RING: Final = 20_011  # the number of words from which texts are cut; a prime, so that neighbours begin differently
_STEP: Final = 7_919
_SHUFFLE: Final = 48_271  # a prime that divides no size: multiples of it visit every entry once


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, and the value and metadata that are stored under it."""

    key: str
    value: dict[str, Any]
    metadata: dict[str, Any]


class Workload:
    """A number of entries, and words, filters and questions whose answers are known."""

    def __init__(self, size: int) -> None:
        """Choose the words of the texts.

        Args:
            size: how many entries there are, a multiple of 1,000.
        """
        if size % BLOCK:
            raise ValueError(f"size must be a multiple of {BLOCK}")
        self.size = size
        chance = random.Random(_SEED)
        syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
        vocabulary = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(2_000)]
        ring = chance.choices(vocabulary, k=_RING)
        self._ring = ring + ring[:WORDS]

    def number(self, place: int) -> int:
        """Return the number of the entry at a place in a shuffled order."""
        return place * _SHUFFLE % self.size

    def key(self, number: int) -> str:
        """Return the key of an entry."""
        return f"note/{number:08d}"

    def rare_word(self, number: int) -> str:
        """Return the word that only this entry has."""
        return f"mark{number}x"

    def kind(self, number: int) -> str:
        """Return the value that 1 % of the entries have; neighbours have different ones."""
        return f"kind-{(number * 37 + number // KINDS) % KINDS:02d}"

    def group(self, number: int) -> str:
        """Return the value that ten entries have."""
        return f"group-{number // BLOCK * (BLOCK // GROUP) + number % (BLOCK // GROUP)}"

    def question(self, number: int) -> str:
        """Return eight words: a third of the entries has each of three, 1 % has each of two, ten have each of three."""
        numbers = [(number + offset) % self.size for offset in (0, 1, 2)]
        some = [self.kind_word(each) for each in numbers[:2]]
        return " ".join([*THIRDS, *some, *map(self.group_word, numbers)])

    def kind_word(self, number: int) -> str:
        """Return the word that an entry has in common with 1 % of all."""
        return f"sort{self.kind(number).removeprefix('kind-')}x"

    def group_word(self, number: int) -> str:
        """Return the word that an entry has in common with nine others."""
        return f"team{self.group(number).removeprefix('group-')}x"

    def entry(self, number: int, *, edition: int = 0, key: str | None = None) -> Entry:
        """Return an entry.

        Args:
            number: the number of the entry.
            edition: another edition has another text, with the same rare and common words.
            key: a key that replaces its own.
        """
        start = (number * _STEP + edition * _SHUFFLE) % _RING
        thirds = [word for place, word in enumerate(THIRDS) if number // 3**place % 3 == 0]
        fixed = [self.rare_word(number), COMMON_WORD if number % 2 else "meadow"]
        fixed += [*thirds, self.kind_word(number), self.group_word(number)]
        words = [*self._ring[start : start + WORDS - len(fixed)], *fixed]
        value = {"text": " ".join(words), "number": number}
        metadata = {"kind": self.kind(number), "group": self.group(number), "number": number}
        return Entry(key or self.key(number), value, metadata)

    def new_entry(self, place: int) -> Entry:
        """Return an entry under a key that no other entry has."""
        return self.entry(self.size + place, key=new_key(place))

    def batches(self, first: int = 0, size: int = 500) -> list[range]:
        """Return the numbers of the entries, beginning with ``first``, in the batches in which they are stored."""
        return [range(start, min(start + size, self.size)) for start in range(first, self.size, size)]


def new_key(place: int) -> str:
    """Return a key that no entry of a workload has."""
    return f"new/{place:09d}"
