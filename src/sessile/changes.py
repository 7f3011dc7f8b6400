"""What a handler did to a session, and what that is against a record which others may have changed meanwhile.

Pure functions on data: no cookies, no table, no clock.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sessile import codec
from sessile.errors import DecodeError, SessionEnded, SessionRotated
from sessile.record import ENDED, REMOVED, ROTATED, TOTAL_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Entry, Record

__all__ = ["Changes", "Verb", "carried_over", "check_is_live", "rebased"]


class Verb(enum.Enum):
    """What becomes of the session's id."""

    KEEP = "keep"
    ROTATE = "rotate"
    """A new id for the same session."""
    LOGIN = "login"
    """A new id, a new subject and a new absolute timeout."""


class Changes(Struct, frozen=True, gc=False):
    """What a handler did to a session since it was opened, or since its changes were last taken."""

    verb: Verb
    subject: str
    """Whom the session is bound to from now on."""
    ends: bool
    """Whether the session that was opened is over; everything else is then about a new one."""
    values: dict[str, bytes]
    """Name → encoded value, or `REMOVED`."""
    increments: dict[str, int]

    def __bool__(self) -> bool:
        return self.ends or self.verb is not Verb.KEEP or bool(self.values or self.increments)


def check_is_live(current: Record, now_ms: int) -> None:
    """Let pass what may still be changed.

    Raises:
        SessionRotated: it has a new id.
        SessionEnded: it is over.
    """
    if current.state == ROTATED:
        raise SessionRotated("the session got a new id meanwhile: what this request changed was not stored")
    if current.state >= ENDED or current.expires_ms() <= now_ms:
        raise SessionEnded("the session was ended meanwhile: what this request changed was not stored")


def rebased(current: Record, changes: Changes, seen: Callable[[str], Any]) -> tuple[dict[str, bytes], dict[str, int]]:
    """Assignments and increments as they apply to the record as it stands now.

    What was an integer when it was incremented may be none by now, and a running sum may be about to leave 64 bits. Such
    an increment becomes an assignment of what the handler saw.

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
        is_none = bool(entry.value) and not _is_int(entry.value)
        if is_none or any(abs(total) + abs(by) > TOTAL_MAX for _, _, total in entry.additions):
            values = {**values, name: codec.encode(seen(name))}
            increments = {other: amount for other, amount in increments.items() if other != name}
    return values, increments


def carried_over(current: Record, changes: Changes, seen: Callable[[str], Any]) -> dict[str, bytes]:
    """Every field that a session has after these changes, as assignments for a new record: counters are folded."""
    values = {name: _folded(current.fields[name]) for name in current.names()}
    changed, increments = rebased(current, changes, seen)
    for name, by in increments.items():
        counted: Any = codec.decode(values[name]) if name in values else 0
        values[name] = codec.encode(counted + by)
    values |= changed
    return {name: value for name, value in values.items() if value != REMOVED}


def _is_int(data: bytes) -> bool:
    """Whether this is the encoding of an int; what this server cannot read is none."""
    try:
        return type(codec.decode(data)) is int
    except DecodeError:
        return False


def _folded(entry: Entry) -> bytes:
    """The value of a field as one assignment."""
    if not entry.additions:
        return entry.value
    if entry.value and not _is_int(entry.value):
        return entry.value
    base: Any = codec.decode(entry.value) if entry.value else 0
    return codec.encode(base + entry.added)
