"""Seeding: a newcomer that holds nothing is sent its share at once, before anything is compared.

Repair finds out what differs; where everything does there is nothing to find out. Of the holders that a session has beside
the newcomer the first one sends it, so nothing is sent twice as long as all see the same members. What is missed where they
do not, repair finds afterwards: nothing relies on seeding but the newcomer's hurry.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from sessile.record import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Seeding"]

SEED_KEYS: Final = 500
"""So many keys are looked at in one go."""
SEED_PAUSE_MS: Final = 1
AHEAD: Final = 1_000
"""While so many records wait to be sent, no more are looked for."""


class Seeding:
    """The newcomers that this node sends their share.

    Args:
        context: what the parts of the node share.
        pump: sends a peer more of what waits for it, as far as the window allows.
        over: hears when everything was sent.
    """

    def __init__(self, context: Context, *, pump: Callable[[Peer], None], over: Callable[[], None]) -> None:
        self._context = context
        self._pump = pump
        self._over = over
        self._seeded: dict[str, Peer] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._seeded

    def __len__(self) -> int:
        return len(self._seeded)

    def begin(self, peer: Peer) -> None:
        """A node that holds nothing has greeted."""
        table = self._context.replica.table
        if not table.sessions:
            return
        self._seeded[peer.name] = peer
        self._context.counts["seeded"] += 1
        keys = iter(table)
        self._context.alarm(SEED_PAUSE_MS, lambda: self._walk(peer, keys))

    def link_lost(self, name: str) -> None:
        """It is gone, or comes back and greets anew."""
        self._seeded.pop(name, None)

    def _walk(self, peer: Peer, keys: Iterator[SessionKey]) -> None:
        if self._seeded.get(peer.name) is not peer:
            return
        if len(peer.repairing) < AHEAD:
            looked = list(islice(keys, SEED_KEYS))
            state = self._context.replica.table.state
            peer.repairing.update((key, None) for key in self._mine(looked, peer.name) if state(key) == LIVE)
            self._pump(peer)
            if not looked and not peer.repairing:
                del self._seeded[peer.name]
                self._over()
                return
        self._context.alarm(SEED_PAUSE_MS, lambda: self._walk(peer, keys))

    def _mine(self, keys: list[SessionKey], name: str) -> list[SessionKey]:
        """Those that this node sends to that one: no newcomer has anything to send."""
        placement, me = self._context.placement, self._context.config.name
        if placement.rest is not None:  # everybody holds everything: the keys are dealt out
            senders = [each for each in placement.names if each not in self._seeded]
            place, among = senders.index(me), len(senders)
            return [key for key in keys if key[-1] % among == place]
        order, copies = placement.order, placement.copies
        mine = []
        for key in keys:
            holders = order(key)[:copies]
            if name in holders and next((each for each in holders if each not in self._seeded), "") == me:
                mine.append(key)
        return mine
