"""The table as one copy among several: how changes of others get into it, and what it says of itself.

Only the rules of `record.py` and `delta.py` at work on packed records; who may ask for what, and when, is others'
business. Records of peers are checked before they are believed, and never make the table larger than its limits.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from sessile.delta import Outcome, apply
from sessile.errors import RecordError, SessionLimit, SessionTooLarge
from sessile.record import LIVE, TIME_MAX_MS, Record, merge

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from sessile.delta import Delta
    from sessile.table import Table
    from sessile.token import SessionKey

__all__ = ["DIGEST_BYTES", "KEY_BYTES", "Replica", "digest_of"]

KEY_BYTES: Final = 16
DIGEST_BYTES: Final = 8


class Replica:
    """This node's copies.

    Args:
        table: where they lie; shared with the engine, which is kept out while the node works.
        counts: where clashes and refusals are counted.
    """

    __slots__ = ("_counts", "table")

    def __init__(self, table: Table, counts: Counter[str]) -> None:
        self.table = table
        self._counts = counts

    def get(self, key: SessionKey) -> Record | None:
        packed = self.table.get(key)
        return None if packed is None else Record.unpack(packed)

    def apply(self, delta: Delta, now_ms: int) -> tuple[Outcome, Record | None]:
        """Take one write, by the rule of `delta.apply`; returns the record that is held now.

        Raises:
            SessionLimit: there is no room. Nothing was changed.
            SessionTooLarge: the record would be beyond limits. Nothing was changed.
        """
        found = self.table.find(delta.key)
        outcome, record = apply(None if found is None else found[1], delta, now_ms)
        if outcome is Outcome.APPLIED:
            assert record is not None, "what was applied is there"
            self.table.put(delta.key, record)
        return outcome, record

    def merge(self, key: SessionKey, record: Record, now_ms: int) -> Record | None:
        """Merge another copy, its times on this node's clock; None if there is no room for it, or if it is too large.

        A copy of a session whose end is remembered becomes its tombstone, and the sender of the copy is sent that.
        """
        held = self.get(key)
        if held is not None:
            clashes: list[str] = []
            record = merge(held, record, clashes)
            self._counts["clashes"] += len(clashes)
        else:
            record = self.table.judged(key, record, now_ms)
        try:
            self.table.put(key, record)
        except SessionLimit:
            self._counts["no_room"] += 1
            return None
        except SessionTooLarge:
            self._counts["too_large"] += 1
            return None
        return record

    def read(self, data: bytes, shift_ms: int) -> Record | None:
        """A record from a peer's bytes, its times put on this node's clock; None, counted, if it is none."""
        try:
            record = Record.parse(data)
        except RecordError:
            record = None
        if record is None or abs(shift_ms) > TIME_MAX_MS:
            self._counts["bad_records"] += 1
            return None
        return record.shift(shift_ms)

    def touch(self, key: SessionKey, touched_ms: int) -> None:
        """The session was used elsewhere."""
        held = self.get(key)
        if held is not None and held.state == LIVE and touched_ms > held.touched_ms:
            self.table.put(key, held.touch(touched_ms), is_touch=True)

    def tombstones(self) -> Iterator[tuple[SessionKey, bytes]]:
        """The tombstones that are held, with those that are kept longer for members out of reach."""
        for key in self.table.ended():
            packed = self.table.get(key)
            assert packed is not None, "nobody works on the table meanwhile"
            yield key, packed

    def clear(self) -> None:
        """Drop every live session. Tombstones stay: a session that has ended never lives again."""
        for key in self.table:
            if self.table.state(key) == LIVE:
                self.table.drop(key)


def digest_of(key: SessionKey, record: Record) -> int:
    """Eight bytes over a copy's key, version and state, the same wherever the same is held."""
    said = repr((record.state, sorted(record.version.items()))).encode()
    return int.from_bytes(blake2b(said, key=key, digest_size=DIGEST_BYTES, person=b"sessile digest").digest(), "big")
