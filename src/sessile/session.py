"""The mapping a handler touches, which knows what was read from it and what was changed in it.

A `Session` is opened at its first touch, by the function it was given; values are decoded when they are first read. What
the handler did is asked for once, as `Changes`: assignments, removals, increments, and mutable values that are no longer
what they were when they were handed out. It belongs to one request and is not shared between threads.

It knows records and values, nothing of cookies, tables, clocks or peers.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from msgspec import Struct, structs

from sessile import codec
from sessile.changes import Changes, Verb
from sessile.codec import IMMUTABLE
from sessile.errors import (
    DecodeError,
    EncodeError,
    FieldUnreadable,
    SessionConflict,
    SessionRotated,
    SessionTooLarge,
    SessionTooLate,
)
from sessile.record import REMOVED, Entry, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator

    from sessile.token import SessionKey

__all__ = ["LastingSession", "Limits", "Opened", "Opener", "Session"]

NAME_BYTES_MAX: Final = 255
INCREMENT_MAX: Final = 2**53
WROTE_ROTATED: Final = "this request came with the id of before a rotation: it may read, but not write"
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
        subject = self._subject
        if subject is None:
            subject = "" if self._opened.record is None else self._opened.record.subject
        return Changes(self._verb, subject, self._ends, self._values, self._increments)

    def rebase(self, opened: Opened) -> None:
        """Go on from this record: what was changed is kept in it. Values handed out stay the same objects."""
        self._opened = opened
        self.is_committed = True
        self.may_have_changed = bool(self._handed)
        self._is_ready = False  # as a rule nobody touches it again, and there is nothing to make ready

    def renew(self, opened: Opened) -> None:
        """Go on from a newer state of the same session. What was changed and not committed yet stays."""
        if self._handed:
            self._take_mutated()
        kept = {name: self._decoded[name] for name in (*self._values, *self._increments) if name in self._decoded}
        self._opened = opened
        self._entries = {} if opened.record is None else opened.record.fields
        self._decoded = {name: value for name, value in kept.items() if name not in self._increments}
        self._handed = {name: data for name, data in self._handed.items() if name in self._decoded}
        self.may_have_changed = bool(self._handed or self._values or self._increments)
        for name, by in self._increments.items():
            present = Session.__getitem__(self, name) if self._has_entry(name) else 0
            self._decoded[name] = present + by if type(present) is int else kept[name]

    def _has_entry(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.is_present

    def touch(self, now_ms: int) -> None:
        """Go on from the same state, as of a later use."""
        if self._opened.record is not None:
            self._opened = structs.replace(self._opened, record=self._opened.record.touch(now_ms))

    def discard(self) -> None:
        """Forget what was changed: the session is over, and whatever the handler does next has nothing to keep."""
        self._handed = {}
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
        if not isinstance(subject, str) or not 0 < len(subject.encode()) <= NAME_BYTES_MAX:
            raise TypeError(f"session.login takes a subject of 1 to {NAME_BYTES_MAX} bytes, not {subject!r}")
        if isinstance(keep, str):
            raise TypeError(f"session.login(..., keep={keep!r:.60}) takes several names: give ({keep!r:.60},)")
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

    # -- the mapping -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        if not self._is_ready:
            self.open()
        if name in self._decoded:
            return self._decoded[name]
        entry = self._entries.get(name)
        if entry is None or name in self._values:
            if self._values.get(name):  # taken over as bytes, since this server cannot read it
                return self._read(name, self._values[name])
            raise KeyError(name)
        data = entry.value
        if not data and not entry.additions:
            raise KeyError(name)
        try:  # here and not in `_read`, which would be a call more for each value
            value: Any = codec.decode(data) if data else 0
        except DecodeError as error:
            raise _unreadable(name, error) from None
        if entry.additions:
            value = value + entry.added if type(value) is int else value
        elif type(value) not in IMMUTABLE and codec.is_mutable(value):
            self._handed[name] = data
            self.may_have_changed = True
        self._decoded[name] = value
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._open_to_write()
        if self.is_head_sent:
            self._check_has_id(f"session[{name!r:.60}] = ...")
        data = self._encode(name, value)
        self._check_room(name, data)
        if type(value) not in IMMUTABLE and codec.is_mutable(value):
            self._handed[name] = data
        elif self._handed:
            self._handed.pop(name, None)
        self._note(name, data)
        self._decoded[name] = value

    def __delitem__(self, name: str) -> None:
        self._open_to_write()
        if name not in self:
            raise KeyError(name)
        self._decoded.pop(name, None)
        self._handed.pop(name, None)
        if self._is_exact:
            kept = len(name.encode()) if name in self._entries else 0
            self._added_bytes -= self._size_of(name) - kept
        self._note(name, REMOVED)

    def __iter__(self) -> Iterator[str]:
        self.open()
        names = [name for name, entry in self._entries.items() if entry.is_present]
        if self._values or self._increments:
            every = dict.fromkeys((*names, *self._values, *self._increments))
            names = [name for name in every if self._values.get(name) != REMOVED]
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        self.open()
        if not isinstance(name, str):
            return False
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

    def _keep(self, ended: Session, names: Collection[str]) -> None:
        """Take fields over from a session that was ended in this request, unless they were set since."""
        for name in names:
            if name not in ended or name in self:
                continue
            try:
                self[name] = ended[name]
            except FieldUnreadable:
                data = ended._entries[name].value
                self._check_room(name, data)
                self._note(name, data)

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
        try:
            data = codec.encode(value)
        except EncodeError as error:
            raise EncodeError(f"session[{name!r}]: {error}") from None
        if len(data) > self._limits.value_bytes:
            raise SessionTooLarge(
                f"session[{name!r}] takes {len(data)} bytes; value_bytes_max is {self._limits.value_bytes}: "
                "raise it, or keep the value elsewhere and its key in the session"
            )
        return data

    def _note(self, name: str, data: bytes) -> None:
        """Remember an assignment or a removal; one that changes nothing is none."""
        if self._increments:
            self._increments.pop(name, None)
        entry = self._entries.get(name)
        if data != (REMOVED if entry is None else entry.value) or (entry is not None and entry.additions):
            self._values[name] = data
        elif self._values:
            self._values.pop(name, None)

    def _take_mutated(self) -> None:
        for name, before in list(self._handed.items()):
            data = self._encode(name, self._decoded[name])
            if data != before:
                self._check_room(name, data)
                self._handed[name] = data
                self._note(name, data)

    def _check_room(self, name: str, data: bytes, extra: int = 0) -> None:
        """See that the session has room for this, before anything is changed.

        At first the sizes of replaced values are not subtracted, so the sum is too high. When it reaches the limit it is made
        exact, and from then on it is kept exact, name by name, since a handler may assign thousands of fields.
        """
        if name not in self._entries and name not in self._values and name not in self._increments:
            self._check_name(name)
        limit = self._limits.session_bytes - self._opened.packed_bytes
        name_bytes = len(name) if name.isascii() else len(name.encode())
        added = self._added_bytes + name_bytes + len(data) + extra
        if added > limit or self._is_exact:
            if not self._is_exact:
                self._is_exact = True
                names = dict.fromkeys((*self._entries, *self._values, *self._increments))
                self._added_bytes = sum(map(self._size_of, names)) - self._opened.packed_bytes
            added = self._added_bytes + name_bytes + len(data) + extra
            if name in self._entries or name in self._values or name in self._increments:
                added -= name_bytes if extra else self._size_of(name)
            if added > max(limit, self._added_bytes):  # parallel writes may have made it larger; it may still shrink
                size = added + self._opened.packed_bytes
                raise SessionTooLarge(
                    f"session[{name!r}] would make the session {size} bytes; session_bytes_max is "
                    f"{self._limits.session_bytes}: raise it, or keep large values elsewhere and their keys here"
                )
        self._added_bytes = added

    def _size_of(self, name: str) -> int:
        """Bytes of a field's name and value, or of its tombstone."""
        size = len(name.encode()) + ADDITION_BYTES * (name in self._increments)
        value = self._values.get(name)
        if value is not None:
            return size + len(value)
        entry = self._entries.get(name)
        return size if entry is None else size + len(entry.value) + ADDITION_BYTES * len(entry.additions)

    def _check_name(self, name: str) -> None:
        """Look at a name that is new here. Removed ones count: their tombstones live as long as the session."""
        if type(name) is not str:
            raise TypeError(f"a session's field is named by a str, not {type(name).__name__}")
        if not name.isprintable() or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"a session's field is named by 1 to {NAME_BYTES_MAX} printable bytes, not {name[:40]!r}")
        count = 1 + len(self._entries) + len(self._values) + len(self._increments)
        if count > self._limits.fields:  # until here changed fields are counted twice
            count = 1 + len(self._entries) + len((self._values.keys() | self._increments.keys()) - self._entries.keys())
        if count > self._limits.fields:
            raise SessionTooLarge(
                f"session[{name!r}] would be field {count}, removed ones included; fields_max is "
                f"{self._limits.fields}: raise it, or keep one field with a dict in it"
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


def _unreadable(name: str, why: DecodeError) -> FieldUnreadable:
    return FieldUnreadable(
        f"session[{name!r:.60}] cannot be read by this server, and stays as it is: {why}; register a new class "
        "(sessile.classes.register) one deployment before sessions hold objects of it",
        name,
    )
