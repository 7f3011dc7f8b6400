"""What other nodes tell this one about sessions, and what it says to it.

A change is taken by the rule of `delta.apply`: who lacks what it builds on denies it, and is sent the whole record. A
writer that lacks something which this node has is told before its change is acknowledged, so that it answers nobody
with less. Acknowledgements are cumulative: one for all that one read of the socket brought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.delta import Addition, Delta, Outcome
from sessile.errors import RecordError, SessionLimit, SessionTooLarge, WireError
from sessile.record import LIVE, Stamp
from sessile.replication.messages import Acked, Changed, Denied, Told, Whole
from sessile.replication.replica import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Record
    from sessile.replication.context import Context
    from sessile.replication.messages import Touched
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["DENIALS", "LEAVING", "NEED", "NO_ROOM", "REFUSED", "Intake", "delta_of", "message_of"]

NEED: Final = 0
NO_ROOM: Final = 1
LEAVING: Final = 2
REFUSED: Final = 3
"""Why a change is denied."""
DENIALS: Final = {NEED: "need", NO_ROOM: "no_room", LEAVING: "leaving", REFUSED: "refused"}


class Intake:
    """Takes changes of others into this node's copies; `changed(key, record)` hears of each."""

    def __init__(self, context: Context, changed: Callable[[SessionKey, Record], None]) -> None:
        self._context = context
        self._changed = changed

    def take_changed(self, peer: Peer, message: Changed) -> None:
        """Apply one write. One beyond the limits is refused alone; raises WireError for one that breaks the protocol."""
        peer.received += 1
        context = self._context
        try:
            delta = delta_of(message, peer.writer)
        except RecordError as error:
            self._refuse(peer, message.key, str(error))
            return
        if context.is_leaving:
            context.send(peer, Denied(peer.received, delta.key, LEAVING))
            return
        try:
            outcome, record = context.replica.apply(delta, context.now_ms)
        except SessionLimit:
            context.counts["no_room"] += 1
            context.send(peer, Denied(peer.received, delta.key, NO_ROOM))
            return
        except SessionTooLarge as error:
            self._refuse(peer, delta.key, str(error))
            return
        context.counts[outcome.value] += 1
        if outcome is Outcome.NEED:
            context.send(peer, Denied(peer.received, delta.key, NEED))
            return
        assert record is not None, "what was applied or known is held"
        if outcome is Outcome.APPLIED:
            if len(record.head_places) > 1 or record.state != LIVE:
                self._tell(peer, delta.key)
            self._changed(delta.key, record)

    def take_whole(self, peer: Peer, message: Whole) -> None:
        """Hold these whole records. If one of them cannot be held, the message is denied, and the others are held."""
        peer.received += 1
        context = self._context
        records = [
            (key, context.replica.read(data, context.now_ms - message.now_ms) if len(key) == KEY_BYTES else None)
            for key, data in message.items
        ]
        if context.is_leaving and not all(record is not None and record.state != LIVE for _, record in records):
            context.send(peer, Denied(peer.received, records[0][0], LEAVING))  # a node that leaves still takes ends
            return
        denied: tuple[bytes, int] | None = None
        for key, record in records:
            too_large = context.counts["too_large"]
            merged = None if record is None else context.replica.merge(key, record, context.now_ms)
            if record is None or merged is None:  # the other records are held
                denied = (key, REFUSED if record is None or context.counts["too_large"] > too_large else NO_ROOM)
                continue
            if merged.version != record.version or merged.state != record.state:
                self._tell(peer, key)
            self._changed(key, merged)
        if denied is not None:
            key, why = denied
            if why == REFUSED:
                self._refuse(peer, key, "a whole record that is malformed or beyond limits")
            else:
                context.send(peer, Denied(peer.received, key, why))

    def take_told(self, peer: Peer, message: Told) -> None:
        """Merge what this node lacks of records that it holds, or should hold. A malformed record is refused alone."""
        context = self._context
        for key, data in message.items:
            record = context.replica.read(data, context.now_ms - message.now_ms)
            if record is None or len(key) != KEY_BYTES:
                context.refuse("refused", f"{peer.name} sent a malformed or oversized record", key[:KEY_BYTES])
                continue
            table = context.replica.table
            is_alive = record.state == LIVE
            if (
                is_alive
                and table.get(key) is None
                and not table.has_ended(key)
                and not context.placement.is_holder(key)
            ):
                continue
            merged = context.replica.merge(key, record, context.now_ms)
            if merged is not None:
                if is_alive and merged.state != LIVE:
                    self._tell(peer, key)
                self._changed(key, merged)

    def take_touched(self, peer: Peer, message: Touched) -> None:
        """Sessions that were used elsewhere."""
        del peer
        context = self._context
        for key, ago_ms in message.items:
            context.replica.touch(key, context.now_ms - max(ago_ms, 0))

    def acknowledge(self, peer: Peer) -> None:
        """Say that everything up to here was looked at."""
        if peer.received != peer.received_acked:
            peer.received_acked = peer.received
            self._context.send(peer, Acked(peer.received))

    def _refuse(self, peer: Peer, key: bytes, problem: str) -> None:
        """Refuse one record for good; the link stays up."""
        key = key if len(key) == KEY_BYTES else b""
        self._context.refuse("refused", problem, key)
        self._context.send(peer, Denied(peer.received, key, REFUSED))

    def _tell(self, peer: Peer, key: SessionKey) -> None:
        packed = self._context.replica.table.get(key)
        assert packed is not None, "what was just taken is held"
        self._context.counts["told"] += 1
        self._context.send(peer, Told(self._context.now_ms, ((key, packed),)), is_spare=True)


def delta_of(message: Changed, announced: int) -> Delta:
    """The write that a message tells of; raises RecordError or WireError where there is none in it."""
    writer = message.writer or announced
    if not writer:
        raise WireError("a change of a writer that was not announced")
    base = message.base
    heads = (Stamp(message.counter - base, writer),) if isinstance(base, int) else tuple(Stamp(*head) for head in base)
    additions = {name: Addition(*parts) for name, parts in (message.additions or {}).items()}
    delta = Delta(message.key, heads, Stamp(message.counter, writer), message.values, additions)
    delta.check()
    return delta


def message_of(delta: Delta, announced: int) -> Changed:
    """A write as it travels from the node whose announced tag this is."""
    counter, writer = delta.stamp
    base: int | tuple[Stamp, ...] = delta.base
    if len(delta.base) == 1 and delta.base[0].writer == writer:
        base = counter - delta.base[0].counter
    additions = {name: (each.counter, each.writer, each.total) for name, each in delta.additions.items()}
    return Changed(delta.key, counter, 0 if writer == announced else writer, base, delta.values, additions or None)
