"""The keys of ended sessions whose tombstones were dropped, each with the time until which its end matters.

A tombstone takes about 350 bytes, so a table keeps it only while servers compare copies by it (`tombstone_keep`). A copy
that contradicts the end can live longer: at a server that was cut off, in a request that is still open, in a backup of a
store. But no copy is served after its session's deadline. So the end is remembered until then, in 12 bytes: 64 bits of the
key, and the second in which the deadline has passed.

Keys are hashes (`token.py`), so 64 bits of one are as good as random. With ten million ends, one new session in 10^12
collides with an end, and is refused. Pure: time is an argument.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.token import SessionKey

__all__ = ["END_BYTES", "MARGIN_MS", "MARK", "Ends"]

END_BYTES: Final = 12
MARGIN_MS: Final = 60_000
"""An end is remembered for this long after its deadline: servers' clocks differ, and messages take time."""
SHARDS: Final = 256
"""Ends are filed under the first byte of their key, so that an insertion moves at most a 256th of all ends."""
SHARD_MIN: Final = 64
"""A shard may always hold this many ends, 200 KB in all shards, however small `bytes_max` is."""
FEW: Final = 16
"""Less than one new end per this many in a shard is inserted one by one; for more at once, the shard is built anew."""
_SECOND_MAX: Final = 2**32 - 1
MARK: Final = Struct(">BQI")
"""An end as it travels: the first byte of its key, the last eight, and for how many seconds it is to be remembered."""


class Ends:
    """Keys of ended sessions, each with the time until which its end must be remembered.

    Args:
        bytes_max: the memory to use. A full shard drops the eighth of its ends with the nearest deadlines.
    """

    __slots__ = ("_count", "_marks", "_shard_max", "_swept", "_until_s", "forgotten")

    def __init__(self, *, bytes_max: int) -> None:
        self.forgotten = 0
        """Ends that were dropped before their deadline."""
        self._shard_max = max(bytes_max // END_BYTES // SHARDS, SHARD_MIN)
        self._count = 0
        # The marks of a shard are sorted; the second of each is at the same place in the other array.
        self._marks: list[array[int]] = [array("Q") for _ in range(SHARDS)]
        self._until_s: list[array[int]] = [array("I") for _ in range(SHARDS)]
        self._swept = 0
        """The shard that the next call of `sweep` looks at."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: SessionKey) -> bool:
        if not self._count:  # the usual case
            return False
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return place < len(marks) and marks[place] == mark

    @property
    def held_bytes(self) -> int:
        return self._count * END_BYTES

    def add(self, key: SessionKey, until_ms: int) -> None:
        """Remember that a session ended.

        Args:
            key: the session's key.
            until_ms: its deadline, on the clock by which `sweep` is called.
        """
        self._enter(key[0], _mark(key), min(max((until_ms + MARGIN_MS) // 1000 + 1, 0), _SECOND_MAX))

    def _enter(self, shard: int, mark: int, second: int) -> bool:
        """Enter one end; returns whether it is new."""
        marks, until_s = self._marks[shard], self._until_s[shard]
        place = bisect_left(marks, mark)
        if place < len(marks) and marks[place] == mark:
            until_s[place] = max(until_s[place], second)
            return False
        marks.insert(place, mark)
        until_s.insert(place, second)
        self._count += 1
        if len(marks) > self._shard_max:
            self._thin_out(shard)
        return True

    def until_ms(self, key: SessionKey) -> int | None:
        """Until when this session's end is remembered; None if it is not."""
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return self._until_s[key[0]][place] * 1000 if place < len(marks) and marks[place] == mark else None

    def told(self, now_ms: int, *, batch: int) -> Iterator[bytes]:
        """All that is remembered, as it travels: `MARK` entries, at most this many in one piece."""
        if not self._count:
            return
        now_s = now_ms // 1000
        entries: list[bytes] = []
        for shard in range(SHARDS):
            both = zip(self._marks[shard], self._until_s[shard], strict=True)
            entries += [MARK.pack(shard, mark, second - now_s) for mark, second in both if second > now_s]
            while len(entries) >= batch:
                yield b"".join(entries[:batch])
                del entries[:batch]
        if entries:
            yield b"".join(entries)

    def take(self, told: bytes, now_ms: int) -> bool:
        """Remember what another server does, its times counted from now; returns whether any of it is new here."""
        now_s, is_any_new = now_ms // 1000, False
        taken: dict[int, dict[int, int]] = {}
        for shard, mark, left_s in MARK.iter_unpack(told):
            entries = taken.get(shard)
            if entries is None:
                entries = taken[shard] = {}
            entries[mark] = min(now_s + left_s, _SECOND_MAX)
        for shard, entries in taken.items():
            is_any_new = self._enter_all(shard, entries) or is_any_new
        return is_any_new

    def _enter_all(self, shard: int, entries: dict[int, int]) -> bool:
        """Enter several ends of one shard, each with its second; returns whether any of them is new."""
        marks, until_s = self._marks[shard], self._until_s[shard]
        if not marks or min(entries) > marks[-1]:  # as from a server that tells all it has to one that has nothing
            in_order = sorted(entries)
            marks.extend(in_order)
            until_s.extend(map(entries.__getitem__, in_order))
            new = len(in_order)
        elif len(entries) * FEW < len(marks):
            return sum(self._enter(shard, mark, second) for mark, second in entries.items()) > 0
        else:
            known = dict(zip(marks, until_s, strict=True))
            for mark, second in entries.items():
                if known.get(mark, -1) < second:
                    known[mark] = second
            new = len(known) - len(marks)
            in_order = sorted(known)
            self._marks[shard] = array("Q", in_order)
            self._until_s[shard] = array("I", map(known.__getitem__, in_order))
        self._count += new
        if len(self._marks[shard]) > self._shard_max:
            self._thin_out(shard)
        return new > 0

    def sweep(self, now_ms: int) -> None:
        """Drop the ends of one shard whose time has passed."""
        until_s, now_s = self._until_s[self._swept], now_ms // 1000
        if until_s and min(until_s) <= now_s:
            self._keep(self._swept, [place for place, until in enumerate(until_s) if until > now_s])
        self._swept = (self._swept + 1) % SHARDS

    def _thin_out(self, shard: int) -> None:
        """Drop the eighth of a shard's ends with the nearest deadlines, or as many as are too many."""
        until_s = self._until_s[shard]
        in_order = sorted(range(len(until_s)), key=until_s.__getitem__)
        gone = max(len(in_order) // 8, len(in_order) - self._shard_max)
        self.forgotten += gone
        self._keep(shard, sorted(in_order[gone:]))

    def _keep(self, shard: int, places: list[int]) -> None:
        marks, until_s = self._marks[shard], self._until_s[shard]
        self._count -= len(marks) - len(places)
        self._marks[shard] = array("Q", [marks[place] for place in places])
        self._until_s[shard] = array("I", [until_s[place] for place in places])


def _mark(key: SessionKey) -> int:
    return int.from_bytes(key[-8:], "big")
