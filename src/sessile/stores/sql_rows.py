"""A session as a row, and back: what is kept in columns, what in bytes, and whether a row's time has come.

A row's times are on the database's clock and come with that clock's `now_ms`, read by the same statement; a record that
leaves here carries durations. What has run out of time is not there, swept or not.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record

if TYPE_CHECKING:
    from sessile.record import Version

__all__ = ["IDLE_SLACK", "Keep", "Row", "bare_end", "digest_of", "due_in_ms", "kept", "shown", "timeless"]

IDLE_SLACK: Final = 10
"""A store does not serve, it holds: a tenth of the idle timeout longer, since word of the last use may be on its way."""
_DIGEST_BYTES: Final = 8


class Keep(NamedTuple):
    """How long what is over is remembered."""

    tombstone_keep_ms: int
    """Counts from the session's own deadline: a copy's deadline is late by as long as the message took."""
    rotation_grace_ms: int

    @property
    def beyond_ms(self) -> int:
        return max(self.tombstone_keep_ms, self.rotation_grace_ms)


class Row(NamedTuple):
    """What a row says, with the time at which it said so; named as the columns."""

    session_key: bytes
    now_ms: int
    revision: int
    idle_ms: int
    deadline_ms: int
    touched_ms: int
    ended_ms: int
    state: int
    record: bytes | None
    """None where the reader has it."""

    def is_over(self, keep: Keep) -> bool:
        """Whether it is as good as removed."""
        return self.now_ms >= self._due_ms(keep)

    def content(self) -> Record:
        """The record without its times.

        Raises:
            RecordError: the row's bytes are no record.
        """
        assert self.record is not None, "only what was asked for can be read"
        return Record.parse(self.record)

    def timed(self, content: Record) -> Record:
        """This content with the row's times, as durations."""
        return Record(
            content.state,
            self.idle_ms,
            self.deadline_ms - self.now_ms,
            self.touched_ms - self.now_ms,
            self.ended_ms - self.now_ms if content.state else 0,
            content.subject,
            content.version,
            content.head_places,
            content.fields,
        )

    def _due_ms(self, keep: Keep) -> int:
        if self.state == LIVE:
            return min(self.touched_ms + self.idle_ms + self.idle_ms // IDLE_SLACK, self.deadline_ms)
        return max(self.deadline_ms, self.ended_ms) + keep.beyond_ms


def timeless(record: Record) -> Record:
    """The record as its bytes have it: whatever a column says is nought."""
    return Record(record.state, 0, 0, 0, 0, record.subject, record.version, record.head_places, record.fields)


def bare_end(content: Record) -> Record:
    """The end alone of a session, which needs neither fields nor a version."""
    return Record(max(content.state, ENDED), 0, 0, 0, 0, content.subject, {}, (), {})


def shown(record: Record, keep: Keep) -> Record:
    """A record for whoever asks, from its durations: of a rotated session the fields only while its grace lasts."""
    if record.state == ROTATED and record.ended_ms + keep.rotation_grace_ms <= 0:
        return record.end(REPLACED, record.ended_ms)
    return record


def due_in_ms(record: Record, keep: Keep) -> int:
    """After which time something becomes of the record by itself, from its durations."""
    if record.state == LIVE:
        return min(record.touched_ms + record.idle_ms + record.idle_ms // IDLE_SLACK, record.deadline_ms)
    if record.state == ROTATED:
        return record.ended_ms + keep.rotation_grace_ms
    return max(record.deadline_ms, record.ended_ms) + keep.beyond_ms


def digest_of(state: int, version: Version) -> int:
    """Eight bytes over what a reader compares, as SQL's largest integer: times have no part in it."""
    said = repr((state, sorted(version.items()))).encode()
    return int.from_bytes(blake2b(said, digest_size=_DIGEST_BYTES, person=b"sessile sql").digest(), "big", signed=True)


def kept(content: Record) -> dict[str, Any]:
    """What a statement needs to know of a content."""
    return {
        "new_state": content.state,
        "new_digest": digest_of(content.state, content.version),
        "new_record": content.pack(),
    }
