"""The records this process holds: packed bytes by key, within limits, each dropped when its time has come.

An end outlives every copy that can contradict it: a tombstone is held for `tombstone_keep_ms`, and its key until the session's
own deadline (`ends.py`). A tombstone is never refused, and takes no room from sessions.

Time is an argument, in whole milliseconds. Expiry is a wheel of one-second slots: a key stands in one slot, at the
moment its record was due when it was first held or ended, and is looked at when that moment has passed; a record that
was touched meanwhile moves on to its new moment. So a touch costs nothing here, a held session eight bytes, and a sweep
is bounded. (Should a merge bring an earlier moment, the record stays until the old one, unserved: who opens it judges.)

The table has no lock of its own. Whoever changes it from several threads (read, merge, put) holds one; `get` alone needs
none, since a record is one immutable object and is swapped in one step.
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
"""What an entry takes beside its record: key, dictionary entry, wheel slot and object headers, as measured."""
GROWTH: Final = 1.25
"""Sessions already held may grow the table this far beyond `bytes_max` before their writes are refused as well."""
HOT_MAX: Final = 1024
"""So many records are kept decoded as well."""
HOT_RECORD_BYTES_MAX: Final = 4096
"""A larger one is not: decoding it is not what takes the time, and memory is."""
EVICTION_LOOKS: Final = 64
"""So many copies are looked at to make room for one; if all are in use, so many once more."""
USERS_SHARE: Final = 0.1
"""New anonymous sessions leave this part of `sessions_max` and of `bytes_max` to users who log in."""
TOMBSTONES_SHARE: Final = 0.25
"""Tombstones take at most this part of `bytes_max`, in addition to sessions. Beyond it the oldest are replaced by their keys."""
ENDS_SHARE: Final = 0.25
"""The keys of ended sessions take at most this part of `bytes_max`: 5.6 million of them by default."""
SCHEDULED_SPARE: Final = 1_000
"""What is dropped before its time stays in the wheel, until so many more keys than twice those held are in it."""
_SLOT_MS: Final = 1000
_STATE_AT: Final = 1
"""Where a packed record says its state: the array's first element, a small integer of one byte."""

_TOO_LARGE: Final = (
    "the session would take {} bytes for {} fields and {} writers, more than any other server takes: parallel requests "
    "added up to more than session_bytes_max and fields_max allow; end it, or lower these"
)

Found = tuple[bytes, Record]
"""A packed record, the very object the table holds, and what it says."""


class Table:
    """Packed records by key.

    Args:
        sessions_max: how many live sessions to hold.
        bytes_max: how many bytes of them to hold, `ENTRY_BYTES` for each included.
        rotation_grace_ms: how long a rotated session may be looked at.
        rotated_keep_ms: how long a rotated session stays `ROTATED`, if that is longer: until then, a copy that is `REPLACED` was
            ended by somebody else.
        tombstone_keep_ms: how long the tombstone of an ended session is held.
        idle_slack: by which part of its idle timeout longer an unused session is held than it may be served: it may have
            been used elsewhere, and word of that be on its way.
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
        """How many live sessions ran out of time here."""
        self.evicted = 0
        """How many copies made room for others."""
        self._idle_slack = idle_slack
        self.on_expired: Callable[[SessionKey, Record], None] | None = None
        """Hears of a live session that ran out of time, just before it is dropped."""
        self.on_end: Callable[[SessionKey], None] | None = None
        """Called for each session whose end becomes known here, or that ran out of time here."""
        self.may_evict: Callable[[SessionKey], bool] | None = None
        """Where this is set the table is a cache: what was entered first and not used lately makes room, if it may."""
        self.may_forget: Callable[[SessionKey], bool] | None = None
        """If set, a tombstone stays until this returns True: members may still have to be sent the end."""
        self.keeps_tombstones: Callable[[], bool] | None = None
        """Called at each sweep: whether tombstones stay beyond their time while there is room for them."""
        self._is_keeping = False
        self.ends = Ends(bytes_max=round(bytes_max * ENDS_SHARE))
        """The ended sessions whose tombstone is not held any more, or never was."""
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
        """Of a cache: the keys that were held at some moment and not looked at since, the next one at the end.

        The first key of a dictionary is no such thing: finding it takes the longer the more were removed before it.
        """

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SessionKey]:
        return iter(list(self._records))

    @property
    def sessions(self) -> int:
        """Live sessions held, those that ran out of time but were not swept yet included."""
        return len(self._records) - len(self._ended)

    @property
    def tombstones(self) -> int:
        return len(self._ended)

    def ended(self) -> Iterator[SessionKey]:
        """The keys of the ended sessions that are remembered: few among very many."""
        return iter(list(self._ended))

    @property
    def held_bytes(self) -> int:
        return self._record_bytes + ENTRY_BYTES * len(self._records)

    @property
    def live_bytes(self) -> int:
        """The part of `held_bytes` that live sessions take; `bytes_max` bounds it."""
        return self._record_bytes - self._tombstone_bytes + ENTRY_BYTES * self.sessions

    def get(self, key: SessionKey) -> bytes | None:
        """The packed record, as it stands; whether its time has come is the caller's to judge, by `due_ms`."""
        return self._records.get(key)

    def state(self, key: SessionKey) -> int | None:
        """`LIVE`, `ROTATED`, `ENDED` or `REPLACED`; None where nothing is held."""
        packed = self._records.get(key)
        return None if packed is None else packed[_STATE_AT]

    def find(self, key: SessionKey) -> Found | None:
        """The record in both forms. Those asked for lately are kept decoded, so a hot session is decoded once."""
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
        """Whether the session is known to have ended because its browser goes on in another one."""
        return self.state(key) in {ROTATED, REPLACED} or self.ends.is_replaced(key)

    def note_ended(self, key: SessionKey, until_ms: int, *, is_replaced: bool = False) -> None:
        """Remember an end without a tombstone.

        A live copy stays held, unless `end_remembered` ends it: before it is served, `key in ends` must be checked.
        """
        self.ends.add(key, until_ms, is_replaced=is_replaced)
        if self.on_end is not None:
            self.on_end(key)

    def over(self, key: SessionKey, record: Record, now_ms: int) -> Record:
        """A live copy as the tombstone that its remembered end makes of it: nothing of it may be shown any more."""
        return record.end(REPLACED if self.ends.is_replaced(key) else ENDED, now_ms)

    def end_remembered(self, keys: Iterable[SessionKey], now_ms: int) -> list[tuple[SessionKey, Record]]:
        """End each of these sessions that is held alive although its end is remembered; returns their tombstones."""
        ended = []
        for key in keys:
            packed = self._records.get(key)
            if packed is not None and packed[_STATE_AT] == LIVE and key in self.ends:
                record = self.over(key, Record.unpack(packed), now_ms)
                self.put(key, record)
                ended.append((key, record))
        return ended

    def judged(self, key: SessionKey, record: Record, now_ms: int) -> Record:
        """A copy from a peer or a store, as it may be held: ended if the session's end is remembered."""
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
        """When something becomes of the record by itself: it expires, loses its fields, or is forgotten."""
        if record.state == LIVE:
            if not self._idle_slack:
                return record.expires_ms()
            return min(record.expires_ms() + round(record.idle_ms * self._idle_slack), record.deadline_ms)
        return record.ended_ms + (self.rotated_keep_ms if record.state == ROTATED else self._tombstone_keep_ms)

    def is_in_grace(self, record: Record, now_ms: int) -> bool:
        """Whether a rotated session may still be looked at."""
        return record.state == ROTATED and min(record.ended_ms + self._rotation_grace_ms, record.expires_ms()) > now_ms

    def is_over(self, record: Record, now_ms: int) -> bool:
        """Whether the record leaves at the next sweep: it has expired, or its end is remembered no longer."""
        return record.state != ROTATED and self.due_ms(record) <= now_ms

    def put(
        self, key: SessionKey, record: Record, *, is_touch: bool = False, replaces: SessionKey | None = None
    ) -> bytes:
        """Hold this record instead of the one held for the key, if any.

        Args:
            key: the session's key.
            record: its record.
            is_touch: nothing but its times changed, so there is always room for it.
            replaces: the session that ends for this one, which needs no room but what it is larger.

        Returns:
            The packed record, the very object that `get` returns from now on.

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
        """Hold a record that is new here, or in a new state."""
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
        return packed

    def check_share(self) -> None:
        """See that an anonymous session may begin: the last part of the room is kept for users. A cache makes room instead.

        Raises:
            SessionLimit: it may not.
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
        """Some live sessions that belong to no user, first those that were not used lately: they make way for users."""
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
        """Stop holding the key's record; the end that a tombstone stands for is still remembered."""
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
        """Drop what has run out of time, looking at no more than `at_most` records.

        Returns:
            Whether there is more to do at once.
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
            self._hot = {}  # simpler than to pick one, and as good: the hot ones are back at once
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
        """Let copies go until there is room, looking at a bounded number: first at those that were not used lately."""
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
        """Whether a tombstone stays although its time is over."""
        if self.may_forget is not None and not self.may_forget(key):
            return True
        return self._is_keeping and record.deadline_ms > now_ms

    def _candidate(self) -> SessionKey | None:
        """The next one to be looked at, each in its turn; None if there is none."""
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
        """Forget what no longer is held, and whatever stands in the wheel twice: its earlier slot will do."""
        seen: set[SessionKey] = set()
        wheel, self._wheel = self._wheel, {}
        for slot in sorted(wheel):
            if keys := [key for key in dict.fromkeys(wheel[slot]) if key in self._records and key not in seen]:
                self._wheel[slot] = keys
                seen.update(keys)
        self._scheduled = len(seen)

    def _collect_due(self, now_ms: int) -> None:
        """Move the keys of every slot that has passed to the list of those to be looked at."""
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
