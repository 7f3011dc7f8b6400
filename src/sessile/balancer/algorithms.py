"""Who gets a request that belongs to nobody yet: one class per algorithm, one registry, one method.

`pick(candidates, key)` takes the servers that may get new users, never none of them, and the client's key, which only
the rendezvous hash reads. Pure: randomness is an argument of the constructor, load is read from the candidates.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

__all__ = ["ALGORITHMS", "Algorithm", "Candidate"]


class Candidate(Protocol):
    """What an algorithm may know of a server."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def active(self) -> int: ...


C = TypeVar("C", bound=Candidate)


class Algorithm(Protocol):
    """One way to place a request."""

    def pick(self, candidates: Sequence[C], key: bytes) -> C: ...


class RoundRobin:
    """One after the other, whatever their weights; workers begin at different servers."""

    def __init__(self, rng: Random) -> None:
        self._turn = rng.randrange(1 << 16)

    def pick(self, candidates: Sequence[C], key: bytes) -> C:  # noqa: ARG002 - the shape all share
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class Weighted:
    """Smooth weighted round robin: everybody gains its weight, the richest pays the sum; no bursts on one server."""

    def __init__(self, rng: Random) -> None:
        del rng
        self._credit: dict[str, int] = {}

    def pick(self, candidates: Sequence[C], key: bytes) -> C:  # noqa: ARG002 - the shape all share
        credit = {one.name: self._credit.get(one.name, 0) + one.weight for one in candidates}
        chosen = max(candidates, key=lambda one: credit[one.name])
        credit[chosen.name] -= sum(one.weight for one in candidates)
        self._credit = credit
        return chosen


class LeastConnections:
    """The fewest requests under way for its weight; equals take turns."""

    def __init__(self, rng: Random) -> None:
        self._turns = RoundRobin(rng)

    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        least = min((one.active + 1) / one.weight for one in candidates)
        return self._turns.pick([one for one in candidates if (one.active + 1) / one.weight == least], key)


class TwoChoices:
    """The less busy of two drawn at random: nearly as even as the least busy of all, and it does not herd."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def pick(self, candidates: Sequence[C], key: bytes) -> C:  # noqa: ARG002 - the shape all share
        if len(candidates) == 1:
            return candidates[0]
        first, second = self._rng.sample(candidates, 2)
        return second if (second.active + 1) / second.weight < (first.active + 1) / first.weight else first


class Rendezvous:
    """The highest hash of (key, server): when a server leaves, only its own keys move (Thaler, Ravishankar 1998)."""

    def __init__(self, rng: Random) -> None:
        del rng

    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        return max(candidates, key=lambda one: (_score(key, one.name, one.weight), one.name))


def _score(key: bytes, name: str, weight: int) -> float:
    digest = blake2b(key, digest_size=8, key=name.encode()[:64]).digest()
    return -weight / log((int.from_bytes(digest, "big") + 1) / (2**64 + 1))


ALGORITHMS: Final[dict[str, Callable[[Random], Algorithm]]] = {
    "round-robin": RoundRobin,
    "weighted": Weighted,
    "least-connections": LeastConnections,
    "two-choices": TwoChoices,
    "rendezvous": Rendezvous,
}
