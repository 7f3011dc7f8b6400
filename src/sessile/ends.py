"""The keys of ended sessions whose tombstones were dropped, each with the time until which its end matters.

A tombstone takes about 350 bytes, so a table keeps it only while servers compare copies by it (`tombstone_keep`). A copy
that contradicts the end can live longer: at a server that was cut off, in a request that is still open, in a backup of a
store. But no copy is served after its session's deadline. So the end is remembered until then, in 12 bytes: 64 bits of the
key, the second in which the deadline has passed, and whether the browser goes on in another session.

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

__all__ = ["END_BYTES", "MARGIN_MS", "MARK", "Ends", "mark_of"]

END_BYTES: Final = 12
MARGIN_MS: Final = 60_000
"""An end is remembered for this long after its deadline: servers' clocks differ, and messages take time."""
SHARDS: Final = 256
"""Ends are filed under the first byte of their key, so that an insertion moves at most a 256th of all ends."""
SHARD_MIN: Final = 64
"""A shard may always hold this many ends, 200 KB in all shards, however small `bytes_max` is."""
_SECOND_MAX: Final = 2**31 - 1
_PLACE: Final = Struct(">BQ")
MARK: Final = Struct(">BQI")
"""An end as it travels: the first byte of its key, the last eight, and twice the number of seconds for which it is to be
remembered, plus one if the browser goes on in another session."""


class Ends:
    """Keys of ended sessions, each with the time until which its end must be remembered.

    Args:
        bytes_max: the memory to use. A full shard drops the eighth of its ends with the nearest deadlines.
    """

    __slots__ = ("_count", "_marks", "_shard_max", "_swept", "_until", "forgotten")

    def __init__(self, *, bytes_max: int) -> None:
        self.forgotten = 0
        """Ends that were dropped before their deadline."""
        self._shard_max = max(bytes_max // END_BYTES // SHARDS, SHARD_MIN)
        self._count = 0
        # The marks of a shard are sorted. At the same place in the other array is twice the second of each, plus one if the
        # browser goes on in another session.
        self._marks: list[array[int]] = [array("Q") for _ in range(SHARDS)]
        self._until: list[array[int]] = [array("I") for _ in range(SHARDS)]
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

    def add(self, key: SessionKey, until_ms: int, *, is_replaced: bool = False) -> None:
        """Remember that a session ended.

        Args:
            key: the session's key.
            until_ms: its deadline, on the clock by which `sweep` is called.
            is_replaced: whether its browser goes on in another one.
        """
        self._enter(key[0], _mark(key), (until_ms + MARGIN_MS) // 1000 + 1, is_replaced)

    def _enter(self, shard: int, mark: int, second: int, is_replaced: int) -> None:
        marks, until = self._marks[shard], self._until[shard]
        entry = min(max(second, 0), _SECOND_MAX) << 1 | is_replaced
        place = bisect_left(marks, mark)
        if place < len(marks) and marks[place] == mark:
            until[place] = max(until[place] >> 1, entry >> 1) << 1 | (until[place] | entry) & 1
            return
        marks.insert(place, mark)
        until.insert(place, entry)
        self._count += 1
        if len(marks) > self._shard_max:
            self._thin_out(shard)

    def until_ms(self, key: SessionKey) -> int | None:
        """Until when this session's end is remembered; None if it is not."""
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return (self._until[key[0]][place] >> 1) * 1000 if place < len(marks) and marks[place] == mark else None

    def is_replaced(self, key: SessionKey) -> bool:
        """Whether it is remembered that this session ended because its browser goes on in another one."""
        if not self._count:
            return False
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return place < len(marks) and marks[place] == mark and bool(self._until[key[0]][place] & 1)

    def told(self, now_ms: int, *, batch: int) -> Iterator[bytes]:
        """All that is remembered, as it travels: `MARK` entries, at most this many in one piece."""
        now_s = now_ms // 1000
        entries: list[bytes] = []
        for shard in range(SHARDS):
            for mark, until in zip(self._marks[shard], self._until[shard], strict=True):
                if until >> 1 > now_s:
                    entries.append(MARK.pack(shard, mark, until - (now_s << 1)))
            while len(entries) >= batch:
                yield b"".join(entries[:batch])
                del entries[:batch]
        if entries:
            yield b"".join(entries)

    def take(self, told: bytes, now_ms: int) -> set[bytes]:
        """Remember what another server does, its times counted from now; returns what `mark_of` gives of each."""
        taken = set()
        for shard, mark, left in MARK.iter_unpack(told):
            self._enter(shard, mark, now_ms // 1000 + (left >> 1), left & 1)
            taken.add(_PLACE.pack(shard, mark))
        return taken

    def sweep(self, now_ms: int) -> None:
        """Drop the ends of one shard whose time has passed."""
        every, now_s = self._until[self._swept], now_ms // 1000
        if every and min(every) >> 1 <= now_s:
            self._keep(self._swept, [place for place, until in enumerate(every) if until >> 1 > now_s])
        self._swept = (self._swept + 1) % SHARDS

    def _thin_out(self, shard: int) -> None:
        """Drop the eighth of a shard's ends with the nearest deadlines."""
        until = self._until[shard]
        in_order = sorted(range(len(until)), key=until.__getitem__)
        gone = len(in_order) // 8
        self.forgotten += gone
        self._keep(shard, sorted(in_order[gone:]))

    def _keep(self, shard: int, places: list[int]) -> None:
        marks, until = self._marks[shard], self._until[shard]
        self._count -= len(marks) - len(places)
        self._marks[shard] = array("Q", [marks[place] for place in places])
        self._until[shard] = array("I", [until[place] for place in places])


def mark_of(key: SessionKey) -> bytes:
    """What is remembered of a key, as `Ends.take` gives it."""
    return key[:1] + key[-8:]


def _mark(key: SessionKey) -> int:
    return int.from_bytes(key[-8:], "big")
