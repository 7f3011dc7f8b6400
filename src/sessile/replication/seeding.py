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
        state = self._context.replica.table.state
        looked = 0
        if len(peer.repairing) < AHEAD:
            for looked, key in enumerate(islice(keys, SEED_KEYS), 1):  # noqa: B007  # how many there were
                if state(key) == LIVE and self._is_mine(key, peer.name):
                    peer.repairing.append(key)
            self._pump(peer)
            if not looked and not peer.repairing:
                del self._seeded[peer.name]
                self._over()
                return
        self._context.alarm(SEED_PAUSE_MS, lambda: self._walk(peer, keys))

    def _is_mine(self, key: SessionKey, name: str) -> bool:
        """Whether it is this node that sends the session to that one: no newcomer has anything to send."""
        holders = self._context.placement.holders(key)
        if name not in holders:
            return False
        return next((holder for holder in holders if holder not in self._seeded), "") == self._context.config.name
