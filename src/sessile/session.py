"""The mapping a handler touches, which knows what was read from it and what was changed in it.

A `Session` is opened at its first touch, by the function it was given; values are decoded when they are first read. What
the handler did is collected as `Changes`: assignments, removals, increments, and mutable values that were modified in place
after the handler read them. A session belongs to one request and is not shared between threads.

This module knows records and values. It knows nothing of cookies, tables, clocks or peers.
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
WROTE_ROTATED: Final = "this request came with the session's id from before a rotation: it may read, but not write"
_CHANGED: Final = ("_decoded", "_handed", "_handed_items", "_values", "_increments")
"""The dicts of a session that a call may change."""
ADDITION_BYTES: Final = 12
"""Approximate size of a counter's entry for one of its writers."""


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
    """Size of the packed record: a little more than its names and values."""
    is_stale: bool = False
    is_read_only: bool = False
    """Whether the id was rotated. `record` is then the state before the rotation; it is None once the grace is over."""


class Opener(Protocol):
    """Loads sessions and draws their keys: the engine, as a session sees it."""

    def load(self, session: Session) -> Opened:
        """What the session starts from; asked once, at its first touch."""

    def draw_key(self, session: Session) -> SessionKey:
        """The key under which a new session will be stored, if anything is put into it."""

    def draw_batch(self) -> str:
        """Random letters for the names of the items that this request appends to lists; no other request has the same."""

    def reload(self, session: Session) -> Awaitable[None]:
        """Load the newest state into the session: at once if this server is sure to hold it, otherwise when awaited."""

    def used(self, session: Session) -> None:
        """Keep the session alive: it was used over a connection that stays open."""

    async def until_ended(self, session: Session) -> None:
        """Return when the session is over."""

    def came_too_late(self, call: str) -> None:
        """Record that a handler made a call that needs a new id after the head of its response. The call is refused."""


class Session(MutableMapping[str, Any]):
    """The session of one request.

    Args:
        opener: loads the session at its first touch.
        limits: how much the session may hold.
    """

    accessed: bool = False
    """Whether the handler looked at the session at all; if not, the response does not depend on the cookie."""
    is_committed: bool = False
    """Whether this request has committed changes already."""
    may_have_changed: bool = False
    """Whether `take` may find something: something was set, or something that can change in place was handed out."""
    is_head_sent: bool = False
    """Whether the head of the response has left; from then on the browser can learn no new id."""
    # Defaults that most requests never change are class attributes, so that opening a session assigns few attributes.
    _is_ready = False
    _verb = Verb.KEEP
    _ends = False
    _subject: str | None = None
    """The subject that `login` or `end` set; None while the record's subject applies."""
    _ended: Session | None = None
    """The session as it was when `end` ended it."""
    _drawn_key: SessionKey = b""
    _added_bytes = 0
    """Upper bound of the bytes that this request's assignments add to the record."""
    _is_exact = False
    """Whether `_added_bytes` is exact. It then counts names and values only, not the overhead of a packed record."""
    _batch = ""
    """Prefix of the names of the items that this request appends; drawn at the first one."""
    _number = 0
    """How many items this request has added to collections; never goes back, or two items would get one name."""
    _handed_items: dict[str, bytes] | None = None
    """The collections that were read → their encoding then, or b"" if none of their items can change in place."""
    _opened: Opened
    _entries: dict[str, Entry]
    _decoded: dict[str, Any]
    """Every value that was read or set: the same objects that the handler holds."""
    _handed: dict[str, bytes]
    """The values among them that can change in place → the encoding they had."""
    _values: dict[str, bytes]
    _increments: dict[str, int]

    def __init__(self, opener: Opener, limits: Limits, visit: Any = None) -> None:
        self.visit = visit
        """What the opener knows about the request; the session does not look at it."""
        self._opener = opener
        self._limits = limits

    # -- called by the engine --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Look the session up, unless it is open already."""
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
        """The state that the session continues from. Set only after the session was accessed."""
        return self._opened

    def take(self) -> Changes:
        """What changed since the session was opened or last rebased, including values that were modified in place.

        Raises:
            EncodeError: a mutable value now holds something that cannot be stored.
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
        """Continue from this record, which contains the changes. Values that the handler holds stay the same objects."""
        self._opened = opened
        self.is_committed = True
        self.may_have_changed = bool(self._handed or (self._handed_items and any(self._handed_items.values())))
        self._is_ready = False  # most sessions are not touched again, so opening it now would be wasted

    def renew(self, opened: Opened) -> None:
        """Continue from a newer state of the same session. Changes that are not committed yet stay."""
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
        """The value of a field as the handler sees it. Does not count as a use of the session."""
        return Session.__getitem__(self, name)

    def _has_entry(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.is_present

    def touch(self, now_ms: int) -> None:
        """Continue from the same state, last used at this time."""
        if self._opened.record is not None:
            self._opened = structs.replace(self._opened, record=self._opened.record.touch(now_ms))

    def discard(self) -> None:
        """Forget the changes: the session is over, and what the handler does next is not stored either."""
        self._handed, self._handed_items = {}, None
        self.may_have_changed = self._is_ready = False

    # -- called by handlers ---------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The session's key in hex. Safe to log: it reveals no id. A new session keeps this key when it is stored."""
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
        """Whether this request has changes to store, or has stored some already."""
        return self.accessed and (self.is_committed or bool(self.take()))

    @property
    def stale(self) -> bool:
        """Whether the browser has seen a newer state than any reachable holder knows."""
        self.open()
        return self._opened.is_stale

    @property
    def read_only(self) -> bool:
        """Whether this request came with the old id of a rotated session, and may still read its last state."""
        self.open()
        return self._opened.is_read_only and self._opened.record is not None

    @property
    def subject(self) -> str | None:
        """The user that `login` bound the session to; None for an anonymous session."""
        self.open()
        if self._subject is not None or self._opened.record is None:
            return self._subject or None
        return self._opened.record.subject or None

    def mark_accessed(self) -> None:
        """Note that the response depends on the session. Called by frameworks; handlers need not call it."""
        self.open()

    def increment(self, name: str, by: int = 1) -> int:
        """Add to an integer so that parallel increments, here and on other servers, all count.

        Returns:
            The sum as this request sees it.

        Raises:
            TypeError: the field's value or `by` is not an int.
            SessionRotated: the session has a new id.
            SessionTooLate: the head of the response has left, and the session has no id that the browser knows.
        """
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session.increment({name!r})")
        if type(by) is not int or abs(by) > INCREMENT_MAX:
            raise TypeError(
                f"session.increment({name!r}, ...) takes an int of at most 53 bits, not {by!r}: count in the smallest unit, as in cents"
            )
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
        can be stored may be added. Values are equal only if their types are. An addition wins over a parallel `discard_from`.
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
            # Written even if this request added the item: a parallel request on this server may have added it too.
            self._values[item] = REMOVED
        self._forget(name)

    def append_to(self, name: str, value: Any, *, keep: int | None = None) -> None:
        """Append a value to a list so that parallel appends, here and on other servers, all count.

        `session[name]` is then a tuple in the order of the writes, the same on every server. A list or tuple that was
        assigned to the field before becomes such a list.

        Args:
            name: the field.
            value: any value that can be stored.
            keep: how many values stay, this one included: older ones are removed.

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

        The fields of an anonymous session, or of the same user's, stay. If the session belonged to another user, or was ended
        in this request, it ends on every server, and the new one starts empty.

        Args:
            subject: the user's id.
            keep: names of fields that stay even if the session belonged to another user, or was ended.

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
            given = given if subject != "" else "an empty text"
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
        """Load what other requests have changed since this one began. For WebSockets and other long requests.

        If this server is sure to hold the newest state, it is loaded at once, and the result need not be awaited. Otherwise
        `await session.reload()` asks the other holders; without an event loop the call blocks. Changes of this request that
        are not committed yet stay. The call counts as a use of the session, which keeps it alive.

        Raises:
            SessionEnded: the session was ended, or has expired.
            SessionRotated: the session has a new id. The request may read what it has loaded, but not write.
        """
        self.open()
        if self._verb is not Verb.KEEP or self._ends:
            raise SessionConflict(
                "session.reload() after login, rotate or logout in the same request: commit comes first"
            )
        return self._opener.reload(self)

    async def until_ended(self) -> None:
        """Wait until the session is over: ended on any server, rotated, or expired.

        Run it in a task beside the one that serves the socket. Returns at once for a session that is not stored.
        """
        await self._opener.until_ended(self)

    def rotate(self) -> None:
        """Give the session a new id. Call this whenever the rights of its user change.

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
            if data and SEPARATOR not in name:  # a collection, or bytes copied because this server cannot read them
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
        try:  # inlined from `_read`, to save a call for each value
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
        """Copy fields from a session that was ended in this request, unless they were set since."""
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
        """Copy a set or a list that merges, item by item. This works for items that this server cannot read, too."""
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
        """The encoding of a field's value; for a collection, its kind."""
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
            return codec.encode(value, bytes_max=sys.maxsize)  # the size is checked against the setting later
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
        """Remember an assignment or a removal, unless it changes nothing."""
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
        """The values of a collection."""
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
        """After a commit, forget the collections that were read, so that items of parallel requests show. Mutable ones stay."""
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
        """Check that the field is absent or a collection of this kind. A plain list or set is converted to one."""
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
        """Turn the values of a plain list or set into items.

        Servers that convert the same field in parallel must give the same names to the same items. So the items of a list are
        named after the stamp of the assignment that they come from, unless this request has changed the list in place.
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
        """Add an item. It is written even if it is there already, so that a parallel removal does not remove it."""
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
        """Remove the items of a collection that is itself being replaced or removed."""
        for item in dict.fromkeys((*items.items_of(self._entries, name), *items.items_of(self._values, name))):
            if self._is_exact:
                self._added_bytes -= self._size_of(item)
            if item in self._entries:
                self._values[item] = REMOVED
            else:
                self._values.pop(item, None)

    def _check_items(self) -> None:
        """Raise EncodeError if an item of a collection was changed in place: it is unknown which of the items changed."""
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
        """Check that the session has room for this value, before anything is changed.

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
        """Bytes of a field's name and value; 0 for a removed field."""
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
        """Check the name of a new field, or of a new item of `field`, and the number of fields, items included."""
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
    """The session of a connection that stays open, such as a WebSocket: each read counts as a use."""

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
