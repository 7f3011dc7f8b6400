"""A node that was away asks what ended meanwhile before it answers for old copies.

A process that was stopped, or whose machine slept, comes back with copies of sessions that may have ended without it. From
the moment it notices that its own loop was late until every member it can reach has told it which sessions ended, it is not
sure of anything live: its engine asks others, and others ask elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.errors import WireError
from sessile.record import LIVE
from sessile.replication.messages import TombstonesAsked, TombstonesTold
from sessile.replication.replica import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.record import Record
    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Tombstones"]

BATCH_BYTES: Final = 64 * 2**10
PATIENCE_MS: Final = 2_000
"""Who has not told in so long is not waited for: it is gone, or on the other side of a partition."""


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

    @property
    def is_sure(self) -> bool:
        return not self._missing

    def was_away(self) -> None:
        """This node's own loop was late by more than others wait for."""
        context = self._context
        context.counts["absences"] += 1
        self._absences += 1
        absence = self._absences
        self._missing = set(context.membership.known())
        for peer in context.peers.values():
            context.send(peer, TombstonesAsked())
        context.alarm(PATIENCE_MS, lambda: self._give_up(absence))
        self._check()

    def greeted(self, peer: Peer) -> None:
        """A link is there: ask, since one side may know of ends that the other does not."""
        self._context.send(peer, TombstonesAsked())

    def gone(self, name: str) -> None:
        """This member will not tell."""
        self._missing.discard(name)
        self._check()

    def take_asked(self, peer: Peer, message: TombstonesAsked) -> None:
        """Tell all that ended, as far as it is remembered here."""
        del message
        context = self._context
        items: list[tuple[bytes, bytes]] = []
        size = 0
        for key, packed in context.replica.tombstones(context.now_ms):
            items.append((key, packed))
            size += len(packed)
            if size > BATCH_BYTES:
                context.send(peer, TombstonesTold(context.now_ms, tuple(items), is_last=False))
                items, size = [], 0
        context.send(peer, TombstonesTold(context.now_ms, tuple(items), is_last=True))

    def take_told(self, peer: Peer, message: TombstonesTold) -> None:
        """Take over what ended."""
        context = self._context
        for key, data in message.items:
            record = context.replica.read(data, context.now_ms - message.now_ms)
            if record is None or len(key) != KEY_BYTES:
                context.refuse(
                    "refused", f"an end that {peer.name} tells is no record, or beyond limits", key[:KEY_BYTES]
                )
                continue
            if record.state == LIVE:
                raise WireError(f"{peer.name} tells of an end that is none")
            merged = context.replica.merge(key, record, context.now_ms)
            if merged is not None:
                self._changed(key, merged)
        if message.is_last:
            self.gone(peer.name)

    def _give_up(self, absence: int) -> None:
        if absence == self._absences:
            self._missing.clear()
            self._check()

    def _check(self) -> None:
        if not self._missing:
            self._settled()
