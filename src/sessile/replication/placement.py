"""Who holds a session: a function of its key and the membership, so every node computes it alike and nobody is asked.

Rendezvous hashing (Thaler and Ravishankar, *Using name-based mappings to increase hit rates*, 1998): every member has a
score for every key, and the highest scores hold it. A member that comes or goes moves only the keys it holds itself.
Copies go to distinct hosts while there are any: the order of a key takes the best member of each host, then the second
best of each, and so on. Pure; a placement never changes, a change of membership makes another one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessile.token import SessionKey

__all__ = ["Place", "Placement"]

_REMEMBERED_MAX: Final = 2048
_BITS64: Final = 2**64 - 1
_FACTOR_1: Final = 0xBF58476D1CE4E5B9
_FACTOR_2: Final = 0x94D049BB133111EB
"""Those of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""


class Place(NamedTuple):
    """A member that may hold sessions."""

    name: str
    host: str
    """The machine it runs on."""


class Placement:
    """The view of one node. Immutable: equal when the same node would place every key alike.

    Args:
        me: this node's name; one that is not among the places, since it leaves, holds nothing.
        places: the members that may hold sessions.
        copies: how many of them hold a session; None for all.

    Raises:
        ValueError: fewer than one copy.
    """

    __slots__ = ("_is_spread", "_now", "_past", "_places", "_seeds", "copies", "me", "names", "number", "rest")

    def __init__(self, me: str, places: Iterable[Place], copies: int | None) -> None:
        if copies is not None and copies < 1:
            raise ValueError(f"a session has at least one copy, not {copies}")
        self._places = dict(sorted(places))
        self.me = me
        self.names = tuple(self._places)
        self.copies = copies
        has_all = me in self._places and (copies is None or copies >= len(self.names))
        self.rest = tuple(name for name in self.names if name != me) if has_all else None
        """Where everybody holds everything, this node too, the others; they need not be looked for key by key."""
        self.number = int.from_bytes(_digest(f"{copies} {self._places}", 4), "big")
        """Changes with the view; the same at every node that has it."""
        self._seeds = tuple((int.from_bytes(_digest(name, 8), "big"), name) for name in self.names)
        self._is_spread = len(set(self._places.values())) == len(self.names)
        # Two generations instead of a linked list: the one in use is thrown away as a whole when the next one is full.
        self._now: dict[SessionKey, tuple[str, ...]] = {}
        self._past: dict[SessionKey, tuple[str, ...]] = {}

    def order(self, key: SessionKey) -> tuple[str, ...]:
        """All members, the best for this key first, distinct hosts before second members of a host."""
        # A key is 16 random bytes: eight of them are as good as all. Every step can be undone, so two members whose seeds
        # differ never have the same score.
        number = int.from_bytes(key[:8], "big")
        scores = {}
        for seed, name in self._seeds:
            mixed = (number ^ seed) * _FACTOR_1 & _BITS64
            scores[(mixed ^ mixed >> 32) * _FACTOR_2 & _BITS64] = name
        ranked = [scores[score] for score in sorted(scores, reverse=True)]
        return tuple(ranked if self._is_spread else self._spread(ranked))

    def _spread(self, ranked: list[str]) -> list[str]:
        """The ranking dealt out in rounds: in each, no host has more than one member."""
        taken: dict[str, int] = {}
        rounds = {}
        for name in ranked:
            host = self._places[name]
            rounds[name] = taken[host] = taken.get(host, 0) + 1
        return sorted(ranked, key=rounds.__getitem__)

    def holders(self, key: SessionKey) -> tuple[str, ...]:
        """The members that hold a session, the first one first."""
        return self._now.get(key) or self._find(key)

    def others(self, key: SessionKey) -> tuple[str, ...]:
        """The holders but for this node."""
        me = self.me
        return tuple([name for name in self.holders(key) if name != me])

    def is_holder(self, key: SessionKey) -> bool:
        """Whether this node holds the session."""
        return self.me in self.holders(key)

    def is_first(self, key: SessionKey) -> bool:
        """Whether this node is the session's first holder."""
        return self.holders(key)[:1] == (self.me,)

    def _find(self, key: SessionKey) -> tuple[str, ...]:
        holders = self._past.get(key) or self.order(key)[: self.copies]
        if len(self._now) >= _REMEMBERED_MAX:
            self._past, self._now = self._now, {}
        self._now[key] = holders
        return holders

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Placement):
            return NotImplemented
        return (self.me, self.copies, self._places) == (other.me, other.copies, other._places)

    def __hash__(self) -> int:
        return hash((self.me, self.number))

    def __repr__(self) -> str:
        copies = "all hold" if self.copies is None else f"{self.copies} of them hold"
        return f"<Placement {self.number:08x}: {copies}, {' '.join(self.names)}>"


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode(), digest_size=size, person=b"sessile place").digest()
