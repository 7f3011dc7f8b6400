"""A node that was away asks what ended meanwhile before it answers for old copies.

A process that was stopped, or whose machine slept, comes back with copies of sessions that may have ended meanwhile. From the
end of its lease (`pulse.py`) until every member that it can reach has sent it the sessions that ended, at most `PATIENCE_MS`,
it is sure of no live session: its engine asks another holder, and other nodes do not rely on its answers.

A short absence must cost little, or its questions would take even more from a process that is short of processor time. So the
answer lists only the ends that the peer has learned since the lease began. It lists all ends that the peer remembers if the
absence is too long for that.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sessile.ends import MARK
from sessile.errors import WireError
from sessile.record import LIVE
from sessile.replication.messages import TombstonesAsked, TombstonesTold
from sessile.replication.replica import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.record import Record
    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Tombstones"]

BATCH_BYTES: Final = 64 * 2**10
PATIENCE_MS: Final = 2_000
"""Who has not told in so long is not waited for: it is gone, or on the other side of a partition."""
RECENT_MAX: Final = 10_000
"""At most this many ends are listed in the order in which they were learned."""
BATCH_MARKS: Final = 5_000
"""Ends without tombstones in one message: 64 KB."""
MARKS_MAX: Final = 100_000
"""After this many of them the table is looked through."""
OVERLAP_MS: Final = 30_000
"""The answer also lists ends from this long before the absence: one may have been on its way when it began, or only at another
member, from which two passes of repair bring it."""


class Tombstones:
    """Who has still to tell this node what ended; `changed(key, record)` hears of each that was told."""

    def __init__(
        self, context: Context, changed: Callable[[SessionKey, Record], None], settled: Callable[[], None]
    ) -> None:
        self._context = context
        self._changed = changed
        self._settled = settled
        self._missing: set[str] = set()
        self._absences = 0
        self.told: set[str] = set()
        """The members that have sent this node their ends since it started, or started over."""
        self._certain_ms = 0
        """Before this time this node knows every end."""
        self._recent: deque[tuple[int, SessionKey]] = deque()
        """The ends that were made or learned here since `_recent_since_ms`, each with its time."""
        self._recent_since_ms = context.now_ms
        self._marks: set[bytes] = set()
        """Ends that were told without tombstones, and that no copy here was held against yet."""

    def was_away(self, since_ms: int) -> None:
        """Ask every peer for the ends that this node may have missed since then."""
        context = self._context
        context.counts["absences"] += 1
        self._absences += 1
        absence = self._absences
        if not self._missing:  # otherwise the ends of an earlier absence are still missing
            self._certain_ms = since_ms
        self._missing = set(context.membership.known())
        for peer in context.peers.values():
            context.send(peer, TombstonesAsked(absence, context.now_ms - self._certain_ms))
        context.alarm(PATIENCE_MS, lambda: self._give_up(absence))
        self._check()

    def greeted(self, peer: Peer) -> None:
        """A link is there: ask, since one side may know of ends that the other does not.

        Of a peer whose process is new to this one everything is asked for, or else what it may have learned since the last link.
        """
        self._context.send(peer, TombstonesAsked(self._absences, peer.away_ms))

    def learned(self, key: SessionKey) -> None:
        """Note an end that was made here or came from a peer."""
        self._recent.append((self._context.now_ms, key))
        if len(self._recent) > RECENT_MAX:
            self._recent_since_ms = self._recent.popleft()[0] + 1

    def gone(self, name: str) -> None:
        """This member will not tell."""
        self._missing.discard(name)
        self._check()

    def take_asked(self, peer: Peer, message: TombstonesAsked) -> None:
        """Send the ends that are remembered here."""
        context = self._context
        number = message.number
        is_all, ends = self._asked_for(message.ago_ms)
        for marks in context.replica.table.ends.told(context.now_ms, batch=BATCH_MARKS) if is_all else ():
            context.send(peer, TombstonesTold(context.now_ms, (), is_last=False, number=number, marks=marks))
        items: list[tuple[bytes, bytes]] = []
        size = 0
        for key, packed in ends:
            items.append((key, packed))
            size += len(packed)
            if size > BATCH_BYTES:
                context.send(peer, TombstonesTold(context.now_ms, tuple(items), is_last=False, number=number))
                items, size = [], 0
        context.send(peer, TombstonesTold(context.now_ms, tuple(items), is_last=True, number=number))

    def _asked_for(self, ago_ms: int) -> tuple[bool, Iterator[tuple[SessionKey, bytes]]]:
        """The ends to send to a peer that knows every older end; and whether these are all ends, so that marks follow."""
        context = self._context
        overlap_ms = max(OVERLAP_MS, 2 * context.config.ack_timeout_ms)
        since_ms = context.now_ms - ago_ms - overlap_ms
        if ago_ms < 0 or since_ms < self._recent_since_ms:
            return True, context.replica.tombstones()
        return False, self._learned_since(since_ms)

    def _learned_since(self, since_ms: int) -> Iterator[tuple[SessionKey, bytes]]:
        context = self._context
        for learned_ms, key in reversed(self._recent):
            if learned_ms < since_ms:
                return
            record = context.replica.get(key) or context.replica.table.remembered(key, context.now_ms)
            if record is not None and record.state != LIVE:  # after starting over, a live record may be held
                yield key, record.pack()

    def take_told(self, peer: Peer, message: TombstonesTold) -> None:
        """Take over what ended."""
        context = self._context
        self._take_marks(message)
        for key, data in message.items:
            record = context.replica.read(data, context.now_ms - message.now_ms)
            if record is None or len(key) != KEY_BYTES:
                context.refuse("refused", f"{peer.name} sent a malformed or oversized end", key[:KEY_BYTES])
                continue
            if record.state == LIVE:
                raise WireError(f"{peer.name} tells of an end that is none")
            merged = context.replica.merge(key, record, context.now_ms)
            assert merged is not None, "an end always finds room"
            self._changed(key, merged)
        if message.is_last:
            self.told.add(peer.name)
        if message.is_last and message.number == self._absences:
            self.gone(peer.name)

    def _take_marks(self, message: TombstonesTold) -> None:
        """Take over ends of which there are no tombstones. Looking through the table for them is done for many at once."""
        context = self._context
        table = context.replica.table
        if len(message.marks) % MARK.size:
            raise WireError(f"ends without tombstones take {MARK.size} bytes each, and {len(message.marks)} bytes came")
        self._marks |= table.ends.take(message.marks, context.now_ms)
        if message.is_last or len(self._marks) > MARKS_MAX:
            for key, record in table.end_marked(self._marks, context.now_ms):
                self._changed(key, record)
            self._marks = set()

    def _give_up(self, absence: int) -> None:
        if absence == self._absences:
            self._missing.clear()
            self._check()

    def _check(self) -> None:
        if not self._missing:
            self._settled()
