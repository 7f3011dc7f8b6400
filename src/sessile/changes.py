"""The changes that a handler made to a session, and how they apply to a record that others have changed meanwhile.

Pure functions on data: no cookies, no table, no clock.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sessile import codec, items
from sessile.errors import DecodeError, SessionEnded, SessionRotated
from sessile.record import ENDED, REMOVED, ROTATED, TOTAL_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Entry, Record

__all__ = ["Changes", "Verb", "carried_over", "check_is_live", "rebased", "shown"]


class Verb(enum.Enum):
    """What happens to the session's id."""

    KEEP = "keep"
    ROTATE = "rotate"
    """A new id for the same session."""
    LOGIN = "login"
    """A new id, a new subject and a new absolute timeout."""


class Changes(Struct, frozen=True, gc=False):
    """What a handler did to a session since it was opened, or since its changes were last taken."""

    verb: Verb
    subject: str
    """The user the session is bound to from now on; empty for an anonymous session."""
    ends: bool
    """Whether the opened session ends. All other changes then apply to a new session."""
    values: dict[str, bytes]
    """Name → encoded value, or `REMOVED`."""
    increments: dict[str, int]

    def __bool__(self) -> bool:
        return self.ends or self.verb is not Verb.KEEP or bool(self.values or self.increments)


def check_is_live(current: Record, now_ms: int) -> None:
    """Check that the session may still be changed.

    Raises:
        SessionRotated: the session has a new id.
        SessionEnded: the session is over.
    """
    if current.state == ROTATED:
        raise SessionRotated("the session got a new id meanwhile: what this request changed was not stored")
    if current.state >= ENDED or current.expires_ms() <= now_ms:
        raise SessionEnded("the session was ended meanwhile: what this request changed was not stored")


def rebased(current: Record, changes: Changes, seen: Callable[[str], Any]) -> tuple[dict[str, bytes], dict[str, int]]:
    """Assignments and increments as they apply to the record as it stands now.

    A field that was an integer when it was incremented may hold something else by now, or its sum may be about to exceed
    64 bits. Such an increment becomes an assignment of the value that the handler saw. A field that is assigned or removed
    may be a collection by now: its items are removed with it.

    Args:
        current: the record as it stands.
        changes: what the handler did.
        seen: name → the value the handler sees.
    """
    values, increments = changes.values, changes.increments
    for name, by in list(increments.items()):
        entry = current.fields.get(name)
        if entry is None:
            continue
        data, _ = entry.read()
        totals = [item for _, _, item in entry.rest if not isinstance(item, bytes)]
        if (data and not _is_int(data)) or any(abs(total) + abs(by) > TOTAL_MAX for total in totals):
            values = {**values, name: codec.encode(seen(name))}
            increments = {other: amount for other, amount in increments.items() if other != name}
    if removed := items.removed_with(current, values):
        values = values | removed
    return values, increments


def carried_over(current: Record, changes: Changes, seen: Callable[[str], Any]) -> dict[str, bytes]:
    """Every field that a session has after these changes, as assignments for a new record. Counters become plain ints."""
    values = {name: _folded(current.fields[name]) for name in current.names()}
    changed, increments = rebased(current, changes, seen)
    for name, by in increments.items():
        counted: Any = codec.decode(values[name]) if name in values else 0
        values[name] = codec.encode(counted + by)
    values |= changed
    values = {name: value for name, value in values.items() if value != REMOVED}
    return items.carried(current, changed, values)


def shown(record: Record) -> dict[str, Any]:
    """Every field of a session, as its handlers see it. Raises DecodeError if this server cannot read one of them."""
    values: dict[str, Any] = {}
    for name in record.names():
        data = _folded(record.fields[name])
        if items.is_kind(data):
            held = items.ordered(record, {}, name, data)
            values[name] = tuple(items.value_of(item, value) for item, value in held)
        elif items.SEPARATOR not in name:
            values[name] = codec.decode(data)
    return values


def _is_int(data: bytes) -> bool:
    """Whether this is the encoding of an int. False for data that this server cannot read."""
    try:
        return type(codec.decode(data)) is int
    except DecodeError:
        return False


def _folded(entry: Entry) -> bytes:
    """The value of a field as one assignment."""
    data, added = entry.read()
    if not entry.rest or (data and not _is_int(data)):
        return data
    base: Any = codec.decode(data) if data else 0
    return codec.encode(base + added)
