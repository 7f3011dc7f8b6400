"""The records this process holds: packed bytes by key, within limits, each dropped when it is due.

An end is remembered longer than any live copy of the session can be served: the tombstone is held for `tombstone_keep_ms`, and
its key until the session's deadline (`ends.py`). A tombstone is never refused, and takes no room from sessions.

Time is an argument, in whole milliseconds. Expiry uses a wheel of one-second slots. A key stands in one slot: that of the
time at which its record was due when it was first held or ended. When that time has passed, the record is checked; if it was
touched meanwhile, its key moves to the slot of its new due time. So a touch costs nothing here, a held session costs eight
bytes, and a sweep is bounded. (If a merge makes a record due earlier, it stays until the old time. It is not served: whoever
opens a session checks its times.)

The table has no lock of its own. Callers that change it from several threads (read, merge, put) must hold one. `get` alone
needs none, since a record is one immutable object and is swapped in one step.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sessile.ends import Ends
from sessile.errors import SessionEnded, SessionLimit, SessionTooLarge
from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sessile.token import SessionKey

__all__ = ["ENTRY_BYTES", "Found", "Table"]

ENTRY_BYTES: Final = 230
"""Measured size of an entry without its record: key, dictionary entry, wheel slot and object headers."""
GROWTH: Final = 1.25
"""Writes to sessions already held are refused only when the table exceeds this multiple of `bytes_max`."""
HOT_MAX: Final = 1024
"""At most this many records are also kept decoded."""
HOT_RECORD_BYTES_MAX: Final = 4096
"""Larger records are not kept decoded: that would save little time and take much memory."""
EVICTION_LOOKS: Final = 64
"""At most this many copies are looked at to make room for one; if all were used lately, as many once more."""
USERS_SHARE: Final = 0.1
"""This part of `sessions_max` and of `bytes_max` is kept for users who log in: no anonymous session begins in it."""
TOMBSTONES_SHARE: Final = 0.25
"""Tombstones take at most this part of `bytes_max`, in addition to sessions. The oldest are then replaced by their keys."""
ENDS_SHARE: Final = 0.25
"""The keys of ended sessions take at most this part of `bytes_max`: 5.6 million of them by default."""
SCHEDULED_SPARE: Final = 1_000
"""A key dropped early stays in the wheel. The wheel is thinned out at twice the number of held keys plus this."""
_SLOT_MS: Final = 1000
_STATE_AT: Final = 1
"""Index of the state in a packed record: the array's first element, an integer of one byte."""

_TOO_LARGE: Final = (
    "the session would take {} bytes for {} fields and {} writers, more than any other server takes: parallel requests "
    "added up to more than session_bytes_max and fields_max allow; end it, or lower these"
)

Found = tuple[bytes, Record]
"""A packed record, the same object that the table holds, and its decoded form."""


class Table:
    """Packed records by key.

    Args:
        sessions_max: the most live sessions to hold.
        bytes_max: the most bytes they may take, including `ENTRY_BYTES` for each.
        rotation_grace_ms: how long a rotated session may still be read.
        rotated_keep_ms: how long a rotated session stays `ROTATED`, if that is longer. Until then, a copy that is `REPLACED` was
            ended by somebody else.
        tombstone_keep_ms: how long the tombstone of an ended session is held.
        idle_slack: part of its idle timeout for which an expired session is still held, but not served: it may have been
            used elsewhere, and the message about that may be on its way.
    """

    def __init__(
        self,
        *,
        sessions_max: int,
        bytes_max: int,
        rotation_grace_ms: int,
        tombstone_keep_ms: int,
        rotated_keep_ms: int = 0,
        idle_slack: float = 0.0,
    ) -> None:
        self.expired = 0
        """How many live sessions have expired here."""
        self.evicted = 0
        """How many copies were dropped to make room for others."""
        self._idle_slack = idle_slack
        self.on_expired: Callable[[SessionKey, Record], None] | None = None
        """Called with each live session that has expired, just before it is dropped."""
        self.on_entered: Callable[[], None] | None = None
        """Called when a record is held that was not held before, or a state is new, whoever brought it."""
        self.on_end: Callable[[SessionKey], None] | None = None
        """Called for each session whose end becomes known here, or that has expired here."""
        self.may_evict: Callable[[SessionKey], bool] | None = None
        """If set, the table is a cache: to make room, it drops the oldest entries not used lately for which this is True."""
        self.may_forget: Callable[[SessionKey], bool] | None = None
        """If set, a tombstone stays until this returns True: members may still have to be sent the end."""
        self.keeps_tombstones: Callable[[], bool] | None = None
        """Called at each sweep. If it returns True, tombstones stay beyond `tombstone_keep_ms` while there is room."""
        self._is_keeping = False
        self.ends = Ends(bytes_max=round(bytes_max * ENDS_SHARE))
        """The ended sessions whose tombstone is no longer held, or never was."""
        self._sessions_max = sessions_max
        self._bytes_max = bytes_max
        self._rotation_grace_ms = rotation_grace_ms
        self.rotated_keep_ms = max(rotation_grace_ms, rotated_keep_ms)
        """How long a rotated session stays `ROTATED`."""
        self._tombstone_keep_ms = tombstone_keep_ms
        self._records: dict[SessionKey, bytes] = {}
        self._hot: dict[SessionKey, Found] = {}
        self._record_bytes = 0
        self._ended: OrderedDict[SessionKey, None] = OrderedDict()
        """The keys of the tombstones, oldest first."""
        self._tombstone_bytes = 0
        """The part of `_record_bytes` that tombstones take."""
        self._wheel: dict[int, list[SessionKey]] = {}
        self._scheduled = 0
        """How many keys stand in the wheel."""
        self._next_slot: int | None = None
        self._due: list[SessionKey] = []
        self._round: list[SessionKey] = []
        """Candidates for eviction: a list of the keys held at some time, from which `_candidate` pops one after the other.

        The first key of `_records` would not do: finding it takes longer the more keys were removed before it.
        """

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SessionKey]:
        return iter(list(self._records))

    @property
    def sessions(self) -> int:
        """Number of live sessions held, including expired ones that were not swept yet."""
        return len(self._records) - len(self._ended)

    @property
    def tombstones(self) -> int:
        return len(self._ended)

    def ended(self) -> Iterator[SessionKey]:
        """The keys of the tombstones that are held."""
        return iter(list(self._ended))

    @property
    def held_bytes(self) -> int:
        return self._record_bytes + ENTRY_BYTES * len(self._records)

    @property
    def live_bytes(self) -> int:
        """The part of `held_bytes` that live sessions take; `bytes_max` bounds it."""
        return self._record_bytes - self._tombstone_bytes + ENTRY_BYTES * self.sessions

    def get(self, key: SessionKey) -> bytes | None:
        """The packed record, even if it has expired: the caller must check its times."""
        return self._records.get(key)

    def state(self, key: SessionKey) -> int | None:
        """`LIVE`, `ROTATED`, `ENDED` or `REPLACED`; None where nothing is held."""
        packed = self._records.get(key)
        return None if packed is None else packed[_STATE_AT]

    def find(self, key: SessionKey) -> Found | None:
        """The record in both forms. Records asked for lately are kept decoded, so a hot session is decoded once."""
        packed = self._records.get(key)
        if packed is None:
            return None
        found = self._hot.get(key)
        if found is None or found[0] is not packed:
            found = (packed, Record.unpack(packed))
            self._keep_hot(key, found)
        return found

    def has_ended(self, key: SessionKey) -> bool:
        """Whether the record held is a tombstone or, if none is held, whether the session's end is remembered.

        False for a live copy whose end was noted by `note_ended`: see `knows_end`.
        """
        packed = self._records.get(key)
        return key in self.ends if packed is None else packed[_STATE_AT] != LIVE

    def knows_end(self, key: SessionKey) -> bool:
        """Whether the end of the session is known, even if the copy that is held is live."""
        return key in self.ends or self.has_ended(key)

    def is_replaced(self, key: SessionKey) -> bool:
        """Whether the session is known to have ended, and its browser continues in another session."""
        return self.state(key) in {ROTATED, REPLACED} or self.ends.is_replaced(key)

    def note_ended(self, key: SessionKey, until_ms: int, *, is_replaced: bool = False) -> None:
        """Remember an end without a tombstone.

        A live copy stays held, unless `end_remembered` ends it: before it is served, `key in ends` must be checked.
        """
        self.ends.add(key, until_ms, is_replaced=is_replaced)
        if self.on_end is not None:
            self.on_end(key)

    def over(self, key: SessionKey, record: Record, now_ms: int) -> Record:
        """The tombstone for a live copy whose end is remembered."""
        return record.end(REPLACED if self.ends.is_replaced(key) else ENDED, now_ms)

    def end_remembered(self, keys: Iterable[SessionKey], now_ms: int) -> list[tuple[SessionKey, Record]]:
        """End each of these sessions that is held alive although its end is remembered. Returns their tombstones."""
        ended = []
        for key in keys:
            packed = self._records.get(key)
            if packed is not None and packed[_STATE_AT] == LIVE and key in self.ends:
                record = self.over(key, Record.unpack(packed), now_ms)
                self.put(key, record)
                ended.append((key, record))
        return ended

    def judged(self, key: SessionKey, record: Record, now_ms: int) -> Record:
        """A copy from a peer or a store: as a tombstone if the session's end is remembered, otherwise unchanged."""
        if record.state == LIVE and self.ends and key not in self._records and key in self.ends:
            return self.over(key, record, now_ms)
        return record

    def remembered(self, key: SessionKey, now_ms: int) -> Record | None:
        """A tombstone made from a remembered end; None if no end of this session is remembered."""
        until_ms = self.ends.until_ms(key)
        if until_ms is None:
            return None
        return self.over(key, Record.create(now_ms=now_ms, idle_ms=0, deadline_ms=until_ms), now_ms)

    def due_ms(self, record: Record) -> int:
        """When the sweep must act on the record: a session expires, loses its fields after a rotation, or is forgotten."""
        if record.state == LIVE:
            if not self._idle_slack:
                return record.expires_ms()
            return min(record.expires_ms() + round(record.idle_ms * self._idle_slack), record.deadline_ms)
        return record.ended_ms + (self.rotated_keep_ms if record.state == ROTATED else self._tombstone_keep_ms)

    def is_in_grace(self, record: Record, now_ms: int) -> bool:
        """Whether this is a rotated session that may still be read."""
        return record.state == ROTATED and min(record.ended_ms + self._rotation_grace_ms, record.expires_ms()) > now_ms

    def is_over(self, record: Record, now_ms: int) -> bool:
        """Whether the next sweep drops the record: it has expired, or its tombstone was held for long enough."""
        return record.state != ROTATED and self.due_ms(record) <= now_ms

    def put(
        self, key: SessionKey, record: Record, *, is_touch: bool = False, replaces: SessionKey | None = None
    ) -> bytes:
        """Hold this record instead of the one held for the key, if any.

        Args:
            key: the session's key.
            record: its record.
            is_touch: whether only its times changed, so that there is always room for it.
            replaces: the session that this one replaces, and whose room it gets.

        Returns:
            The packed record, the same object that `get` returns from now on.

        Raises:
            SessionLimit: there is no room for a session; a tombstone is never refused. Nothing was changed.
            SessionEnded: the session's end is remembered. Nothing was changed.
            SessionTooLarge: other servers would not accept the record. Nothing was changed.
        """
        packed = record.pack()
        size = len(packed)
        if size > HOT_RECORD_BYTES_MAX and record.state < ENDED and not record.travels(size):  # smaller ones travel
            if record.state == ROTATED:  # its fields are dropped, its end is kept
                return self.put(key, record.end(REPLACED, record.ended_ms))
            if not is_touch:
                raise SessionTooLarge(_TOO_LARGE.format(size, len(record.fields), len(record.version)))
        old = self._records.get(key)
        if old is None or old[_STATE_AT] != packed[_STATE_AT]:
            return self._enter(key, record, packed, old, replaces)
        grown = size - len(old)
        if packed[_STATE_AT] != LIVE:
            self._tombstone_bytes += grown
        elif grown > 0 and not is_touch:
            self._check_room(grown, is_new=False)
        self._records[key] = packed
        self._record_bytes += grown
        if size <= HOT_RECORD_BYTES_MAX and key in self._hot:
            self._hot[key] = (packed, record)
        else:
            self._keep_hot(key, (packed, record))
        return packed

    def offer(self, key: SessionKey, record: Record) -> None:
        """Hold this record, unless `put` would refuse it."""
        with suppress(SessionLimit, SessionEnded, SessionTooLarge):
            self.put(key, record)

    def _enter(
        self, key: SessionKey, record: Record, packed: bytes, old: bytes | None, replaces: SessionKey | None
    ) -> bytes:
        """Hold a record that was not held before, or had another state."""
        old_size, was_tombstone = (0, False) if old is None else (len(old), old[_STATE_AT] != LIVE)
        is_tombstone = packed[_STATE_AT] != LIVE
        grown = len(packed) - old_size
        if not is_tombstone:
            if was_tombstone:
                raise SessionEnded("the session has ended: what is left of it was not stored")
            if key in self.ends:
                raise SessionEnded("the session was ended a while ago: what is left of it was not stored")
            if replaces is None:
                self._check_room(grown, is_new=True)
            elif (more := grown - len(self._records.get(replaces, b""))) > 0:
                self._check_room(more, is_new=False)
        self._records[key] = packed
        self._record_bytes += grown
        self._tombstone_bytes += len(packed) * is_tombstone - old_size * was_tombstone
        if is_tombstone:
            self._ended[key] = None
            if self.on_end is not None:
                self.on_end(key)
        self._keep_hot(key, (packed, record))
        self._schedule(key, self.due_ms(record))
        if is_tombstone:
            self._bound_tombstones(key)
        if self.on_entered is not None:
            self.on_entered()
        return packed

    def check_share(self) -> None:
        """Check that an anonymous session may begin: the last `USERS_SHARE` of the room is for users. A cache makes room.

        Raises:
            SessionLimit: it may not begin.
        """
        if self.may_evict is not None:
            return
        for name, present, limit in (
            ("sessions", self.sessions, self._sessions_max),
            ("bytes", self.live_bytes, self._bytes_max),
        ):
            if present >= limit - int(limit * USERS_SHARE):
                raise SessionLimit(
                    f"this server holds {present} {name} of sessions; {name}_max is {limit}: raise it, add servers, or shorten "
                    f"anonymous_timeout (a part of {USERS_SHARE:.0%} is kept for users who log in)"
                )

    def anonymous(self) -> Iterator[tuple[SessionKey, Record]]:
        """Some live anonymous sessions, those not used lately first. They are ended to make room for users."""
        for look in range(2 * EVICTION_LOOKS):
            key = self._candidate()
            if key is None:
                return
            if key in self._hot and look < EVICTION_LOOKS:
                self._hot.pop(key)
            elif self.state(key) == LIVE:
                record = Record.unpack(self._records[key])
                if not record.subject:
                    yield key, record

    def drop(self, key: SessionKey) -> None:
        """Stop holding the key's record. If it is a tombstone, its end is still remembered."""
        old = self._records.pop(key, None)
        self._hot.pop(key, None)
        if old is None:
            return
        self._record_bytes -= len(old)
        if old[_STATE_AT] != LIVE:
            del self._ended[key]
            self._tombstone_bytes -= len(old)
            self.ends.add(key, Record.unpack(old).deadline_ms, is_replaced=old[_STATE_AT] in {ROTATED, REPLACED})

    def sweep(self, now_ms: int, *, at_most: int = 1000) -> bool:
        """Drop what is due, looking at no more than `at_most` records.

        Returns:
            Whether more records are due at once.
        """
        self._collect_due(now_ms)
        self.ends.sweep(now_ms)
        self._is_keeping = self.keeps_tombstones is not None and self.keeps_tombstones()
        for _ in range(min(at_most, len(self._due))):
            self._settle(self._due.pop(), now_ms)
        return bool(self._due)

    def _keep_hot(self, key: SessionKey, found: Found) -> None:
        if len(found[0]) > HOT_RECORD_BYTES_MAX:
            self._hot.pop(key, None)
            return
        if len(self._hot) >= HOT_MAX:
            self._hot = {}  # simpler than picking one, and as good: hot records are decoded again soon
        self._hot[key] = found

    def _check_room(self, grown: int, *, is_new: bool) -> None:
        size = grown + (ENTRY_BYTES if is_new else 0)
        if self.may_evict is not None:
            self._make_room(self.may_evict, size, is_new=is_new)
        if is_new and self.sessions >= self._sessions_max:
            raise SessionLimit(
                f"this server holds {self.sessions} sessions; sessions_max is {self._sessions_max}: "
                "raise it, add servers, or shorten idle_timeout"
            )
        limit = self._bytes_max if is_new else self._bytes_max * GROWTH
        if self.held_bytes + size > limit and self.live_bytes + size > limit:
            raise SessionLimit(
                f"this server holds {self.live_bytes} bytes of sessions; bytes_max is {self._bytes_max}: "
                "raise it, add servers, or shorten idle_timeout"
            )

    def _make_room(self, may_evict: Callable[[SessionKey], bool], size: int, *, is_new: bool) -> None:
        """Drop copies until there is room, looking at a bounded number of them. Copies used lately are spared at first."""
        for look in range(2 * EVICTION_LOOKS):
            has_place = not is_new or self.sessions < self._sessions_max
            if has_place and self.live_bytes + size <= self._bytes_max:
                return
            key = self._candidate()
            if key is None:
                return
            is_spared = key in self._hot and look < EVICTION_LOOKS
            if not is_spared and may_evict(key):
                self.evicted += 1
                self.drop(key)
            else:
                self._hot.pop(key, None)

    def _bound_tombstones(self, latest: SessionKey = b"") -> None:
        """Drop the oldest tombstones beyond the limit, skipping a bounded number of those that must stay.

        The latest one is never dropped: the other members must still be sent it.
        """
        limit = self._bytes_max * TOMBSTONES_SHARE
        for _ in range(EVICTION_LOOKS):
            if self._tombstone_bytes + ENTRY_BYTES * len(self._ended) <= limit:
                return
            oldest = next(iter(self._ended))
            if oldest == latest:
                return
            if self.may_forget is None or self.may_forget(oldest):
                self.drop(oldest)
            else:
                self._ended.move_to_end(oldest)

    def _must_keep(self, key: SessionKey, record: Record, now_ms: int) -> bool:
        """Whether a tombstone stays although `tombstone_keep_ms` is over."""
        if self.may_forget is not None and not self.may_forget(key):
            return True
        return self._is_keeping and record.deadline_ms > now_ms

    def _candidate(self) -> SessionKey | None:
        """The key of the next record to consider for eviction, each in its turn; None if the table is empty."""
        while self._records:
            if not self._round:
                self._round = list(reversed(self._records))
            key = self._round.pop()
            if key in self._records:
                return key
        return None

    def _schedule(self, key: SessionKey, due_ms: int) -> None:
        slot = due_ms // _SLOT_MS + 1
        if self._next_slot is not None and slot < self._next_slot:
            slot = self._next_slot
        self._wheel.setdefault(slot, []).append(key)
        self._scheduled += 1
        if self._scheduled > 2 * len(self._records) + SCHEDULED_SPARE:
            self._thin_out()

    def _thin_out(self) -> None:
        """Remove keys from the wheel that are not held any more, and the later one of two slots of the same key."""
        seen: set[SessionKey] = set()
        wheel, self._wheel = self._wheel, {}
        for slot in sorted(wheel):
            if keys := [key for key in dict.fromkeys(wheel[slot]) if key in self._records and key not in seen]:
                self._wheel[slot] = keys
                seen.update(keys)
        self._scheduled = len(seen)

    def _collect_due(self, now_ms: int) -> None:
        """Move the keys of every slot that has passed to `_due`."""
        now_slot = now_ms // _SLOT_MS
        if self._next_slot is None:
            self._next_slot = min([now_slot, *self._wheel])
        if now_slot - self._next_slot > len(self._wheel):
            passed = sorted(slot for slot in self._wheel if slot <= now_slot)
        else:
            passed = list(range(self._next_slot, now_slot + 1))
        for slot in passed:
            keys = self._wheel.pop(slot, ())
            self._scheduled -= len(keys)
            self._due += keys
        self._next_slot = max(self._next_slot, now_slot + 1)

    def _settle(self, key: SessionKey, now_ms: int) -> None:
        packed = self._records.get(key)
        if packed is None:
            return
        record = Record.unpack(packed)
        due_ms = self.due_ms(record)
        if due_ms > now_ms:
            self._schedule(key, due_ms)
        elif record.state == ROTATED:
            self.put(key, record.end(REPLACED, now_ms))
        elif record.state != LIVE and self._must_keep(key, record, now_ms):
            self._schedule(key, now_ms + self._tombstone_keep_ms)
        else:
            if record.state == LIVE:
                self.expired += 1
                if self.on_expired is not None:
                    self.on_expired(key, record)
                if self.on_end is not None:
                    self.on_end(key)
            self.drop(key)
