"""The mapping a handler touches, which knows what was read from it and what was changed in it.

A `Session` is opened at its first touch, by the function it was given; values are decoded when they are first read. What
the handler did is asked for once, as `Changes`: assignments, removals, increments, and mutable values that are no longer
what they were when they were handed out. It belongs to one request and is not shared between threads.

It knows records and values, nothing of cookies, tables, clocks or peers.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from msgspec import Struct, structs

from sessile import codec, items
from sessile.changes import Changes, Verb
from sessile.codec import IMMUTABLE
from sessile.errors import (
    CodecError,
    DecodeError,
    EncodeError,
    FieldUnreadable,
    SessionConflict,
    SessionRotated,
    SessionTooLarge,
    SessionTooLate,
)
from sessile.items import KIND_BYTE, LIST, SEPARATOR, SET
from sessile.record import REMOVED, Entry, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator

    from sessile.token import SessionKey

__all__ = ["LastingSession", "Limits", "Opened", "Opener", "Session"]

NAME_BYTES_MAX: Final = 255
INCREMENT_MAX: Final = 2**53
WROTE_ROTATED: Final = "this request came with the id of before a rotation: it may read, but not write"
_CHANGED: Final = ("_decoded", "_handed", "_handed_items", "_values", "_increments")
"""The dicts of a session that a call may change."""
ADDITION_BYTES: Final = 12
"""What a counter takes for each of its writers, about."""


class Limits(NamedTuple):
    """How much one session may hold."""

    fields: int
    value_bytes: int
    session_bytes: int


class Opened(Struct, frozen=True, gc=False):
    """What a session starts from: a record, or nothing."""

    record: Record | None = None
    key: SessionKey = b""
    packed_bytes: int = 0
    """What the record takes at rest: a little more than its names and values."""
    is_stale: bool = False
    is_read_only: bool = False
    """Whether the id was rotated: the record is the one of before, and without one there is nothing to look at any more."""


class Opener(Protocol):
    """Whoever knows where sessions are kept."""

    def load(self, session: Session) -> Opened:
        """What the session starts from; asked once, at its first touch."""

    def draw_key(self, session: Session) -> SessionKey:
        """The key that a new session will be kept under, if anything is put into it."""

    def draw_batch(self) -> str:
        """Random letters: what a request appends to lists is told by them from what others append."""

    def reload(self, session: Session) -> Awaitable[None]:
        """Let the session go on from its newest state; at once where this server can tell, otherwise once awaited."""

    def used(self, session: Session) -> None:
        """The session is used over a connection that stays open, which keeps it alive."""

    async def until_ended(self, session: Session) -> None:
        """Return when the session is over."""

    def came_too_late(self, call: str) -> None:
        """A handler asked for what needs a new id after the head of its response; it is refused, and nothing is kept."""


class Session(MutableMapping[str, Any]):
    """The session of one request.

    Args:
        opener: whoever knows where sessions are kept.
        limits: how much the session may hold.
    """

    accessed: bool = False
    """Whether the handler looked at the session at all; if not, the response does not depend on the cookie."""
    is_committed: bool = False
    """Whether changes were kept already in this request."""
    may_have_changed: bool = False
    """Whether `take` may find something: something was set, or something that can change in place was handed out."""
    is_head_sent: bool = False
    """Whether the head of the response has left; from then on the browser can learn no new id."""
    # What most requests never set stands here, so that opening a session sets little.
    _is_ready = False
    _verb = Verb.KEEP
    _ends = False
    _subject: str | None = None
    """Whom `login` or `end` made it belong to; None while it is the record's."""
    _ended: Session | None = None
    """The session as it was when `end` ended it."""
    _drawn_key: SessionKey = b""
    _added_bytes = 0
    """What assignments of this request may add to the record at the most."""
    _is_exact = False
    """Whether that is exact: names and values alone, without what a packed record takes beside them."""
    _batch = ""
    """What the names of the items that this request appends begin with; drawn when there is a first one."""
    _number = 0
    """How many items this request has added to collections; never goes back, or two items would get one name."""
    _handed_items: dict[str, bytes] | None = None
    """The collections that were read, and the encoding they had if they have items that can change in place."""
    _opened: Opened
    _entries: dict[str, Entry]
    _decoded: dict[str, Any]
    """Every value that was read or set, the very objects the handler has."""
    _handed: dict[str, bytes]
    """Of those that can change in place, the encoding they had."""
    _values: dict[str, bytes]
    _increments: dict[str, int]

    def __init__(self, opener: Opener, limits: Limits, visit: Any = None) -> None:
        self.visit = visit
        """Belongs to the opener: what it knows of the request."""
        self._opener = opener
        self._limits = limits

    # -- what the engine asks --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Look the session up, unless that was done."""
        if self._is_ready:
            return
        if not self.accessed:
            self._opened = self._opener.load(self)
            self.accessed = True
            self._decoded = {}
            self._handed = {}
        else:
            self._verb, self._ends, self._subject, self._ended = Verb.KEEP, False, None, None
            self._drawn_key, self._added_bytes, self._is_exact = b"", 0, False
            if self._handed_items:
                self._read_items_anew()
        record = self._opened.record
        self._entries = {} if record is None else record.fields
        self._values = {}
        self._increments = {}
        self._is_ready = True

    @property
    def opened(self) -> Opened:
        """What the session goes on from; ask only once it was accessed."""
        return self._opened

    def take(self) -> Changes:
        """What was changed since it was opened or last rebased, mutable values that were handed out included.

        Raises:
            EncodeError: a mutable value now holds what cannot be kept.
            SessionTooLarge: the session is over its limits.
        """
        if not self._is_ready:
            self.open()
        if self._handed:
            self._take_mutated()
        if self._handed_items:
            self._check_items()
        subject = self._subject
        if subject is None:
            subject = "" if self._opened.record is None else self._opened.record.subject
        return Changes(self._verb, subject, self._ends, self._values, self._increments)

    def rebase(self, opened: Opened) -> None:
        """Go on from this record: what was changed is kept in it. Values handed out stay the same objects."""
        self._opened = opened
        self.is_committed = True
        self.may_have_changed = bool(self._handed or (self._handed_items and any(self._handed_items.values())))
        self._is_ready = False  # as a rule nobody touches it again, and there is nothing to make ready

    def renew(self, opened: Opened) -> None:
        """Go on from a newer state of the same session. What was changed and not committed yet stays."""
        if self._handed:
            self._take_mutated()
        if self._handed_items:
            self._check_items()
        self._handed_items = None  # collections are read anew, with the items of other requests
        changed = [name for name, data in self._values.items() if not items.is_kind(data)]
        kept = {name: self._decoded[name] for name in (*changed, *self._increments) if name in self._decoded}
        self._opened = opened
        self._entries = {} if opened.record is None else opened.record.fields
        self._decoded = {name: value for name, value in kept.items() if name not in self._increments}
        self._handed = {name: data for name, data in self._handed.items() if name in self._decoded}
        self._is_exact = False
        self._added_bytes = sum(map(self._size_of, (*self._values, *self._increments)))
        self.may_have_changed = bool(self._handed or self._values or self._increments)
        for name, by in self._increments.items():
            try:
                present = self.peek(name) if self._has_entry(name) else 0
            except FieldUnreadable:  # it is what the handler saw, as at a commit
                present = None
            self._forget(name)
            self._decoded[name] = present + by if type(present) is int else kept[name]

    def peek(self, name: str) -> Any:
        """The value of a field as the handler sees it, without being a use of the session."""
        return Session.__getitem__(self, name)

    def _has_entry(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.is_present

    def touch(self, now_ms: int) -> None:
        """Go on from the same state, as of a later use."""
        if self._opened.record is not None:
            self._opened = structs.replace(self._opened, record=self._opened.record.touch(now_ms))

    def discard(self) -> None:
        """Forget what was changed: the session is over, and whatever the handler does next has nothing to keep."""
        self._handed, self._handed_items = {}, None
        self.may_have_changed = self._is_ready = False

    # -- what a handler asks ---------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The session's key in hex: safe to log, leads back to no id. A new session has its key once it is stored."""
        self.open()
        if self._opened.key and not self._ends:
            return self._opened.key.hex()
        self._drawn_key = self._drawn_key or self._opener.draw_key(self)
        return self._drawn_key.hex()

    @property
    def new(self) -> bool:
        """Whether nothing is stored for this browser."""
        self.open()
        return self._opened.record is None

    @property
    def modified(self) -> bool:
        """Whether there is something to store, or was in this request."""
        return self.accessed and (self.is_committed or bool(self.take()))

    @property
    def stale(self) -> bool:
        """Whether the browser has seen a newer state than any reachable holder knows."""
        self.open()
        return self._opened.is_stale

    @property
    def read_only(self) -> bool:
        """Whether this is the look back that a request with the old id has after a rotation."""
        self.open()
        return self._opened.is_read_only and self._opened.record is not None

    @property
    def subject(self) -> str | None:
        """Whom `login` bound the session to."""
        self.open()
        if self._subject is not None or self._opened.record is None:
            return self._subject or None
        return self._opened.record.subject or None

    def mark_accessed(self) -> None:
        """Say that the response depends on the session. Frameworks call it; a handler need not."""
        self.open()

    def increment(self, name: str, by: int = 1) -> int:
        """Add to an integer so that parallel increments, here and on other servers, all count.

        Returns:
            The sum as this request sees it.

        Raises:
            TypeError: the field holds something else than an int, or `by` is none.
            SessionRotated: the session has a new id.
            SessionTooLate: the head of the response has left, and the session has no id that the browser knows.
        """
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session.increment({name!r})")
        if type(by) is not int or abs(by) > INCREMENT_MAX:
            raise TypeError(f"session.increment({name!r}, ...) takes an int of at most 53 bits, not {by!r}")
        self._check_is_no_item(name)
        present = self.get(name, 0)
        if type(present) is not int:
            raise TypeError(f"session[{name!r}] is {type(present).__name__}, not an int to increment")
        if name in self._values:  # assigned or removed in this request: it counts from there
            self[name] = present + by
            return present + by
        total = self._increments.get(name, 0) + by
        if abs(total) > INCREMENT_MAX:
            raise TypeError(f"session.increment({name!r}, ...) adds up to more than 53 bits")
        if name not in self._increments:
            self._check_room(name, b"", ADDITION_BYTES)
        self._increments[name] = total
        self._decoded[name] = present + by
        return present + by

    def add_to(self, name: str, value: Any) -> None:
        """Add a value to a set so that parallel additions and removals, here and on other servers, all count.

        `session[name]` is then a tuple of the set's values, each once, in the order in which they were added. Any value that
        can be kept may be added. Values are told apart by type and value. An addition wins over a parallel `discard_from`.
        A list, tuple, set or frozenset that was assigned to the field before becomes a set with these values.

        Raises:
            TypeError: the field holds something else.
            EncodeError, SessionTooLarge: the value cannot be kept, or is one too many. Each counts as a field.
            SessionRotated: the session has a new id.
            SessionTooLate: the head of the response has left, and the session has no id that the browser knows.
        """
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session.add_to({name!r:.60}, ...)")
        self._check_is_no_item(name)
        data = self._encode(name, value)
        with self._all_or_nothing() if self._is_plain(name) else nullcontext():
            self._begin_collection(name, SET, "add_to")
            self._put_item(name, SET, items.item_of_set(name, value, data), codec.encode(self._number))

    def discard_from(self, name: str, value: Any) -> None:
        """Remove a value from a set that `add_to` made. Does nothing if it is not there.

        Of additions made in parallel, this removes those that this server knows of when the request is committed.

        Raises:
            TypeError: the field holds something else.
            SessionRotated: the session has a new id.
            SessionTooLate: the head of the response has left, and the session has no id that the browser knows.
        """
        self._open_to_write()
        if name not in self:
            return
        if self.is_head_sent:
            self._check_has_id(f"session.discard_from({name!r:.60}, ...)")
        data = self._encoded(name, value)
        if not self._is_in_set(name, data):
            return
        self._begin_collection(name, SET, "discard_from")
        item = items.item_of_set(name, value, data)
        if self._has(item):
            self._remove(item)
            self._values[item] = (
                REMOVED  # even if this request added it: a parallel one of this server may have as well
            )
        self._forget(name)

    def append_to(self, name: str, value: Any, *, keep: int | None = None) -> None:
        """Append a value to a list so that parallel appends, here and on other servers, all count.

        `session[name]` is then a tuple in the order of the writes, the same on every server. A list or tuple that was
        assigned to the field before becomes such a list.

        Args:
            name: the field.
            value: any value that can be kept.
            keep: how many values stay: the oldest ones beyond that are removed.

        Raises:
            TypeError: the field holds something else.
            EncodeError, SessionTooLarge: the value cannot be kept, or is one too many. Each counts as a field.
            SessionRotated: the session has a new id.
            SessionTooLate: the head of the response has left, and the session has no id that the browser knows.
        """
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session.append_to({name!r:.60}, ...)")
        if keep is not None and (type(keep) is not int or keep < 1):
            raise TypeError(f"session.append_to({name!r:.60}, ..., keep=...) takes an int of at least 1, not {keep!r}")
        self._check_is_no_item(name)
        data = self._encode(name, value)
        with self._all_or_nothing() if keep is not None or self._is_plain(name) else nullcontext():
            self._begin_collection(name, LIST, "append_to")
            if keep is not None:
                held = items.ordered(self._opened_record(), self._values, name, LIST)
                for item, _ in held[: max(0, len(held) + 1 - keep)]:
                    self._remove(item)
            self._put_item(name, LIST, items.item_of_list(name, self._draw_batch(), self._number), data)

    def login(self, subject: str, *, keep: Collection[str] = ()) -> None:
        """Bind the session to a user, under a new id and with a new absolute timeout. The old id ends.

        The fields of a visitor who was nobody yet, or the same user, stay. A session that belonged to another user, or was ended
        in this request, ends on every server, and the new one starts empty.

        Args:
            subject: who the user is.
            keep: the fields that stay nevertheless.

        Raises:
            SessionTooLate: the head of the response has left, so that no cookie can carry the new id.
        """
        self._open_to_write()
        self._check_can_renew("session.login")
        is_text = isinstance(subject, str)
        is_unicode = is_text and not any("\ud800" <= letter <= "\udfff" for letter in subject)
        if not is_unicode or not 0 < len(subject.encode()) <= NAME_BYTES_MAX:
            given = f"text of {len(subject)} characters" if is_text else type(subject).__name__
            given += " with a lone surrogate" if is_text and not is_unicode else ""
            raise TypeError(
                f"session.login takes a subject of 1 to {NAME_BYTES_MAX} bytes, not {given}: give the user's id as text, as in "
                "session.login(str(user.id))"
            )
        if isinstance(keep, str):
            raise TypeError(f"session.login(..., keep={keep!r:.60}) takes several names: give ({keep!r:.60},)")
        with self._all_or_nothing():
            if self.subject not in {None, subject}:
                self.end()
            if self._ended is not None and keep:
                self._keep(self._ended, keep)
            self._verb = Verb.LOGIN
            self._subject = subject

    def logout(self) -> None:
        """End the session on every server. What is set afterwards goes into a new one."""
        self.end()

    def reload(self) -> Awaitable[None]:
        """See what other requests have changed since this one began; for WebSockets and other requests that last.

        A server that holds the session does so at once, and the result need not be awaited. Elsewhere `await session.reload()`
        asks one that does; without an event loop the call waits. What this request changed and has not committed stays. It is a
        use of the session, which keeps it alive.

        Raises:
            SessionEnded: the session was ended, or ran out of time.
            SessionRotated: the session has a new id. The request may read what it has, and write nothing.
        """
        self.open()
        if self._verb is not Verb.KEEP or self._ends:
            raise SessionConflict(
                "session.reload() after login, rotate or logout in the same request: commit comes first"
            )
        return self._opener.reload(self)

    async def until_ended(self) -> None:
        """Wait until the session is over: ended on any server, under a new id, or out of time. Run it beside what serves a socket.

        Returns at once for a session that is not stored.
        """
        await self._opener.until_ended(self)

    def rotate(self) -> None:
        """Give the session a new id; to be called whenever its rights change.

        Raises:
            SessionTooLate: the head of the response has left, so that no cookie can carry the new id.
        """
        self._open_to_write()
        self._check_can_renew("session.rotate")
        if self._verb is Verb.KEEP:
            self._verb = Verb.ROTATE

    def end(self) -> None:
        """End the session on every server. What is set afterwards goes into a new one."""
        self._open_to_write()
        self._ended = self._ended or copy(self)
        self._ends = True
        self._verb = Verb.KEEP
        self._subject = ""
        self._is_exact = False
        self._entries = {}
        self._decoded, self._handed, self._values, self._increments = {}, {}, {}, {}
        self._handed_items = None

    # -- the mapping -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        if not self._is_ready:
            self.open()
        if name in self._decoded:
            return self._decoded[name]
        entry = self._entries.get(name)
        if entry is None or name in self._values:
            data = self._values.get(name) if self._values else None
            if data and SEPARATOR not in name:  # a collection, or taken over as bytes, since this server cannot read it
                return self._collected(name, data) if items.is_kind(data) else self._read(name, data)
            raise KeyError(name)
        if SEPARATOR in name:  # an item: it is read with its collection alone
            raise KeyError(name)
        data = entry.value
        if entry.rest:
            return self._read_rest(name, entry)
        if not data:
            raise KeyError(name)
        if data[0] == KIND_BYTE and items.is_kind(data):
            return self._collected(name, data)
        try:  # here and not in `_read`, which would be a call more for each value
            value: Any = codec.decode(data)
        except DecodeError as error:
            raise _unreadable(name, error) from None
        if type(value) not in IMMUTABLE and codec.is_mutable(value):
            self._handed[name] = data
            self.may_have_changed = True
        self._decoded[name] = value
        return value

    def _read_rest(self, name: str, entry: Entry) -> Any:
        """The value of a field that was incremented, or assigned in parallel."""
        data, added = entry.read()
        if items.is_kind(data):
            return self._collected(name, data)
        value = self._read(name, data) if data else 0
        if type(value) is int:
            value += added
        elif codec.is_mutable(value):
            self._handed[name] = data
            self.may_have_changed = True
        self._decoded[name] = value
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session[{name!r:.60}] = ...")
        self._check_is_no_item(name)
        data = self._encode(name, value)
        self._check_room(name, data)
        self._note(name, data)
        if self._handed or self._handed_items:
            self._forget(name)
        if type(value) not in IMMUTABLE and codec.is_mutable(value):
            self._handed[name] = data
        self._decoded[name] = value

    def __delitem__(self, name: str) -> None:
        self._open_to_write()
        if name not in self:
            raise KeyError(name)
        self._forget(name)
        self._remove(name)

    def clear(self) -> None:
        """Remove every field, those that this server cannot read as well."""
        self._open_to_write()
        for name in list(self):
            del self[name]

    def __iter__(self) -> Iterator[str]:
        self.open()
        names = [name for name, entry in self._entries.items() if entry.is_present and SEPARATOR not in name]
        if self._values or self._increments:
            every = dict.fromkeys((*names, *self._values, *self._increments))
            names = [name for name in every if self._values.get(name) != REMOVED and SEPARATOR not in name]
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        self.open()
        return isinstance(name, str) and SEPARATOR not in name and self._has(name)

    def _has(self, name: str) -> bool:
        """Whether there is a field or an item of this name."""
        if name in self._values:
            return self._values[name] != REMOVED
        if name in self._increments:
            return True
        entry = self._entries.get(name)
        return entry is not None and entry.is_present

    def __repr__(self) -> str:
        if not self.accessed:
            return "<Session, not opened>"
        self.open()
        about = "new" if self._ends else self._opened.key.hex() or "new"
        return f"<Session {about}, {len(self)} fields{', stale' if self._opened.is_stale else ''}>"

    # -- inside ----------------------------------------------------------------------------------------------------

    def _open_to_write(self) -> None:
        if not self._is_ready:
            self.open()
        if self._opened.is_read_only:
            raise SessionRotated(WROTE_ROTATED)
        self.may_have_changed = True

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What is refused half way changes nothing; for the few calls that take several steps."""
        before = self.__dict__.copy()
        before |= {name: before[name].copy() for name in _CHANGED if before.get(name) is not None}
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _keep(self, ended: Session, names: Collection[str]) -> None:
        """Take fields over from a session that was ended in this request, unless they were set since."""
        for name in names:
            if name not in ended or name in self:
                continue
            data = ended._data_of(name)
            if items.is_kind(data):
                self._keep_items(ended, name, data)
                continue
            try:
                self[name] = ended[name]
            except FieldUnreadable:
                self._check_room(name, data)
                self._note(name, data)

    def _keep_items(self, ended: Session, name: str, kind: bytes) -> None:
        """Take a set or a list that merges over, item by item: whether this server can read them does not matter."""
        ended._check_items()
        for item, data in items.ordered(ended._opened_record(), ended._values, name, kind):
            if kind == SET:
                self._put_item(name, kind, item, codec.encode(self._number))
            else:
                self._put_item(name, kind, items.item_of_list(name, self._draw_batch(), self._number), data)
        if name not in self:  # it was empty
            self._check_room(name, kind)
            self._values[name] = kind

    def _data_of(self, name: str) -> bytes:
        """The encoding of a field's value; of a collection its kind."""
        data = self._values.get(name)
        entry = self._entries.get(name)
        if data is None and entry is not None:
            data = entry.read()[0]
        return data or b""

    @staticmethod
    def _read(name: str, data: bytes) -> Any:
        try:
            return codec.decode(data)
        except DecodeError as error:
            raise _unreadable(name, error) from None

    def _check_has_id(self, call: str) -> None:
        """Raise SessionTooLate if the head has left and the browser does not know the session's id."""
        if self._ends or self._opened.record is None:
            why = "the session was ended, and another one" if self._ends else "the session is new, and"
            self._opener.came_too_late(call)
            raise SessionTooLate(
                f"{call} after the head of the response: {why} would need an id that no cookie can carry any more; "
                "put something into the session before the response starts"
            )

    def _check_can_renew(self, call: str) -> None:
        if self.is_head_sent:
            self._opener.came_too_late(call)
            raise SessionTooLate(
                f"{call} after the head of the response: no cookie can carry the new id any more, and the session would "
                "be lost; call it before the response starts"
            )

    def _encode(self, name: str, value: Any) -> bytes:
        data = self._encoded(name, value)
        self._check_value(name, data)
        return data

    @staticmethod
    def _encoded(name: str, value: Any) -> bytes:
        try:
            return codec.encode(value, bytes_max=sys.maxsize)  # what is too large is refused by its setting
        except EncodeError as error:
            raise EncodeError(f"session[{name!r}]: {error}") from None

    def _check_value(self, name: str, data: bytes) -> None:
        if len(data) > self._limits.value_bytes:
            raise SessionTooLarge(
                f"session[{name!r}] takes {len(data)} bytes; value_bytes_max is {self._limits.value_bytes}: "
                "raise it, or keep the value elsewhere and its key in the session"
            )

    def _forget(self, name: str) -> None:
        """Forget what was handed out of a field: from now on it is read anew, and the objects that the handler has are its own."""
        self._decoded.pop(name, None)
        if self._handed:
            self._handed.pop(name, None)
        if self._handed_items:
            self._handed_items.pop(name, None)

    def _note(self, name: str, data: bytes) -> None:
        """Remember an assignment or a removal; one that changes nothing is none."""
        if self._increments:
            self._increments.pop(name, None)
        entry = self._entries.get(name)
        if entry is None:
            is_change = data != REMOVED
        else:
            is_change = data != entry.value or bool(entry.rest)
            may_have_items = entry.rest or (entry.value and entry.value[0] == KIND_BYTE)
            if may_have_items and is_change and items.is_collection(entry):
                self._remove_items(name)
        if self._number and items.is_kind(self._values.get(name, REMOVED)):
            self._remove_items(name)
        if is_change:
            self._values[name] = data
        elif self._values:
            self._values.pop(name, None)

    def _remove(self, name: str) -> None:
        """Remove a field or an item that is there."""
        if self._is_exact:
            self._added_bytes -= self._size_of(name)
        self._note(name, REMOVED)

    # -- collections -------------------------------------------------------------------------------------------------

    def _opened_record(self) -> Record | None:
        return None if self._ends else self._opened.record

    def _collected(self, name: str, kind: bytes) -> tuple[Any, ...]:
        """What a collection holds."""
        held = items.ordered(self._opened_record(), self._values, name, kind)
        try:
            values = tuple(items.value_of(item, data) for item, data in held)
        except DecodeError as error:
            raise _unreadable(name, error) from None
        data = b""
        if codec.is_mutable(values):
            data = items.encoded(values)
            self.may_have_changed = True
        self._handed_items = {**(self._handed_items or {}), name: data}
        self._decoded[name] = values
        return values

    def _read_items_anew(self) -> None:
        """After a commit the items of parallel requests are there as well: read them, unless objects were handed out."""
        for name, data in list((self._handed_items or {}).items()):
            if not data:
                self._forget(name)

    def _is_plain(self, name: str) -> bool:
        """Whether the field has a value that is no collection, or one was handed out."""
        data = self._data_of(name)
        return name in self._handed or (data != REMOVED and not items.is_kind(data))

    def _is_in_set(self, name: str, data: bytes) -> bool:
        """Whether a value may be in what is, or could become, a set. What is neither is for `_begin_collection` to refuse."""
        if not self._is_plain(name):
            return True
        held = self[name]
        if type(held) not in {list, tuple, set, frozenset}:
            return True
        return any(self._encoded(name, each) == data for each in held)

    def _begin_collection(self, name: str, kind: bytes, verb: str) -> None:
        """See that the field is absent or a collection of this kind; a plain list or set of values becomes one."""
        if name not in self:
            return
        if (
            name in self._handed
        ):  # a plain value that was changed in place may stand where by now others have a collection
            self._take_mutated_one(name)
        present = self._values.get(name)
        entry = self._entries.get(name)
        if present is None and entry is not None:
            present = entry.read()[0]
        if present == kind:
            return
        noun, other = ("set", "list") if kind == SET else ("list", "set")
        if present is not None and items.is_kind(present):
            raise TypeError(f"session[{name!r:.60}] is a {other} that merges, not a {noun} for session.{verb}")
        value = self[name]
        if type(value) not in ({list, tuple} if kind == LIST else {list, tuple, set, frozenset}):
            raise TypeError(f"session[{name!r:.60}] is {type(value).__name__}, not a {noun} for session.{verb}")
        with self._all_or_nothing():
            self._convert(name, kind, value, None if name in self._values else entry)

    def _convert(self, name: str, kind: bytes, value: Any, entry: Entry | None) -> None:
        """Make items of the values in a plain list or set.

        Servers that do so in parallel must give the same names to the same items. So items of a list are named by the stamp
        of the assignment that they come from, unless this request has changed the list in place.
        """
        source, first = self._draw_batch(), self._number
        is_as_stored = entry is not None and _is_same(entry.read()[0], self._encoded(name, value))
        if is_as_stored and entry is not None and self._opened.record is not None:
            counter, writer = self._opened.record.stamp_of(entry)
            source, first = f"{counter:x}-{writer:x}", 0
        del self[name]
        self._check_room(name, kind)
        self._values[name] = kind
        values = sorted(value, key=codec.encode) if isinstance(value, set | frozenset) else value
        for number, each in enumerate(values, first):
            data = self._encode(name, each)
            if kind == SET:
                self._put_item(name, kind, items.item_of_set(name, each, data), codec.encode(self._number))
            else:
                self._put_item(name, kind, items.item_of_list(name, source, number), data)

    def _put_item(self, name: str, kind: bytes, item: str, data: bytes) -> None:
        """Add an item, always as a write: a parallel removal has not seen it."""
        was_there = name in self
        if not was_there:
            self._check_room(name, kind)
        before = self._values.get(name)
        self._values[name] = kind
        try:
            self._check_room(item, data, field=name)
        except SessionTooLarge:
            if before is None:
                del self._values[name]
            else:
                self._values[name] = before
            raise
        self._values[item] = data
        self._number += 1
        self._forget(name)

    def _draw_batch(self) -> str:
        self._batch = self._batch or self._opener.draw_batch()
        return self._batch

    def _remove_items(self, name: str) -> None:
        """Remove the items of a collection that is replaced or removed itself."""
        for item in dict.fromkeys((*items.items_of(self._entries, name), *items.items_of(self._values, name))):
            if self._is_exact:
                self._added_bytes -= self._size_of(item)
            if item in self._entries:
                self._values[item] = REMOVED
            else:
                self._values.pop(item, None)

    def _check_items(self) -> None:
        """Raise EncodeError if an item of a collection was changed in place: nobody could tell which of them it was."""
        for name, before in (self._handed_items or {}).items():
            if before and items.encoded(self._decoded[name]) != before:
                raise EncodeError(
                    f"session[{name!r:.60}]: an item was changed in place, which is not kept; discard it and add it anew"
                )

    # -- limits ------------------------------------------------------------------------------------------------------

    def _take_mutated(self) -> None:
        for name in list(self._handed):
            self._take_mutated_one(name)

    def _take_mutated_one(self, name: str) -> None:
        """Make an assignment of a value that was changed in place. Limits are for changes alone."""
        before, data = self._handed[name], self._encoded(name, self._decoded[name])
        if _is_same(before, data):
            return
        self._check_value(name, data)
        self._check_room(name, data)
        self._handed[name] = data
        self._note(name, data)

    def _check_room(self, name: str, data: bytes, extra: int = 0, *, field: str = "") -> None:
        """See that the session has room for this, before anything is changed.

        At first the sizes of replaced values are not subtracted, so the sum is too high. When it reaches the limit it is made
        exact, and from then on it is kept exact, name by name, since a handler may assign thousands of fields.
        """
        is_known = name in self._entries or name in self._increments
        if self._values and name in self._values:
            is_known = self._values[name] != REMOVED
        if not is_known:
            self._check_name(name, field or name)
        limit = self._limits.session_bytes - self._opened.packed_bytes
        name_bytes = len(name) if name.isascii() else len(name.encode())
        added = self._added_bytes + name_bytes + len(data) + extra
        if added > limit or self._is_exact:
            if not self._is_exact:
                self._is_exact = True
                names = dict.fromkeys((*self._entries, *self._values, *self._increments))
                self._added_bytes = sum(map(self._size_of, names)) - self._opened.packed_bytes
            added = self._added_bytes + name_bytes + len(data) + extra
            if is_known:
                added -= name_bytes if extra else self._size_of(name)
            if added > max(limit, self._added_bytes):  # parallel writes may have made it larger; it may still shrink
                size = added + self._opened.packed_bytes
                raise SessionTooLarge(
                    f"session[{field or name!r}] would make the session {size} bytes; session_bytes_max is "
                    f"{self._limits.session_bytes}: raise it, or keep large values elsewhere and their keys here"
                )
        self._added_bytes = added

    def _size_of(self, name: str) -> int:
        """Bytes of a field's name and value; of a removed one none."""
        value = self._values.get(name)
        if value == REMOVED:
            return 0
        size = len(name.encode()) + ADDITION_BYTES * (name in self._increments)
        if value is not None:
            return size + len(value)
        entry = self._entries.get(name)
        if entry is None:
            return size
        others = sum(len(item) for _, _, item in entry.rest if isinstance(item, bytes))
        return size + len(entry.value) + others + ADDITION_BYTES * len(entry.rest)

    def _check_is_no_item(self, name: str) -> None:
        if type(name) is str and SEPARATOR in name:
            self._check_name(name, name)

    def _check_name(self, name: str, field: str) -> None:
        """Look at a name that is new here: of a field, or of an item in one. Items count as fields."""
        if type(name) is not str:
            raise TypeError(f"a session's field is named by a str, not {type(name).__name__}")
        if not field.isprintable() or not 0 < len(field.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"a session's field is named by 1 to {NAME_BYTES_MAX} printable bytes, not {field[:40]!r}")
        limit = self._limits.fields
        if len(self._entries) + len(self._values) + len(self._increments) < limit:
            return  # changed fields are counted twice, and removed ones as well
        names = {name for name, entry in self._entries.items() if entry.is_present} | self._increments.keys()
        names |= self._values.keys()
        count = 1 + len(names) - sum(1 for data in self._values.values() if data == REMOVED)
        if count > limit:
            raise SessionTooLarge(
                f"session[{field!r}] would be field {count}, items of sets and lists included; fields_max is {limit}: "
                "raise it, or keep one field with a dict in it"
            )


class LastingSession(Session):
    """The session of a connection that stays open, a WebSocket: each look at it counts as a use."""

    def __getitem__(self, name: str) -> Any:
        self._opener.used(self)
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        self._opener.used(self)
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        self._opener.used(self)
        return super().__contains__(name)


def _is_same(before: bytes, data: bytes) -> bool:
    """Whether a value with this encoding is the one that was stored as `before`.

    The class of an object may have got fields since then, so that the same object has another encoding.
    """
    if before == data:
        return True
    try:
        return codec.encode(codec.decode(before), bytes_max=sys.maxsize) == data
    except CodecError:
        return False


def _unreadable(name: str, why: DecodeError) -> FieldUnreadable:
    return FieldUnreadable(
        f"session[{name!r:.60}] cannot be read by this server, and stays as it is: {why}; register a new class "
        "(sessile.classes.register) one deployment before sessions hold objects of it",
        name,
    )
