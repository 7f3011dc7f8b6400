"""The keys of ended sessions whose tombstones were dropped, each with the time until which its end is remembered.

A tombstone takes about 350 bytes, so a table keeps it only for `tombstone_keep`, while servers compare copies with it. A live
copy can survive longer: at a server that was cut off, in a request that is still open, in a backup of a store. But no copy is
served after its session's deadline. So the end is remembered until then, in 12 bytes: 64 bits of the key, the second in which
the deadline has passed, and whether the browser continues in another session.

Keys are hashes (`token.py`), so 64 bits of a key are practically random. With ten million ends, one new session in 10^12
collides with an end, and is refused. No IO and no clock: the time is an argument.
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
"""With fewer than one new end per this many in a shard, ends are inserted one by one; otherwise the shard is rebuilt."""
_SECOND_MAX: Final = 2**31 - 1
MARK: Final = Struct(">BQI")
"""An end as it travels: the first byte of its key, the last eight, and twice the number of seconds for which it is to be
remembered, plus one if the browser continues in another session."""


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
        # The marks of a shard are sorted. `_until` has, at the same index, the rest of each end as `_entry` packs it.
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
            is_replaced: whether its browser continues in another session.
        """
        self._enter(key[0], _mark(key), _entry((until_ms + MARGIN_MS) // 1000 + 1, is_replaced))

    def _enter(self, shard: int, mark: int, entry: int) -> bool:
        """Enter one end; returns whether it is new."""
        marks, until = self._marks[shard], self._until[shard]
        place = bisect_left(marks, mark)
        if place < len(marks) and marks[place] == mark:
            until[place] = _joined(until[place], entry)
            return False
        marks.insert(place, mark)
        until.insert(place, entry)
        self._count += 1
        if len(marks) > self._shard_max:
            self._thin_out(shard)
        return True

    def until_ms(self, key: SessionKey) -> int | None:
        """The time until which this session's end is remembered; None if it is not remembered."""
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return (self._until[key[0]][place] >> 1) * 1000 if place < len(marks) and marks[place] == mark else None

    def is_replaced(self, key: SessionKey) -> bool:
        """Whether this session's end is remembered, and its browser continues in another session."""
        if not self._count:
            return False
        marks, mark = self._marks[key[0]], _mark(key)
        place = bisect_left(marks, mark)
        return place < len(marks) and marks[place] == mark and bool(self._until[key[0]][place] & 1)

    def told(self, now_ms: int, *, batch: int) -> Iterator[bytes]:
        """All remembered ends as `MARK` entries, at most `batch` of them in one piece."""
        if not self._count:
            return
        now_s = now_ms // 1000
        entries: list[bytes] = []
        for shard in range(SHARDS):
            both = zip(self._marks[shard], self._until[shard], strict=True)
            entries += [MARK.pack(shard, mark, entry - (now_s << 1)) for mark, entry in both if entry >> 1 > now_s]
            while len(entries) >= batch:
                yield b"".join(entries[:batch])
                del entries[:batch]
        if entries:
            yield b"".join(entries)

    def take(self, told: bytes, now_ms: int) -> bool:
        """Remember ends that another server sent; their times count from now. Returns whether any of them is new here."""
        now_s, is_any_new = now_ms // 1000, False
        taken: dict[int, dict[int, int]] = {}
        for shard, mark, left in MARK.iter_unpack(told):
            entries = taken.get(shard)
            if entries is None:
                entries = taken[shard] = {}
            entries[mark] = _entry(now_s + (left >> 1), left & 1)
        for shard, entries in taken.items():
            is_any_new = self._enter_all(shard, entries) or is_any_new
        return is_any_new

    def _enter_all(self, shard: int, entries: dict[int, int]) -> bool:
        """Enter several ends of one shard, by their marks; returns whether any of them is new."""
        marks, until = self._marks[shard], self._until[shard]
        if not marks or min(entries) > marks[-1]:  # typical when a server sends all its ends to one that has none
            in_order = sorted(entries)
            marks.extend(in_order)
            until.extend(map(entries.__getitem__, in_order))
            new = len(in_order)
        elif len(entries) * FEW < len(marks):
            return sum(self._enter(shard, mark, entry) for mark, entry in entries.items()) > 0
        else:
            known = dict(zip(marks, until, strict=True))
            for mark, entry in entries.items():
                known[mark] = _joined(known.get(mark, 0), entry)
            new = len(known) - len(marks)
            in_order = sorted(known)
            self._marks[shard] = array("Q", in_order)
            self._until[shard] = array("I", map(known.__getitem__, in_order))
        self._count += new
        if len(self._marks[shard]) > self._shard_max:
            self._thin_out(shard)
        return new > 0

    def sweep(self, now_ms: int) -> None:
        """Drop the ends of one shard whose time has passed."""
        until, now_s = self._until[self._swept], now_ms // 1000
        if until and min(until) >> 1 <= now_s:
            self._keep(self._swept, [place for place, entry in enumerate(until) if entry >> 1 > now_s])
        self._swept = (self._swept + 1) % SHARDS

    def _thin_out(self, shard: int) -> None:
        """Drop the eighth of a shard's ends with the nearest deadlines, or more if the shard is further over its limit."""
        until = self._until[shard]
        in_order = sorted(range(len(until)), key=until.__getitem__)
        gone = max(len(in_order) // 8, len(in_order) - self._shard_max)
        self.forgotten += gone
        self._keep(shard, sorted(in_order[gone:]))

    def _keep(self, shard: int, places: list[int]) -> None:
        marks, until = self._marks[shard], self._until[shard]
        self._count -= len(marks) - len(places)
        self._marks[shard] = array("Q", [marks[place] for place in places])
        self._until[shard] = array("I", [until[place] for place in places])


def _entry(second: int, is_replaced: int) -> int:
    """The second until which an end is remembered, and whether the browser continues in another session, in 32 bits."""
    return min(max(second, 0), _SECOND_MAX) << 1 | is_replaced


def _joined(one: int, other: int) -> int:
    """Merge two entries of the same end: the later time, and replaced if either says so."""
    return max(one >> 1, other >> 1) << 1 | (one | other) & 1


def _mark(key: SessionKey) -> int:
    return int.from_bytes(key[-8:], "big")
